"""What an artifact consists of: paths, sizes and digests of its files, and the digest of the whole."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from gateway.registry.cache.notes import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FORMAT: Final = 1


def is_sha256(text: object) -> bool:
    """Return whether `text` is a SHA-256 digest in lower-case hex."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: `path` relative to the artifact's directory, `/` between its parts; `sha256` in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact, ordered by the parts of their paths."""

    files: tuple[ManifestFile, ...]

    @classmethod
    def of(cls, files: Iterable[ManifestFile]) -> Manifest:
        """Return the manifest of `files`, which come in any order."""
        return cls(tuple(sorted(files, key=lambda file: file.path.split("/"))))

    @property
    def sha256s(self) -> Mapping[str, str]:
        """Path -> SHA-256 of the file."""
        return {file.path: file.sha256 for file in self.files}

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """The content digest: equal for equal paths and contents, as `DigestCache.version_digest` has it."""
        whole = hashlib.sha256()
        for file in self.files:
            whole.update(b"%b\0%b\0" % (file.path.encode(), file.sha256.encode()))
        return whole.hexdigest()

    def encode(self) -> bytes:
        """Return it as JSON."""
        files = [asdict(file) for file in self.files]
        return json.dumps({"format": _FORMAT, "files": files}, indent=1).encode() + b"\n"


def decode(text: bytes) -> Manifest:
    """Return the manifest that `Manifest.encode` wrote.

    Raises:
        ValueError: it is none.
    """
    match parsed(text):
        case {"format": 1, "files": list(files)}:
            return Manifest.of(_file(entry) for entry in files)
    raise ValueError("not a manifest of this format")


def _file(entry: object) -> ManifestFile:
    match entry:
        case {"path": str(path), "size": int(size), "sha256": sha256} if size >= 0 and is_sha256(sha256):
            return ManifestFile(path, size, str(sha256))
    raise ValueError("a manifest with a faulty entry")
