"""Whether an artifact in the cache is still what it was published as."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError
from gateway.core.types import VersionState
from gateway.registry.cache.integrity import Hasher
from gateway.registry.cache.manifest import Manifest, decode
from gateway.registry.cache.notes import read_note
from gateway.registry.verification.plain_files import check_plain_files, shown_path

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.registry.cache.progress import Progress
    from gateway.registry.cache.resources import Resources

_NOT_DAMAGE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Damaged(Exception):
    """An artifact differs from what was published; the message says in what."""


class Seen:
    """Something in a directory as it was when looked at, told from a later one of that name. Blocking.

    Its descriptor keeps the kernel from giving the inode to another directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def open(self) -> bool:
        """Look; return whether it is there."""
        try:
            self._descriptor = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def is_directory(self) -> bool:
        """Return whether it is a directory, not a link to one."""
        return stat.S_ISDIR(os.fstat(self._descriptor).st_mode)

    def is_current(self) -> bool:
        """Return whether the directory of that name is still the one looked at."""
        try:
            now = self._path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._descriptor), now)

    def close(self) -> None:
        """Let go; harmless twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


async def examine(digest: str, seen: Seen, progress: Progress, resources: Resources) -> Manifest:
    """Return the manifest of an artifact of which every byte was found to be as published.

    Raises:
        Damaged: it is not.
        OSError: it could not be looked at, and that says nothing of its state.
    """
    layout, workers = resources.layout, resources.workers
    if not seen.is_directory():
        raise Damaged("it is no directory")
    try:
        manifest = await workers.run(_manifest, layout.artifact(digest) / "manifest.json")
        if manifest.digest != digest:
            raise Damaged("its manifest is not the one published")
        files = layout.files(digest)
        await workers.run(check_plain_files, files, manifest.sha256s.keys())
        progress.enter(VersionState.VERIFYING, 0, manifest.total_bytes)
        hasher = Hasher(workers, resources.options.threads, progress.add)
        found = await hasher.hashed(files, manifest.sha256s)
    except RegistryError as error:
        if error.may_pass:
            raise
        raise Damaged(str(error).removeprefix(f"{error.step}: ")) from error
    except OSError as error:
        if error.errno in _NOT_DAMAGE:
            raise
        raise Damaged(f"it cannot be read: {error.strerror or type(error).__name__}") from error
    for file in manifest.files:
        if found[file.path] != (file.size, file.sha256):
            raise Damaged(f"{shown_path(file.path)} has changed since")
    return manifest


def _manifest(path: Path) -> Manifest:
    try:
        return decode(read_note(path))
    except ValueError as error:
        raise Damaged("its manifest cannot be read") from error
