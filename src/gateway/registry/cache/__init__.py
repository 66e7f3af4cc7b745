"""A content-addressed cache of model artifacts that gateways on one machine may share.

Layout of the directory, all of it private (0700) to the user who runs the gateways:

    FORMAT                           says so; a directory of another format, or of something else, is refused
    artifacts/<content digest>/
        manifest.json                path, size and SHA-256 of each file
        files/...                    the files, read-only; never written again once they are here
    index/<fetch key>.json           what a version of a registry was found to contain
    fetching/<fetch key>/
        state.json                   the listing that the parts belong to
        parts.jsonl                  a line for each part that is complete, with its SHA-256
        artifact/                    what is moved to artifacts/ in one step when all of it is verified
    locks/<content digest>.lock      shared by who uses the artifact; its mtime is the last use
    locks/<content digest>.repair    held while a damaged artifact is set aside
    locks/<fetch key>.fetch          held by the one process that fetches the version
    keep/<gateway>.json              digests that a gateway wants kept though nobody uses them
    trash/                           what is being deleted

The content digest is SHA-256 over path NUL SHA-256 NUL of every file, the paths ordered by their parts; the
fetch key is SHA-256 over the registry's identity and the version's model, label and revision.

Locks are the kernel's (flock): a process that dies, however it does, holds none. Artifacts become visible by
rename alone, so a crash leaves nothing that could be taken for one. Nothing is handed out before each of its
bytes was read back from the disk and hashed, and everything is hashed again whenever it is taken anew.

A file without an etag and without a claimed digest is taken for the same one when its size is the same and so
is the version's revision: parts of it that an earlier attempt fetched are then not fetched again.
"""

from gateway.registry.cache.artifacts import ArtifactRequest, CachedArtifact
from gateway.registry.cache.collection import CollectReport
from gateway.registry.cache.manifest import Manifest, ManifestFile
from gateway.registry.cache.options import CacheOptions
from gateway.registry.cache.store import ArtifactCache

__all__ = [
    "ArtifactCache",
    "ArtifactRequest",
    "CacheOptions",
    "CachedArtifact",
    "CollectReport",
    "Manifest",
    "ManifestFile",
]
