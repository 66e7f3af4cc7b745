"""Tells webhooks of transitions: in order, in the background, and counted where it does not succeed."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import urllib.request
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Notices that wait for one webhook; the oldest goes first."""
PAUSES_S: Final = (1.0, 5.0, 25.0)
"""Between attempts at one notice."""
_TIMEOUT_S: Final = 10.0


class Webhooks:
    """Posts notices as JSON to every URL, while entered. One that does not answer delays no other.

    Args:
        urls: whom to tell.
        pause: waits between attempts.

    Attributes:
        sent: notices that were taken.
        dropped: notices given up.
    """

    def __init__(
        self, urls: Sequence[str], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._pause = pause
        self._waiting: dict[str, deque[bytes]] = {url: deque() for url in urls}
        self._arrived = {url: asyncio.Event() for url in urls}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start."""
        self._tasks = [asyncio.create_task(self._deliver(url), name=f"notify {url}") for url in self._waiting]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; what has not been taken yet is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def offer(self, notice: Mapping[str, Any]) -> None:
        """Send a notice to every webhook in its turn; a full queue drops its oldest."""
        body = json.dumps(notice).encode()
        for url, waiting in self._waiting.items():
            if len(waiting) >= MAX_WAITING:
                waiting.popleft()
                self.dropped += 1
            waiting.append(body)
            self._arrived[url].set()

    async def _deliver(self, url: str) -> None:
        waiting, arrived = self._waiting[url], self._arrived[url]
        while True:
            while not waiting:
                arrived.clear()
                await arrived.wait()
            body = waiting.popleft()
            if await self._try(url, body):
                self.sent += 1
            else:
                self.dropped += 1

    async def _try(self, url: str, body: bytes) -> bool:
        for pause_s in (*PAUSES_S, None):
            try:
                await asyncio.to_thread(_post, url, body)
            except (OSError, ValueError, http.client.HTTPException) as error:
                if pause_s is None:
                    _log.warning("webhook %s was not told of a transition: %s", url, error)
                    return False
                await self._pause(pause_s)
            else:
                return True
        return False


def _post(url: str, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the configuration checks the scheme
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310 - likewise
        pass
