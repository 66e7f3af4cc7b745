"""What an HTTP connection shares with its listener, and what it tells the exchange of each request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.transport.http_lingering import LingeringTransport
    from gateway.transport.refusal import HttpRefusal


class Connections(ServerState):
    """Open connections of one listener.

    Attributes:
        draining: connections are closed after the response they owe.
        empty: set while no connection is open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()


class RequestGuard:
    """What the connection tells the exchange about one request.

    Attributes:
        transport: where the response goes.
        headers: lower-case names; repeated ones joined with ", ".
        refusal: why the request is refused, if it is; may appear while the body is being read, and then
            wakes the reader.
        gone: the client has gone.
        on_gone: called once when the client goes before the response is complete.
    """

    __slots__ = ("gone", "headers", "on_gone", "refusal", "transport")

    def __init__(self, transport: LingeringTransport) -> None:
        self.transport = transport
        self.headers: Mapping[str, str] = {}
        self.refusal: HttpRefusal | None = None
        self.gone = False
        self.on_gone: Callable[[], object] | None = None

    def lose(self) -> None:
        """Note that the client has gone."""
        self.gone = True
        callback, self.on_gone = self.on_gone, None
        if callback is not None:
            callback()
