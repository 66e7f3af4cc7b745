"""Where things lie in the cache directory, and how they get there and go. Blocking."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError
from gateway.registry.cache.manifest import is_sha256
from gateway.registry.cache.notes import parsed, read_note

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = "model-gateway artifact cache, format 1\n"
_FORMAT_FILE: Final = "FORMAT"
_FOLDERS: Final = ("artifacts", "index", "fetching", "locks", "keep", "trash")
TEMPORARY_PREFIX: Final = ".new-"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What a fetch key stands for.

    Attributes:
        digest: content digest of the files.
        registry: identity of the registry they came from.
        model: its name there.
        label: the version's label there.
        fetched_s: when, in seconds since the epoch.
    """

    digest: str
    registry: str
    model: str
    label: str
    fetched_s: float


class Layout:
    """Paths of one cache directory. Digests and keys given must be SHA-256 in hex."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts, self.indexes, self.fetches, self.locks, self.keeps, self.trash = (
            root / name for name in _FOLDERS
        )

    def prepare(self) -> None:
        """Make the directory what a cache is, or see that it is one.

        Raises:
            RegistryError: it holds something else, or a cache of another format.
            OSError: it cannot be read or written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_mode & 0o077:
            self.root.chmod(0o700)
        self._check_format()
        for name in _FOLDERS:
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def _check_format(self) -> None:
        found = self._format()
        if found is None:
            is_empty = all(path.name.startswith(TEMPORARY_PREFIX) for path in self.root.iterdir())
            # What is there may be what somebody else began with since the first look: first the format.
            found = None if is_empty else self._format()
            if found is None and not is_empty:
                raise _refused("is not empty, and no artifact cache; name an empty one, or a new one")
        if found is None:
            write_atomically(self.root / _FORMAT_FILE, FORMAT.encode(), durable=True)
        elif found != FORMAT.encode():
            shown = ascii(found.decode(errors="replace").strip())
            raise _refused(
                f"has another format, {shown}, than this gateway's, '{FORMAT.strip()}'; name another "
                "directory, or delete this one when no other gateway uses it"
            )

    def _format(self) -> bytes | None:
        """Return what the directory says that it is, None when it says nothing."""
        try:
            return (self.root / _FORMAT_FILE).read_bytes()[:200]
        except FileNotFoundError:
            return None

    def artifact(self, digest: str) -> Path:
        """Where the artifact of that content is, its manifest with it."""
        return self.artifacts / digest

    def files(self, digest: str) -> Path:
        """Where its files are."""
        return self.artifacts / digest / "files"

    def fetching(self, key: str) -> Path:
        """Where a version is being fetched."""
        return self.fetches / key

    def pin_lock(self, digest: str) -> Path:
        """Shared by those who use the artifact, exclusive while it is removed."""
        return self.locks / f"{digest}.lock"

    def repair_lock(self, digest: str) -> Path:
        """Exclusive while a damaged artifact is set aside."""
        return self.locks / f"{digest}.repair"

    def fetch_lock(self, key: str) -> Path:
        """Exclusive while a version is being fetched."""
        return self.locks / f"{key}.fetch"

    def index(self, key: str) -> Path:
        """The note of what a fetch key stands for."""
        return self.indexes / f"{key}.json"

    def indexed(self, key: str) -> IndexEntry | None:
        """Return what a fetch key stands for, None when that is not known; the artifact may be gone."""
        return read_index(self.index(key))

    def write_index(self, key: str, entry: IndexEntry, *, durable: bool) -> None:
        """Note what a fetch key stands for."""
        content = {name: getattr(entry, name) for name in IndexEntry.__slots__} | {"key": key}
        write_atomically(self.index(key), json.dumps(content).encode(), durable=durable)

    def discard(self, path: Path) -> bool:
        """Delete a directory by way of the trash; False if it was not there."""
        grave = self.trash / uuid.uuid4().hex
        try:
            path.rename(grave)
        except FileNotFoundError:
            return False
        remove_tree(grave)
        return True

    def empty_trash(self) -> int:
        """Delete what is in the trash; return how many there were."""
        found = list(self.trash.iterdir())
        for path in found:
            remove_tree(path)
        return len(found)


def read_index(path: Path) -> IndexEntry | None:
    """Return the entry in an index file; None when there is none, or a damaged one."""
    try:
        text = read_note(path)
    except FileNotFoundError:
        return None
    match parsed(text):
        case {
            "key": key,
            "digest": digest,
            "registry": str(registry),
            "model": str(model),
            "label": str(label),
            "fetched_s": float(fetched_s),
        } if key == path.stem and is_sha256(digest):
            return IndexEntry(str(digest), registry, model, label, fetched_s)
    return None


def write_atomically(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a file so that whoever reads it finds it whole or as it was before."""
    new = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with new.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    if durable:
        flush(path.parent)


def flush(path: Path) -> None:
    """Have a file or directory on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> bool:
    """Rename a directory; False when something else than an empty directory is there already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            return False
        raise
    return True


def remove_tree(path: Path) -> None:
    """Delete a directory, read-only or not, as far as it goes; others may be at it as well."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for here, _, _ in os.walk(path):
        with suppress(OSError):
            os.chmod(here, 0o700)  # noqa: PTH101 - os.walk gives text
    shutil.rmtree(path, ignore_errors=True)


def _refused(what: str) -> RegistryError:
    return RegistryError("fetch", f"the directory of the artifact cache {what}", may_pass=True)
