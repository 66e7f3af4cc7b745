"""Model serving gateway: the Open Inference Protocol over gRPC and HTTP, dynamically batched."""
