"""The descriptor pool that the generated messages are registered in.

Protobuf's default pool holds one definition of a name per process, and tritonclient, grpcio-health-checking
and grpcio-reflection put the names of our messages there. A pool of our own lets them be imported beside the
gateway, in either order. Messages of the two pools are of different classes: they reach each other as bytes.

This holds for the compiled protobuf runtime, which every binary wheel has. The pure-Python one writes all
messages into the default pool, whatever pool they are made in.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
"""Filled by the generated modules as they are imported, and constant from then on."""
