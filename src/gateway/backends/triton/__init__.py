"""The Triton backend: models that fleets of Triton Inference Servers run, over gRPC."""
