"""The ceiling of ASGI servers in Python: a bare application on uvicorn that echoes bodies."""

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
    return script_launch(place, "uvicorn_echo_app.py", {"http-binary": free_ports(1)[0]})


PEER: Final = ServerPeer(
    name="uvicorn_echo",
    label=f"bare ASGI echo on uvicorn {version('uvicorn')} (httptools, uvloop)",
    protocols=("http-binary",),
    packages=(),
    settings={
        "model": "none: bodies are neither parsed nor answered, only sent back",
        "processes": "1, in the project's own environment",
        "logs": "no access log",
    },
    launch=_launch,
    wire=Echoed(),
    echoes=True,
)
