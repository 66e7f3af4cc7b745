"""A real disk that can be full."""

from __future__ import annotations

import asyncio
import errno

from gateway.state.disk import LocalDisk


class FailingDisk(LocalDisk):
    """Refuses writes while `full`; `refused` and `accepted` get an item for each write."""

    def __init__(self) -> None:
        self.full = False
        self.refused = asyncio.Queue[None]()
        self.accepted = asyncio.Queue[None]()
        self._loop = asyncio.get_running_loop()

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write half of it when there is no room for all."""
        if not self.full:
            self._loop.call_soon_threadsafe(self.accepted.put_nowait, None)
            return super().write_at(descriptor, data, offset)
        if len(data) > 1:
            return super().write_at(descriptor, data[: len(data) // 2], offset)
        self._loop.call_soon_threadsafe(self.refused.put_nowait, None)
        raise OSError(errno.ENOSPC, "No space left on device")
