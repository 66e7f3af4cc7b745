"""Where Parquet files of the prediction log lie. Blocking."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_TEMPORARY = ".new-"


class ParquetStore(Protocol):
    """Files by paths relative to its root, with `/` between the parts. Every method raises OSError."""

    def names(self, prefix: str = "") -> list[str]:
        """Return the paths of all files below a folder; none where it does not exist."""

    def read(self, path: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Give a file its content in one step, durably: nobody sees half of it."""

    def delete(self, path: str) -> None:
        """Delete a file; harmless when it is gone."""

    def tidy(self, before_s: float = math.inf) -> int:
        """Delete what was left half written before a time, seconds since the epoch; return how many.

        A write under way that loses its half fails, and has to be repeated.
        """


class DirectoryStore:
    """Files of a local directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, prefix: str = "") -> list[str]:
        """Return the paths of all files below a folder."""
        found = (self._root / prefix).rglob("*.parquet")
        return sorted(str(p.relative_to(self._root)) for p in found if not p.name.startswith(_TEMPORARY))

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        return (self._root / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """Write beside, flush, rename, flush the directory and those made for it."""
        target = self._root / path
        missing = [p for p in target.parents if not p.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(_TEMPORARY + target.name)
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        for directory in (target.parent, *(p.parent for p in missing)):
            _flush_directory(directory)

    def delete(self, path: str) -> None:
        """Delete a file."""
        (self._root / path).unlink(missing_ok=True)

    def tidy(self, before_s: float = math.inf) -> int:
        """Delete temporary files that were last written before a time."""
        old = [p for p in self._root.rglob(f"{_TEMPORARY}*") if _written_s(p) < before_s]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
