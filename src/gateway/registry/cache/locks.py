"""Locks between processes that the kernel frees when their owner dies, and that may be deleted. Blocking."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType


class FileLock:
    """An advisory lock on a file, held through a descriptor of its own. Used by one thread at a time.

    So two of one process exclude each other as those of two processes do. The file's mtime may serve as a
    note of when the lock was last of use; deleting the file is for who holds it exclusively.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def held(self) -> bool:
        """Whether it is held."""
        return self._descriptor >= 0

    def try_shared(self) -> bool:
        """Take the lock beside others who share it; return whether it was to be had. Never waits."""
        return self._try(fcntl.LOCK_SH, os.O_CREAT)

    def try_exclusive(self, *, create: bool = True) -> bool:
        """Take the lock alone; return whether it was to be had. Never waits.

        Without `create` a lock that nobody ever took is not to be had either.
        """
        return self._try(fcntl.LOCK_EX, os.O_CREAT if create else 0)

    def touch(self, wall_s: Callable[[], float]) -> None:
        """Note that what it guards is of use now. Only while held."""
        os.utime(self._descriptor, (wall_s(), wall_s()))

    def delete(self) -> None:
        """Delete the file and let go. Only while held exclusively."""
        self.path.unlink()
        self.close()

    def release(self, wall_s: Callable[[], float]) -> None:
        """Note that what it guards was of use until now, and let go."""
        with suppress(OSError):  # it then counts as used when it was taken
            self.touch(wall_s)
        self.close()

    def close(self) -> None:
        """Let go; harmless twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _try(self, kind: int, flags: int) -> bool:
        while not self.held:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
            except FileNotFoundError:
                if not flags:
                    return False
                raise
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                if self._is_current(descriptor):
                    self._descriptor, descriptor = descriptor, -1
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the file locked is the one of that name: it may have been deleted in between."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False
