"""The simulated disk of the state's tests, with what a spool needs besides."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tests.state.simulated_disk import Killed, SimulatedDisk

if TYPE_CHECKING:
    from pathlib import Path


class SpoolDisk(SimulatedDisk):
    """A `predlog.spool.disk.SpoolDisk` in memory; `unreadable` makes reads fail."""

    def __init__(self, seed: str = "") -> None:
        super().__init__(seed)
        self.unreadable = False

    def lock(self, directory: Path) -> int:
        return 0

    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor].cached)

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        if self._dead:
            raise Killed
        if self.unreadable:
            raise OSError(errno.EIO, "a bad sector")
        return bytes(self._open[descriptor].cached[offset : offset + size])

    def damage(self, path: Path, offset: int, data: bytes) -> None:
        """Overwrite part of a file behind everybody's back."""
        self._names[path].cached[offset : offset + len(data)] = data
