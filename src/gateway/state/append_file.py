"""A file that grows by appends of which each is on the disk when it returns, or undone. Blocking.

What a failed fsync leaves is not known: the kernel gives up the pages it could not write and calls them
clean, so neither reading them back nor another fsync says that they are on the disk (Rebello et al., "Can
Applications Recover from fsync Failures?", USENIX ATC 2020). So what failed is cut off and the cut is
flushed; and who opens a file writes its end anew, since an earlier process may have died of just that.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.state.disk import write_all

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.state.disk import Disk

MAX_APPEND_BYTES: Final = 1 << 20
"""Longest append, so that no more than this of a file's end can be in doubt."""


class AppendFile:
    """One file, its sound content known to end at `size`.

    Nothing may be appended while it is not `sound`; `mend` then tries to make it so.
    """

    def __init__(self, disk: Disk, path: Path, content: bytes) -> None:
        """Take a file that holds `content`, or holds it and a torn end."""
        self.path = path
        self.size = len(content)
        self.sound = False
        self._disk = disk
        self._descriptor: int | None = None
        self._doubtful = content[-MAX_APPEND_BYTES:]

    def mend(self) -> None:
        """Make the file hold its sound content and nothing else, on the disk.

        Raises:
            OSError: it could not be; `sound` stays False.
        """
        if self._descriptor is None:
            self._descriptor = self._disk.open(self.path)
        if self._doubtful:
            write_all(self._disk, self._descriptor, self._doubtful, self.size - len(self._doubtful))
        self._cut(self._descriptor, self.size)
        self._doubtful = b""
        self.sound = True

    def append(self, data: bytes) -> None:
        """Append `data`; durable on return.

        Raises:
            OSError: it failed. It was undone if the file is still `sound`; else that is not known.
        """
        if not self.sound or self._descriptor is None:
            raise OSError(errno.EIO, "an earlier failure was not mended yet")
        if len(data) > MAX_APPEND_BYTES:
            raise OSError(errno.EFBIG, f"{len(data)} bytes at once, more than {MAX_APPEND_BYTES}")
        try:
            write_all(self._disk, self._descriptor, data, self.size)
            self._disk.sync(self._descriptor)
        except OSError:
            self.take_back(self.size)
            raise
        self.size += len(data)

    def take_back(self, size: int) -> None:
        """Undo what was appended since the file had `size` bytes; `sound` says whether that succeeded."""
        self.size = size
        self.sound = False
        if self._descriptor is not None:
            with suppress(OSError):
                self._cut(self._descriptor, size)
                self.sound = True

    def close(self) -> None:
        """Close the file; harmless twice."""
        descriptor, self._descriptor, self.sound = self._descriptor, None, False
        if descriptor is not None:
            with suppress(OSError):
                self._disk.close(descriptor)

    def _cut(self, descriptor: int, size: int) -> None:
        self._disk.truncate(descriptor, size)
        self._disk.sync(descriptor)


def is_unwritten(line: bytes, offset: int) -> bool:
    """Return whether part of a line at `offset` never reached the disk.

    A file's new size may be on the disk before its blocks are; those read as zeros, which no line holds.
    """
    end = offset + len(line)
    start = offset - offset % _BLOCK_BYTES
    for block in range(start, end, _BLOCK_BYTES):
        part = line[max(block - offset, 0) : block + _BLOCK_BYTES - offset]
        if part.count(0) == len(part):
            return True
    return False


_BLOCK_BYTES: Final = 512
"""Of every disk a divisor of what it writes at once."""
