"""Reads a directory of rollout files as one set, without ever waiting for a writer.

It blocks: to be run in a thread.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.rollout_file import MAX_ROLLOUT_BYTES, content_hash, parse_rollout
from gateway.config.rollout_values import MAX_DURATION_S
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.rollout_file import RolloutFile

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
MAX_FILES: Final = 256
MAX_ENTRIES: Final = 4096
_SWAPPED_LINK: Final = "..data"
"""The link that Kubernetes exchanges when a mounted ConfigMap changes: all files behind it change at once."""
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class FileRead:
    """One file as it was found.

    Attributes:
        content: its bytes; None when it could not be read.
        hash: of the content; empty likewise.
        owner: its owner's name; empty where that is not known.
        stamp: device, inode, size, and times of modification and change in nanoseconds; as long as it stays,
            nobody has touched the file.
        error: why it could not be read; empty when it was.
    """

    content: bytes | None
    hash: str = ""
    owner: str = ""
    stamp: tuple[int, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at the directory.

    Attributes:
        files: path -> what was found; meaningless when `error` is set.
        identity: device and inode of the directory.
        error: why the directory could not be read; empty when it was.
    """

    files: Mapping[str, FileRead] = field(default_factory=dict)
    identity: tuple[int, int] = (0, 0)
    error: str = ""


def read_directory(directory: Path) -> Listing:
    """Return what is in `directory` now: files by the known suffixes, those that begin with a dot left out.

    Where a ConfigMap is exchanged meanwhile it is read again, so that the files are of one generation.
    """
    for _ in range(_TRIES):
        before = _generation(directory)
        listing = _read_once(directory)
        if _generation(directory) == before:
            return listing
    return Listing(error=f"{directory}: changes faster than it can be read")


def _generation(directory: Path) -> str:
    try:
        return str((directory / _SWAPPED_LINK).readlink())
    except OSError:
        return ""


def _read_once(directory: Path) -> Listing:
    try:
        status = directory.stat()
        names = _names(directory)
    except OSError as exc:
        return Listing(error=f"{directory}: cannot be read: {exc.strerror}")
    except ValueError as exc:
        return Listing(error=f"{directory}: {exc}")
    files = {str(directory / name): read_file(directory / name) for name in names}
    return Listing(files, (status.st_dev, status.st_ino))


def _names(directory: Path) -> list[str]:
    names = []
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            if count >= MAX_ENTRIES:
                raise ValueError(f"more than {MAX_ENTRIES} entries; keep nothing but rollout files in it")
            if not entry.name.startswith(".") and Path(entry.name).suffix in SUFFIXES:
                names.append(entry.name)
    if len(names) > MAX_FILES:
        raise ValueError(f"{len(names)} files, at most {MAX_FILES} are read")
    return sorted(names)


def read_file(path: Path) -> FileRead:
    """Return what is in a file now; pipes, devices and directories are refused without a wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as exc:
        return FileRead(None, error=f"{path}:1: cannot be read: {exc.strerror}")
    try:
        return _read_open(descriptor, path)
    except OSError as exc:
        return FileRead(None, error=f"{path}:1: cannot be read: {exc.strerror}")
    finally:
        os.close(descriptor)


def read_rollout(path: Path, *, max_window_s: float = MAX_DURATION_S) -> RolloutFile:
    """Read and parse one file as it is now; `max_window_s` is the longest `keep_stable_warm` allowed.

    Raises:
        ConfigError: it cannot be read, or every complaint about it, one per line.
    """
    found = read_file(path)
    if found.content is None:
        raise ConfigError(found.error)
    return parse_rollout(found.content, str(path), found.owner, max_window_s=max_window_s)


def _read_open(descriptor: int, path: Path) -> FileRead:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        return FileRead(None, stamp=_stamp(before), error=f"{path}:1: not a regular file")
    if before.st_size > MAX_ROLLOUT_BYTES:
        text = f"{path}:1: {before.st_size} bytes, at most {MAX_ROLLOUT_BYTES} are read"
        return FileRead(None, stamp=_stamp(before), error=text)
    content = b""
    while chunk := os.read(descriptor, MAX_ROLLOUT_BYTES + 1 - len(content)):
        content += chunk
    if _stamp(os.fstat(descriptor)) != _stamp(before) or len(content) > MAX_ROLLOUT_BYTES:
        return FileRead(None, error=f"{path}:1: is being written")
    return FileRead(content, content_hash(content), _owner(before.st_uid), _stamp(before))


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
