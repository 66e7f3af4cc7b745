"""A lock on a directory that the kernel frees when its owner dies. Blocking."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from gateway.core.state import StateUnavailable

if TYPE_CHECKING:
    from pathlib import Path


class DirectoryLock:
    """An exclusive advisory lock; its file names the process that holds it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._descriptor = -1

    def take(self) -> None:
        """Take the lock; never waits.

        Raises:
            StateUnavailable: another process, or this one, has it.
            OSError: the disk's.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StateUnavailable(
                f"{self._path.parent} is in use by the gateway with process id {holder}; stop that one, or "
                "give this one a state directory of its own"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; harmless twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
