"""Tells when something below a set of directories has changed: inotify, and a look every so often besides."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)


async def changes(directories: Sequence[Path], interval_s: float) -> AsyncGenerator[None, None]:
    """Yield at once, then after every change, and at least every `interval_s` seconds.

    The interval catches what inotify cannot see: network file systems, targets of links. Where the system
    has no watches left the interval alone is used, and the log says so.
    """
    yield
    try:
        watch = awatch(
            *directories,
            watch_filter=None,
            debounce=200,
            rust_timeout=max(1, round(interval_s * 1000)),
            yield_on_timeout=True,
        )
        async with aclosing(watch):
            async for _ in watch:
                yield
    except OSError as exc:
        _log.warning("cannot watch the model repository, looking every %g s instead: %s", interval_s, exc)
    while True:
        await asyncio.sleep(interval_s)
        yield
