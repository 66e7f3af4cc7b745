"""The half-fetched files of one version, and what is known of them after a crash. Blocking."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from gateway.registry.cache.integrity import feed
from gateway.registry.cache.layout import flush, remove_tree, write_atomically
from gateway.registry.cache.manifest import is_sha256
from gateway.registry.cache.notes import parsed, read_note

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from hashlib import _Hash
    from pathlib import Path

    from gateway.core.registry import RegistryFile
    from gateway.registry.cache.manifest import Manifest

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class FetchedPart:
    """Bytes [start, start + length) of the file at `path` were written, and had this SHA-256."""

    path: str
    start: int
    length: int
    sha256: str


class Staging:
    """The directory that one version is fetched into; for who holds its fetch lock.

    `state.json` is the listing that the files belong to, `parts.jsonl` a line for each part that is complete,
    `artifact/` what will be published. Whatever a crash leaves is either found complete or fetched again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "state.json"
        self._parts = directory / "parts.jsonl"
        self.artifact = directory / "artifact"
        self.files = self.artifact / "files"

    def resume(self, listing: Sequence[RegistryFile]) -> list[FetchedPart]:
        """Make room for `listing`; return the parts of an earlier attempt that may still be there and good.

        Files of which size, etag or claimed digest changed are dropped, and so is all that is not listed.
        """
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        same = {file.path: file for file in listing if self._listed().get(file.path) == asdict(file)}
        parts = [part for part in self._recorded() if part.path in same]
        _sweep(self.files, {part.path for part in parts})
        for file in listing:
            self._create(file)
        self._write_parts(parts)
        state = {"format": _FORMAT, "files": [asdict(file) for file in listing]}
        write_atomically(self._state, json.dumps(state).encode(), durable=False)
        return parts

    def holds(self, part: FetchedPart) -> bool:
        """Return whether the part is there as it was recorded."""
        hasher = hashlib.sha256()
        try:
            length = feed(self.files / part.path, part.start, hasher, part.length)
        except FileNotFoundError:
            return False
        return length == part.length and hasher.hexdigest() == part.sha256

    def write(self, path: str, offset: int, pieces: Sequence[bytes], hasher: _Hash) -> None:
        """Write `pieces` one after the other from `offset`, and hash them."""
        descriptor = os.open(self.files / path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for piece in pieces:
                left = memoryview(piece)
                hasher.update(left)
                while left:
                    count = os.pwrite(descriptor, left, offset)
                    left, offset = left[count:], offset + count
        finally:
            os.close(descriptor)

    def end_file(self, path: str, size: int) -> None:
        """Cut a file of which the size became known only now."""
        os.truncate(self.files / path, size)

    def record(self, part: FetchedPart) -> None:
        """Note that a part is complete."""
        self._append([part.path, part.start, part.length, part.sha256])

    def forget(self, file: RegistryFile) -> None:
        """Begin a file anew."""
        self._append([file.path])
        (self.files / file.path).unlink(missing_ok=True)
        self._create(file)

    def clear(self) -> None:
        """Delete all that was fetched."""
        remove_tree(self._directory)

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, and let nobody write any more."""
        write_atomically(self.artifact / "manifest.json", manifest.encode(), durable=False)
        for path in manifest.sha256s:
            (self.files / path).chmod(0o400)
        for folder in self._folders():
            folder.chmod(0o500)

    def flush_folders(self) -> None:
        """Have names and the manifest on the disk before this returns; contents are the caller's to flush."""
        for folder in self._folders():
            flush(folder)
        flush(self.artifact / "manifest.json")
        flush(self.artifact)

    def seen(self) -> tuple[int, int | None]:
        """Return how many bytes of how many whoever fetches here has, as far as can be told from outside."""
        try:
            sizes = [file.get("size") for file in self._listed().values()]
            done = sum(part.length for part in self._recorded())
        except OSError:
            return 0, None
        known = [size for size in sizes if isinstance(size, int)]
        return done, sum(known) if known and len(known) == len(sizes) else None

    def _folders(self) -> list[Path]:
        return [self.files, *(path for path in self.files.rglob("*") if path.is_dir())]

    def _create(self, file: RegistryFile) -> None:
        path = self.files / file.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if file.size is not None:
                os.ftruncate(descriptor, file.size)
        finally:
            os.close(descriptor)

    def _listed(self) -> Mapping[str, dict[str, object]]:
        try:
            text = read_note(self._state)
        except FileNotFoundError:
            return {}
        match parsed(text):
            case {"format": 1, "files": list(files)}:
                entries = (file for file in files if isinstance(file, dict))
                return {str(file.get("path")): file for file in entries}
        return {}

    def _recorded(self) -> list[FetchedPart]:
        """Return the parts recorded and not dropped since; a line cut short by a crash counts for nothing."""
        found: dict[str, dict[int, FetchedPart]] = {}
        try:
            lines = read_note(self._parts).split(b"\n")
        except FileNotFoundError:
            return []
        for line in lines:
            match parsed(line):
                case [str(path)]:
                    found.pop(path, None)
                case [str(path), int(start), int(length), sha256] if is_sha256(sha256):
                    found.setdefault(path, {})[start] = FetchedPart(path, start, length, str(sha256))
        return [part for parts in found.values() for part in parts.values()]

    def _write_parts(self, parts: Iterable[FetchedPart]) -> None:
        lines = [json.dumps([part.path, part.start, part.length, part.sha256]) + "\n" for part in parts]
        write_atomically(self._parts, "".join(lines).encode(), durable=False)

    def _append(self, entry: list[str | int]) -> None:
        # With a line end before it too, what a crash or a full disk cut short spoils no later line.
        line = f"\n{json.dumps(entry)}\n".encode()
        descriptor = os.open(self._parts, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def _sweep(folder: Path, wanted: Collection[str], prefix: str = "") -> None:
    """Delete all but the wanted plain files; make those writable again, a crash may have sealed them."""
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in list(entries):
            name = prefix + entry.name
            path = folder / entry.name
            seen = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(seen.st_mode):
                _sweep(path, wanted, f"{name}/")
                if not any(path.iterdir()):
                    path.rmdir()
            elif name in wanted and stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1:
                path.chmod(0o600)
            else:
                path.unlink()
