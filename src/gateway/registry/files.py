"""Looks at the files of model versions: confinement, half-written files, content digests. Blocking."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UNFINISHED_SUFFIXES: Final = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".filepart", ".inprogress")
"""Names that copying and downloading programs give to files they are still writing."""

FileSeen: TypeAlias = tuple[str, int, int, int, int]
"""Name, size, mtime and ctime in nanoseconds, inode. ctime shows changes after which mtime was set back."""
Look: TypeAlias = tuple[FileSeen, ...]
"""What one look at a version's files saw."""


class Unfit(Exception):
    """A version that cannot be loaded as it is; the message names no path outside the model."""


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """Files of one version.

    Attributes:
        root: nothing outside may be reached; already resolved.
        directory: the version's directory.
        stem: set for a single model file: only files whose names start with it belong to the version.
    """

    root: Path
    directory: Path
    stem: str = ""

    def look(self) -> Look:
        """Return what is there now; files that are being written under a temporary name are left out.

        Raises:
            Unfit: a link leads out of the root, or there is something that is neither file nor directory.
            OSError: a file went while it was looked at.
        """
        return tuple(_entry(self, path) for path in sorted(_walk(self)))

    def unfinished(self) -> list[str]:
        """Return the names of files that are being written under a temporary name."""
        return [p.name for p in _walk(self) if p.name.endswith(UNFINISHED_SUFFIXES)]


def _walk(files: VersionFiles) -> Iterable[Path]:
    check_inside(files.directory, files.root)
    if files.stem:
        return [p for p in files.directory.iterdir() if p.name.startswith(files.stem) and not p.is_dir()]
    found: list[Path] = []
    for folder, folders, names in os.walk(files.directory):
        here = files.directory / folder
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            check_inside(here / name, files.root)
        found += [here / name for name in names if not name.startswith(".")]
    return found


def _entry(files: VersionFiles, path: Path) -> FileSeen:
    check_inside(path, files.root)
    seen = path.stat()
    name = path.relative_to(files.directory).as_posix()
    if not stat.S_ISREG(seen.st_mode):
        raise Unfit(f"'{name}' is not a plain file")
    return name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def check_inside(path: Path, root: Path) -> None:
    """Pass when `path`, with every link followed, lies in `root`.

    Raises:
        Unfit: it leads out.
        OSError: it leads nowhere.
    """
    if not path.resolve(strict=True).is_relative_to(root):
        raise Unfit(f"'{path.name}' is a link that leads out of the repository")


class DigestCache:
    """SHA-256 of file contents, kept by path, size, times and inode. Used by one thread at a time.

    Holds an entry for each file of the last round only: `keep_round` forgets the others.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, FileSeen], str] = {}
        self._used: dict[tuple[str, FileSeen], str] = {}

    def version_digest(self, directory: Path, look: Look) -> str:
        """Return the digest of names and contents of the files seen by `look`."""
        whole = hashlib.sha256()
        for entry in look:
            whole.update(f"{entry[0]}\0{self._content(directory, entry)}\0".encode())
        return whole.hexdigest()

    def keep_round(self) -> None:
        """Forget the files that were not asked for since the last call."""
        self._known, self._used = self._used, {}

    def _content(self, directory: Path, entry: FileSeen) -> str:
        key = (str(directory), entry)
        digest = self._used.get(key) or self._known.get(key)
        if digest is None:
            with (directory / entry[0]).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._used[key] = digest
        return digest
