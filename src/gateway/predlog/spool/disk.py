"""The few operations on files that a spool is kept with: a seam, so that tests can break each of them."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

LOCK_FILE = "lock"


class SpoolDisk(Protocol):
    """A file system. Blocking; every method raises OSError as the system call does."""

    def make_directory(self, path: Path) -> None:
        """Make a private directory, and those above it, unless it is there; durable on return."""

    def lock(self, directory: Path) -> int:
        """Take the directory for this process alone; return what `close` gives back. Never waits."""

    def names(self, directory: Path) -> list[str]:
        """Return what is in a directory."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for reading and writing, as a descriptor."""

    def size(self, descriptor: int) -> int:
        """Return a file's length in bytes."""

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at an offset; fewer bytes than asked for only at the file's end."""

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at an offset; return how many bytes, which may be fewer."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file, or extend it with zeros."""

    def sync(self, descriptor: int) -> None:
        """Have a file's content on the disk. After an error nothing is known about it."""

    def sync_directory(self, path: Path) -> None:
        """Have the names in a directory on the disk."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what had it."""

    def remove(self, path: Path) -> None:
        """Delete a file."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""


class LocalSpoolDisk:
    """The real one. Links are not followed."""

    def make_directory(self, path: Path) -> None:
        """Make a private directory, and those above it; durable on return."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        self.sync_directory(path.parent)

    def lock(self, directory: Path) -> int:
        """Take an advisory lock that the kernel frees when its owner dies."""
        descriptor = self.open(directory / LOCK_FILE, create=True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def names(self, directory: Path) -> list[str]:
        """Return what is in a directory."""
        return [path.name for path in directory.iterdir()]

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for reading and writing."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o600)

    def size(self, descriptor: int) -> int:
        """Return a file's length."""
        return os.fstat(descriptor).st_size

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at an offset."""
        data = os.pread(descriptor, size, offset)
        while 0 < len(data) < size:
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at an offset; return how many bytes."""
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Have a file's content, and its size, on the disk."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Have the names in a directory on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)


def write_all(disk: SpoolDisk, descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data`, in as many writes as it takes."""
    rest = memoryview(data)
    while rest:
        written = disk.write_at(descriptor, rest, offset)
        if written <= 0:
            raise OSError(errno.EIO, "the disk took no bytes and gave no reason")
        rest = rest[written:]
        offset += written


def replace_file(disk: SpoolDisk, path: Path, content: bytes) -> None:
    """Give a file new content in one step: it is the old one or the new one, durably the new on return."""
    beside = path.with_name(f".new-{path.name}")
    descriptor = disk.open(beside, create=True)
    try:
        disk.truncate(descriptor, 0)
        write_all(disk, descriptor, content, 0)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(beside, path)
    disk.sync_directory(path.parent)
