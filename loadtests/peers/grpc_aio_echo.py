"""The ceiling of grpcio servers in Python: a grpc.aio servicer that echoes bytes."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.scripts import script_launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import Echoed

if TYPE_CHECKING:
    from loadtests.peers.base import Place
    from loadtests.peers.running import Launch


def _launch(place: Place) -> Launch:
    return script_launch(place, "grpc_aio_servicer.py", {"grpc": free_ports(1)[0]}, {"echo": True})


PEER: Final = ServerPeer(
    name="grpc_aio_echo",
    label=f"grpc.aio echo of bytes (grpcio {version('grpcio')}, uvloop)",
    protocols=("grpc",),
    packages=(),
    settings={
        "model": "none: messages are neither parsed nor answered, only sent back",
        "processes": "1, in the project's own environment",
    },
    launch=_launch,
    wire=Echoed(),
    echoes=True,
)
