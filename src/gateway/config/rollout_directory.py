"""Follows a directory of rollout files: inotify, and a look every so often besides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

from gateway.config.rollout_listing import read_directory
from gateway.config.rollout_set import RolloutFiles, RolloutSet
from gateway.config.rollout_values import MAX_DURATION_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from gateway.config.rollout_file import RolloutFile

POLL_S: Final = 0.5
SETTLE_S: Final = 0.3
_RETRY_WATCH_S: Final = 5.0
_log = logging.getLogger(__name__)


class RolloutDirectory:
    """The rollout files of one directory.

    A change by rename is in force within `settle_s` and the time of a look where inotify works, and
    `poll_interval_s` later at most where it does not: network file systems, targets of links. Reading and
    parsing happen in a thread.
    """

    def __init__(
        self,
        directory: Path,
        *,
        poll_interval_s: float = POLL_S,
        settle_s: float = SETTLE_S,
        fixed: Sequence[RolloutFile] = (),
        max_window_s: float = MAX_DURATION_S,
    ) -> None:
        """Remember what to follow; nothing is read yet.

        Args:
            directory: it may be missing, for now or for good.
            poll_interval_s: between looks while nothing is noticed.
            settle_s: a file is taken once it has been at rest so long.
            fixed: rollouts and splits from elsewhere, which no file may contradict.
            max_window_s: longest `keep_stable_warm` that a file may ask for.
        """
        self._directory = directory
        self._poll_interval_s = poll_interval_s
        self._settle_s = settle_s
        self._set = RolloutSet(settle_s=settle_s, fixed=fixed, max_window_s=max_window_s)
        self._current = RolloutFiles()
        self._noticed = asyncio.Event()

    @property
    def current(self) -> RolloutFiles:
        """What is in force; nothing before the first look. Replaced whole, never changed."""
        return self._current

    @property
    def unsettled(self) -> bool:
        """Whether the last look found what another one must confirm."""
        return self._set.unsettled

    async def look(self) -> RolloutFiles:
        """Look at the directory now and return what is in force; not while `watch` runs."""
        self._current = await asyncio.to_thread(self._look)
        return self._current

    async def watch(self) -> AsyncGenerator[RolloutFiles, None]:
        """Yield what is in force at once, then after every change of it or of a file's status; never ends."""
        before = await self.look()
        yield before
        watcher = asyncio.ensure_future(self._notice())
        try:
            while True:
                await self._wait()
                now = await self.look()
                if now != before:
                    before = now
                    yield now
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    def _look(self) -> RolloutFiles:
        listing = read_directory(self._directory)
        return self._set.see(listing, time.monotonic(), time.time())

    async def _wait(self) -> None:
        interval_s = self._poll_interval_s
        if self._set.unsettled:
            interval_s = min(interval_s, self._settle_s / 2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._noticed.wait(), interval_s)
        self._noticed.clear()

    async def _notice(self) -> None:
        """Set the event at every change that inotify tells of; starts again when the directory was away."""
        warned = False
        while True:
            try:
                async for _ in awatch(
                    self._directory, watch_filter=None, debounce=100, step=20, recursive=False
                ):
                    self._noticed.set()
            except OSError as exc:
                if not warned and self._directory.is_dir():
                    warned = True
                    _log.warning(
                        "cannot watch %s, looking every %g s instead: %s",
                        self._directory,
                        self._poll_interval_s,
                        exc,
                    )
            await asyncio.sleep(_RETRY_WATCH_S)
