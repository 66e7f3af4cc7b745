"""Protobuf messages of the wire contracts, generated from protos/ by scripts/generate_protos.py.

Import the modules one by one (`from gateway._proto import open_inference_pb2`): the package imports none.
Their types live in `gateway._proto.pool.POOL`, never in protobuf's default pool.
"""
