"""The prediction log's own stream to a monitor, over gRPC."""
