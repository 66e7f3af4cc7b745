"""Keeps grpc.aio servers on loopback whose program binds every interface and has no option for it."""

from typing import Any

from grpc import aio

_server: Any = aio._server  # type: ignore[attr-defined]  # noqa: SLF001 - aio.Server is the interface alone


class LoopbackServer(_server.Server):  # type: ignore[misc]
    """What `grpc.aio.server()` makes after `bind_to_loopback`."""

    def add_insecure_port(self, address: str) -> int:
        """Bind 127.0.0.1 instead of every interface."""
        port: int = super().add_insecure_port(address.replace("[::]", "127.0.0.1"))
        return port


def bind_to_loopback() -> None:
    """Have `grpc.aio.server()` make such servers in this process."""
    _server.Server = LoopbackServer
