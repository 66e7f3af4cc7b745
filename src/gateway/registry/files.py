"""Looks at the files of model versions: confinement, half-written files, content digests. Blocking."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.registry.rounds import RoundMemo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
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
            Unfit: a link leads out of the root or in a circle, or there is something that is neither file
                nor directory.
            OSError: a file went while it was looked at, or a directory cannot be read.
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
    for folder, folders, names in os.walk(files.directory, onerror=_raise):
        here = files.directory / folder
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            check_inside(here / name, files.root)
        found += [here / name for name in names if not name.startswith(".")]
    return found


def _raise(error: OSError) -> None:
    # Files of a directory that cannot be read must not count as gone: the rest would be another version.
    raise error


def _entry(files: VersionFiles, path: Path) -> FileSeen:
    check_inside(path, files.root)
    seen = path.stat()
    name = path.relative_to(files.directory).as_posix()
    if not stat.S_ISREG(seen.st_mode):
        raise Unfit(f"'{shown(name)}' is not a plain file")
    return name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def glance(directory: Path, name: str) -> FileSeen:
    """Return what one file looks like now, links followed; of size -1 when it cannot be seen."""
    try:
        seen = (directory / name).stat()
    except (OSError, ValueError):
        return name, -1, 0, 0, 0
    return name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def shown(name: str) -> str:
    """Return a file's name as text that can be sent and logged: bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def check_inside(path: Path, root: Path) -> None:
    """Pass when `path`, with every link followed, lies in `root`.

    Raises:
        Unfit: it leads out or in a circle, or no file can have such a name.
        OSError: it leads nowhere.
    """
    if not _resolved(path).is_relative_to(root):
        raise Unfit(f"'{shown(path.name)}' is a link that leads out of the repository")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise Unfit(f"'{shown(path.name)}' is a link that leads in a circle") from exc
        raise
    except RuntimeError as exc:  # how Python before 3.13 tells of a circle
        raise Unfit(f"'{shown(path.name)}' is a link that leads in a circle") from exc
    except ValueError as exc:
        raise Unfit(f"no file can be named {path.name!r}") from exc


class DigestCache:
    """SHA-256 of file contents, kept by path while size, times and inode stay. Used by one thread at a time.

    Holds one entry for each file that the last round saw; `keep_round` forgets the others.
    """

    def __init__(self) -> None:
        self._digests: RoundMemo[str, tuple[FileSeen, str]] = RoundMemo()

    def __len__(self) -> int:
        """Return how many files it knows."""
        return len(self._digests)

    def version_digest(self, model: str, directory: Path, look: Look) -> str:
        """Return the digest of names and contents of the files seen by `look`.

        Raises:
            OSError: a file cannot be read.
        """
        whole = hashlib.sha256()
        for entry in look:
            content = self._content(model, directory, entry).encode()
            whole.update(b"%b\0%b\0" % (os.fsencode(entry[0]), content))
        return whole.hexdigest()

    def keep_round(self, looked_at: Collection[str], existing: Collection[str]) -> None:
        """Forget files that were not asked for since the last call; as `RoundMemo.keep_round`."""
        self._digests.keep_round(looked_at, existing)

    def _content(self, model: str, directory: Path, entry: FileSeen) -> str:
        path = directory / entry[0]
        known = self._digests.get(model, str(path))
        if known is not None and known[0] == entry:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._digests.put(model, str(path), (entry, digest))
        return digest
