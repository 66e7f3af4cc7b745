"""The servers that the gateway is compared with, an adapter each; `find` imports only the one asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from loadtests.peers.base import Peer

NAMES: Final = (
    "triton",
    "mlserver",
    "mosec",
    "litserve",
    "bentoml",
    "rayserve",
    "kserve",
    "grpc_aio_echo",
    "grpc_aio_direct",
    "uvicorn_echo",
)
"""Every peer, then the ceilings; each is a module here with a `PEER`."""


def find(name: str) -> Peer:
    """Return a peer by its name.

    Raises:
        LookupError: there is none of that name; the message lists those there are.
    """
    if name not in NAMES:
        raise LookupError(f"no peer {name!r}; there are {', '.join(NAMES)}")
    return cast("Peer", import_module(f"{__name__}.{name}").PEER)
