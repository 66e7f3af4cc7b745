"""A bare grpc.aio servicer that does the gateway's work: protobuf and ONNX Runtime, without batches."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.scripts import script_launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import OpenInference

if TYPE_CHECKING:
    from loadtests.peers.base import Place
    from loadtests.peers.running import Launch


def _launch(place: Place) -> Launch:
    return script_launch(place, "grpc_aio_servicer.py", {"grpc": free_ports(1)[0]}, {"echo": False})


PEER: Final = ServerPeer(
    name="grpc_aio_direct",
    label=f"bare grpc.aio servicer with ONNX Runtime, unbatched (grpcio {version('grpcio')}, uvloop)",
    protocols=("grpc",),
    packages=(),
    settings={
        "model": "ONNX Runtime on the event loop, 1 thread",
        "batching": "none",
        "processes": "1, in the project's own environment",
    },
    launch=_launch,
    wire=OpenInference(),
)
