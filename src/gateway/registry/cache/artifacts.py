"""What is asked of the artifact cache, and what it gives."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.core.registry import ModelRegistry, RegistryVersion
    from gateway.registry.cache.manifest import Manifest

    Check: TypeAlias = Callable[[Path, Manifest], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """The files of one version of a registry are wanted.

    Attributes:
        registry: where they are.
        version: the version.
        pinned_digest: the content digest they must have, SHA-256 in hex; empty for any.
        check: verifies the files in the private directory they lie in, before they are published and each
            time they are handed out anew. Blocking; runs in a thread. Only reads, and raises RegistryError.
    """

    registry: ModelRegistry
    version: RegistryVersion
    pinned_digest: str = ""
    check: Check | None = None

    @property
    def fetch_key(self) -> str:
        """What the files are known by before their content is: equal for equal versions of one store."""
        version = self.version
        parts = (self.registry.identity, version.model, version.label, version.revision)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def title(self) -> str:
        """The version in words, for messages."""
        return f"version '{self.version.label}' of '{self.version.model}'"


@dataclass(frozen=True, slots=True)
class CachedArtifact:
    """Verified files in the cache, read-only; they stay until the context that gave them is left.

    Attributes:
        directory: of the files.
        manifest: what lies in it, and nothing else does.
    """

    directory: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The content digest."""
        return self.manifest.digest

    @property
    def files(self) -> Mapping[str, str]:
        """Path -> SHA-256 of the file."""
        return self.manifest.sha256s
