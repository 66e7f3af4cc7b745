"""Tells when model files have changed: inotify, and a look every so often besides."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from watchfiles import Change

    Watch: TypeAlias = AsyncGenerator[set[tuple[Change, str]], None]

_log = logging.getLogger(__name__)


async def changes(
    trees: Sequence[Path], files: Sequence[Path], interval_s: float
) -> AsyncGenerator[None, None]:
    """Yield at once, then after every change, and at least every `interval_s` seconds.

    The interval catches what inotify cannot see: network file systems, targets of links. Where the system
    has no watches left the interval alone is used, and the log says so.

    Args:
        trees: directories watched with everything below them.
        files: files watched together with those beside them whose names begin with the same stem; of the
            directory that they share with strangers nothing else is looked at.
        interval_s: seconds between looks when nothing is noticed.
    """
    yield
    async with aclosing(_Watches(_watches(trees, files), interval_s)) as watches:
        while True:
            await watches.wait()
            yield


class _Watches:
    """Several watches waited for at once; one that fails is logged and left out. Owns them."""

    def __init__(self, watches: Sequence[Watch], interval_s: float) -> None:
        self._interval_s = interval_s
        self._watches = watches
        self._steps = {asyncio.ensure_future(_step(watch)): watch for watch in watches}

    async def wait(self) -> None:
        """Wait until one of them has seen something, or for the interval."""
        if not self._steps:
            await asyncio.sleep(self._interval_s)
            return
        done, _ = await asyncio.wait(
            self._steps, timeout=self._interval_s, return_when=asyncio.FIRST_COMPLETED
        )
        for step in done:
            watch = self._steps.pop(step)
            if error := step.exception():
                _log.warning(
                    "cannot watch the model repository, looking every %g s instead: %s",
                    self._interval_s,
                    error,
                )
            else:
                self._steps[asyncio.ensure_future(_step(watch))] = watch

    async def aclose(self) -> None:
        """Stop and end every watch."""
        for step in self._steps:
            step.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        for watch in self._watches:
            await watch.aclose()


async def _step(watch: Watch) -> None:
    await anext(watch)


def _watches(trees: Sequence[Path], files: Sequence[Path]) -> list[Watch]:
    watches: list[Watch] = []
    if trees:
        watches.append(awatch(*trees, watch_filter=None, debounce=200))
    if files:
        beginnings = tuple(str(file.with_suffix("")) for file in files)
        folders = sorted({file.parent for file in files})
        watches.append(
            awatch(
                *folders,
                watch_filter=lambda _change, path: path.startswith(beginnings),
                debounce=200,
                recursive=False,
            )
        )
    return watches
