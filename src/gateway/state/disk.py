"""The few operations on files that state is kept with: a seam, so that tests can break each of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Disk(Protocol):
    """A file system. Blocking; every method raises OSError as the system call does."""

    def make_directory(self, path: Path) -> None:
        """Make a private directory, and those above it, unless it is there; durable on return."""

    def names(self, directory: Path) -> list[str]:
        """Return what is in a directory."""

    def read(self, path: Path) -> bytes:
        """Return a file's content."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for writing, as a descriptor."""

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


class LocalDisk:
    """The real one."""

    def make_directory(self, path: Path) -> None:
        """Make a private directory, and those above it; durable on return."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        self.sync_directory(path.parent)

    def names(self, directory: Path) -> list[str]:
        """Return what is in a directory."""
        return [path.name for path in directory.iterdir()]

    def read(self, path: Path) -> bytes:
        """Return a file's content; links are not followed."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - pathlib opens no descriptor
            return file.read()

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for writing; links are not followed."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o600)

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at an offset; return how many bytes."""
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Have a file's content and size on the disk."""
        os.fsync(descriptor)

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


def write_all(disk: Disk, descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data`, in as many writes as it takes."""
    rest = memoryview(data)
    while rest:
        written = disk.write_at(descriptor, rest, offset)
        if written <= 0:
            raise OSError(5, "the disk took no bytes and gave no reason")
        rest = rest[written:]
        offset += written
