"""Fetch a version and verify it, up to where it can be published."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.core.types import VersionState
from gateway.registry.cache.download import Download
from gateway.registry.cache.integrity import Hasher, in_parallel
from gateway.registry.cache.layout import flush
from gateway.registry.cache.listing import checked_listing
from gateway.registry.cache.manifest import Manifest, ManifestFile
from gateway.registry.verification.plain_files import check_plain_files, shown_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.core.registry import RegistryFile
    from gateway.registry.cache.artifacts import ArtifactRequest
    from gateway.registry.cache.progress import Progress
    from gateway.registry.cache.resources import Resources
    from gateway.registry.cache.staging import Staging


class Fetch:
    """One attempt to have the files of a version in `staging`, verified; for who holds its fetch lock."""

    def __init__(
        self, request: ArtifactRequest, staging: Staging, progress: Progress, resources: Resources
    ) -> None:
        self._request = request
        self._staging = staging
        self._progress = progress
        self._resources = resources
        self._options = resources.options
        self._workers = resources.workers

    async def run(self) -> Manifest:
        """Fetch, verify and seal the files; return what they are.

        Whatever is refused for good is deleted; what may pass later stays for the next attempt.

        Raises:
            RegistryError: step `fetch` or `verify`.
            OSError: the disk's.
        """
        listing = await self._listing()
        try:
            manifest = await self._fetched(listing)
            await accept(self._request, self._staging.files, manifest, self._resources)
        except RegistryError as error:
            if not error.may_pass:
                await self._workers.run(self._staging.clear)
            raise
        await self._workers.run(self._staging.seal, manifest)
        if self._options.durable:
            await self._flush(manifest)
        return manifest

    async def _listing(self) -> Sequence[RegistryFile]:
        request, timeout_s = self._request, self._options.listing_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                listed = await request.registry.files(request.version)
        except TimeoutError as error:
            raise self._unlisted(f"did not list the files of {request.title} in {timeout_s:g} s") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise self._unlisted(f"could not list the files of {request.title}: {reason}") from error
        return checked_listing(request.title, listed, self._options)

    def _unlisted(self, what: str) -> RegistryError:
        return RegistryError("fetch", f"registry '{self._request.registry.name}' {what}", may_pass=True)

    async def _fetched(self, listing: Sequence[RegistryFile]) -> Manifest:
        """Fetch the files; fetch those again, once, of which the digest is not the one that it should be."""
        await Download(self._request, self._staging, self._progress, self._resources).run(listing)
        manifest = await self._hashed(listing)
        if not (suspects := self._suspects(listing, manifest)):
            return manifest
        for file in suspects:
            await self._workers.run(self._staging.forget, file)
        await Download(self._request, self._staging, self._progress, self._resources).run(listing)
        manifest = await self._hashed(listing)
        self._check_claims(listing, manifest)
        return manifest

    async def _hashed(self, listing: Sequence[RegistryFile]) -> Manifest:
        """Return the manifest of the files as they are on the disk."""
        self._progress.enter(VersionState.VERIFYING, 0, sum(file.size or 0 for file in listing) or None)
        hasher = Hasher(self._workers, self._options.threads, self._progress.add)
        found = await hasher.hashed(self._staging.files, (file.path for file in listing))
        return Manifest.of(ManifestFile(path, size, sha256) for path, (size, sha256) in found.items())

    def _suspects(self, listing: Sequence[RegistryFile], manifest: Manifest) -> list[RegistryFile]:
        """Return the files that were perhaps damaged on their way here."""
        found = manifest.sha256s
        wrong = [file for file in listing if file.sha256 and found[file.path] != file.sha256.lower()]
        if not wrong and self._request.pinned_digest not in {"", manifest.digest}:
            return [file for file in listing if not file.sha256]
        return wrong

    def _check_claims(self, listing: Sequence[RegistryFile], manifest: Manifest) -> None:
        found = manifest.sha256s
        for file in listing:
            if file.sha256 and found[file.path] != file.sha256.lower():
                raise RegistryError(
                    "verify",
                    f"{shown_path(file.path)} of {self._request.title}, fetched twice, has SHA-256 "
                    f"{found[file.path]}, and registry '{self._request.registry.name}' claims "
                    f"{file.sha256.lower()}; upload it again, or correct what the registry claims",
                    may_pass=False,
                )

    async def _flush(self, manifest: Manifest) -> None:
        async def flush_file(path: str) -> None:
            await self._workers.run(flush, self._staging.files / path)

        await in_parallel(deque(manifest.sha256s), self._options.threads, flush_file)
        await self._workers.run(self._staging.flush_folders)


async def accept(request: ArtifactRequest, directory: Path, manifest: Manifest, resources: Resources) -> None:
    """Check hashed files against what the request allows, and that nothing else is there.

    Raises:
        RegistryError: step `verify`, or what the request's check raises.
    """
    check_pinned(request, manifest)
    if request.check is not None:
        await resources.workers.run(request.check, directory, manifest)
    await resources.workers.run(check_plain_files, directory, manifest.sha256s.keys())


def check_pinned(request: ArtifactRequest, manifest: Manifest) -> None:
    """Check the content digest against the pinned one.

    Raises:
        RegistryError: step `verify`, for good.
    """
    pinned, digest = request.pinned_digest.lower(), manifest.digest
    if pinned not in {"", digest}:
        raise RegistryError(
            "verify",
            f"{request.title} has the content digest {digest}, the configuration pins {pinned}; correct the "
            "digest when this content is wanted, else find out who changed it",
            may_pass=False,
        )
