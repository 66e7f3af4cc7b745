"""POSIX shared memory segments of this process: private, reserved, and never left behind for long.

On Linux `shm_open` opens a file under /dev/shm, which is done here by hand for what the standard library's
does not offer: memory that is reserved before it is written to, for writing to a page that a full /dev/shm
cannot give kills the process; and an owner's file beside the segments, locked as long as they are in use.
A lock (flock(2)) is gone with its process however that ended, and holds between containers that share the
directory, where process ids say nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import re
import secrets
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.types import Array

DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - where the system has its shared memory
PREFIX: Final = "model-gateway-triton-"
_NAME: Final = re.compile(rf"({PREFIX}[0-9a-f]{{32}})-[0-9a-f]{{32}}")
_TRIES: Final = 3
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class Owner:
    """Who has segments; every one of them is in use by a living process as long as this is not closed.

    Closed at the latest when this process exits. Should it be killed, the segments stay until `sweep`.

    Attributes:
        name: that of its file, and what the names of its segments begin with.

    Raises:
        OSError: there is no shared memory here.
    """

    def __init__(self, directory: Path = DIRECTORY) -> None:
        """Make one, without segments."""
        self._directory = directory
        fd, path = _created(directory)
        self.name = path.name
        self._forget = weakref.finalize(self, _forget, path, fd)

    def segment(self, nbytes: int) -> Segment:
        """Make a segment.

        Raises:
            OSError: there is not that much shared memory left.
        """
        return Segment(nbytes, self._directory / f"{self.name}-{secrets.token_hex(16)}", self)

    def close(self) -> None:
        """Say that no segment is in use any more, each being closed; idempotent."""
        self._forget()


class Segment:
    """One segment; only this process's user can open it, and only by a name that cannot be guessed.

    Its name is taken back by `close`, at the latest when this process exits; who has it mapped then keeps the
    memory until unmapping it.

    Attributes:
        name: in the directory.
        key: as `shm_open` takes it.
        nbytes: its size.
    """

    def __init__(self, nbytes: int, path: Path, owner: Owner) -> None:
        """Make one; see `Owner.segment`."""
        self.name = path.name
        self.key = f"/{path.name}"
        self.nbytes = nbytes
        self._owner = owner  # which stays while its segments do
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        self._forget = weakref.finalize(self, path.unlink, missing_ok=True)
        try:
            os.posix_fallocate(fd, 0, nbytes)
            self._map = mmap.mmap(fd, nbytes)
        except OSError:
            self._forget()
            raise
        finally:
            os.close(fd)
        self.memory: Array = np.frombuffer(self._map, np.uint8)

    def close(self) -> None:
        """Take back the name and unmap; idempotent. No array over `memory` may be in use."""
        self._forget()
        self.memory = np.empty(0, np.uint8)
        # A view that somebody still has keeps the mapping until it is gone.
        with contextlib.suppress(BufferError):
            self._map.close()


def sweep(directory: Path = DIRECTORY) -> int:
    """Remove segments of this user whose owners have ended without doing so; return how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for owner in {_owner_of(path.name) for path in directory.glob(f"{PREFIX}*")}:
            with contextlib.suppress(OSError):
                removed += _sweep(directory / owner)
    if removed:
        _log.info("%d shared memory segments of gateways that were killed were removed", removed)
    return removed


def has_ended(segment: str, directory: Path = DIRECTORY) -> bool:
    """Whether this is the name of a segment whose owner is gone for good; False also where nobody can say."""
    found = _NAME.fullmatch(segment)
    if found is None:
        return False
    try:
        with _unused(directory / found[1]):
            return True
    except OSError:
        return False


def _owner_of(name: str) -> str:
    found = _NAME.fullmatch(name)
    return found[1] if found is not None else name


def _sweep(owner: Path) -> int:
    removed = 0
    with _unused(owner):  # held meanwhile: who is about to lock a file just made finds that it is gone
        for path in owner.parent.glob(f"{owner.name}-*"):
            if path.lstat().st_uid == os.geteuid():
                path.unlink()
                removed += 1
        if owner.lstat().st_uid == os.geteuid():
            owner.unlink()
    return removed


@contextlib.contextmanager
def _unused(owner: Path) -> Iterator[None]:
    """Hold the lock of an owner that has ended, or nothing where its file is gone too.

    Raises:
        OSError: its process is there, or it is somebody else's.
    """
    try:
        fd = os.open(owner, _FLAGS)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process is there
        yield
    finally:
        os.close(fd)


def _created(directory: Path) -> tuple[int, Path]:
    """Create and lock a file; one that is swept away before it is locked is made again."""
    for _ in range(_TRIES):
        path = directory / (PREFIX + secrets.token_hex(16))
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd, path
        _forget(path, fd)
    raise OSError("shared memory segments are removed by somebody else as they are made")


def _forget(path: Path, fd: int) -> None:
    path.unlink(missing_ok=True)
    os.close(fd)
