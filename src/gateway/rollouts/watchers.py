"""Whoever watches rollouts change gets the newest of every one that did, as fast as it is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Watchers:
    """Tells every reader which rollouts have changed. Event loop only; never blocks whoever changes them."""

    def __init__(self) -> None:
        self._readers: dict[asyncio.Event, set[str]] = {}
        self._closed = False

    def changed(self, name: str) -> None:
        """Take note that a rollout has changed."""
        for event, names in self._readers.items():
            names.add(name)
            event.set()

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for event in self._readers:
            event.set()

    async def watch(self, document: Callable[[str], dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
        """Give the document of each rollout that has changed since it was given last.

        Args:
            document: makes it; NotFound leaves it out.
        """
        event, names = asyncio.Event(), set[str]()
        self._readers[event] = names
        try:
            while not self._closed:
                await event.wait()
                event.clear()
                changed = sorted(names)
                names.clear()
                for name in changed:
                    try:
                        current = document(name)
                    except NotFound:
                        continue
                    yield current
        finally:
            del self._readers[event]
