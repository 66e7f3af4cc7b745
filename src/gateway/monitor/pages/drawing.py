"""Drawing off the event loop: one thread, and charts that have not changed are not drawn again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.core.errors import Overloaded
from gateway.monitor.pages.charts.base import item
from gateway.monitor.pages.jsontext import json_bytes
from gateway.monitor.pages.palette import THEMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.monitor.pages.blocks import Chart

T = TypeVar("T")

_WAITING: Final = 16
_KEPT: Final = 256


class Drawing:
    """Owns the thread that draws: a chart takes some 50 ms of Python, a page has ten, a report forty."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="monitor-drawing")
        self._waiting = 0
        self._charts: OrderedDict[bytes, Any] = OrderedDict()

    async def run(self, draw: Callable[[], T]) -> T:
        """Return what `draw` returns, run on the thread.

        Raises:
            Overloaded: 16 others wait already.
        """
        if self._waiting >= _WAITING:
            raise Overloaded("too many pages are being drawn: ask again in some seconds")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, draw)
        finally:
            self._waiting -= 1

    def chart(self, block: Chart, theme: str, target: str) -> Any:
        """Return a chart as BokehJS takes it; on the thread alone."""
        name = f"{theme} {block.key} {target} {block.draw.__name__}"
        key = blake2b(name.encode() + json_bytes(block.data), digest_size=16).digest()
        drawn = self._charts.pop(key, None) or item(block.draw(block.data, THEMES[theme]), target)
        self._charts[key] = drawn
        while len(self._charts) > _KEPT:
            self._charts.popitem(last=False)
        return drawn

    def close(self) -> None:
        """Let the thread go after what it is at."""
        self._executor.shutdown(wait=False, cancel_futures=True)
