"""Open Inference Protocol codecs: protobuf, JSON and binary tensors to core types and back; never waits."""
