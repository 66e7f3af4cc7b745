"""How frames and labels reach the monitor: the gRPC service and the NATS JetStream consumer."""
