"""Bring one version into the cache: found there and verified again, or fetched, verified and published."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.core.types import VersionState
from gateway.registry.cache.examination import Damaged, Seen, examine
from gateway.registry.cache.fetching import Fetch, accept
from gateway.registry.cache.layout import IndexEntry, flush, move
from gateway.registry.cache.locks import FileLock
from gateway.registry.cache.staging import Staging
from gateway.registry.cache.waiting import take

if TYPE_CHECKING:
    from gateway.registry.cache.artifacts import ArtifactRequest
    from gateway.registry.cache.manifest import Manifest
    from gateway.registry.cache.progress import Progress
    from gateway.registry.cache.resources import Resources

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Brought:
    """An artifact that is published and was verified for `request`; `pin` keeps it until closed."""

    request: ArtifactRequest
    manifest: Manifest
    pin: FileLock


class Bringing:
    """One attempt to have a version in the cache.

    What is published is moved in one step, and the index says what a version's content is before that: a
    crash in between leaves an entry without an artifact, which counts for nothing, and all the files.
    """

    def __init__(self, request: ArtifactRequest, progress: Progress, resources: Resources) -> None:
        self._request = request
        self._key = request.fetch_key
        self._progress = progress
        self._resources = resources
        self._layout = resources.layout
        self._workers = resources.workers
        self._damage = ""

    async def run(self) -> Brought:
        """Return the artifact, pinned. Cancelling keeps what was fetched.

        Raises:
            RegistryError: step `fetch` or `verify`.
            OSError: the disk's.
        """
        await self._workers.run(self._layout.prepare)
        if (found := await self._found()) is not None:
            return found
        with FileLock(self._layout.fetch_lock(self._key)) as alone:
            await take(alone, self._resources, shared=False, meanwhile=self._look_on)
            # Whoever had it until now may have fetched just this.
            if (found := await self._found()) is not None:
                return found
            try:
                return await self._fetched()
            except RegistryError as error:
                if not self._damage:
                    raise
                raise self._explained(error) from error

    def _explained(self, error: RegistryError) -> RegistryError:
        what = str(error).removeprefix(f"{error.step}: ")
        return RegistryError(
            error.step,
            f"the copy in the artifact cache was damaged ({self._damage}) and is gone, and fetching it again "
            f"failed: {what}",
            may_pass=error.may_pass,
        )

    async def _look_on(self) -> None:
        """Tell how far the other process is that fetches the same version."""
        done, total = await self._workers.run(Staging(self._layout.fetching(self._key)).seen)
        self._progress.enter(VersionState.FETCHING, done, total)

    async def _found(self) -> Brought | None:
        """Return the artifact if it is in the cache; one that is damaged is set aside."""
        entry = await self._workers.run(self._layout.indexed, self._key)
        if entry is None:
            return None
        with ExitStack() as stack:
            pin = stack.enter_context(FileLock(self._layout.pin_lock(entry.digest)))
            await take(pin, self._resources, shared=True)
            manifest = await self._examined(entry.digest)
            if manifest is None:
                return None
            await accept(self._request, self._layout.files(entry.digest), manifest, self._resources)
            await self._workers.run(self._note_use, pin)
            stack.pop_all()
            return Brought(self._request, manifest, pin)

    async def _examined(self, digest: str) -> Manifest | None:
        """Return the manifest of a sound artifact; None if there is none, or none any more."""
        path = self._layout.artifact(digest)
        while True:
            seen = Seen(path)
            try:
                if not await self._workers.run(seen.open):
                    return None
                try:
                    manifest = await examine(digest, seen, self._progress, self._resources)
                except Damaged as damage:
                    await self._set_aside(digest, seen, damage)
                    return None
                if await self._workers.run(seen.is_current):
                    return manifest
            finally:
                seen.close()

    async def _set_aside(self, digest: str, seen: Seen, damage: Damaged) -> None:
        """Move a damaged artifact out of the way, unless another process did and has put a new one there."""
        self._damage = str(damage)
        _log.warning(
            "the copy of %s in the artifact cache is damaged (%s); it is fetched again",
            self._request.title,
            damage,
        )
        with FileLock(self._layout.repair_lock(digest)) as lock:
            await take(lock, self._resources, shared=False)
            if await self._workers.run(seen.is_current):
                await self._workers.run(self._layout.discard, self._layout.artifact(digest))

    async def _fetched(self) -> Brought:
        staging = Staging(self._layout.fetching(self._key))
        manifest = await Fetch(self._request, staging, self._progress, self._resources).run()
        with ExitStack() as stack:
            # Before it can be seen: nobody collects what is pinned.
            pin = stack.enter_context(FileLock(self._layout.pin_lock(manifest.digest)))
            await take(pin, self._resources, shared=True)
            await self._publish(staging, manifest)
            await self._workers.run(self._note_use, pin)
            stack.pop_all()
            return Brought(self._request, manifest, pin)

    async def _publish(self, staging: Staging, manifest: Manifest) -> None:
        entry = IndexEntry(
            manifest.digest,
            self._request.registry.identity,
            self._request.version.model,
            self._request.version.label,
            self._resources.options.wall_s(),
        )
        durable = self._resources.options.durable
        await self._workers.run(self._layout.write_index, self._key, entry, durable=durable)
        while not await self._workers.run(self._moved, staging, manifest.digest):
            # The same content came from elsewhere: that copy is as good, if it is sound.
            if await self._examined(manifest.digest) is not None:
                break
        await self._workers.run(staging.clear)

    # In a thread.

    def _moved(self, staging: Staging, digest: str) -> bool:
        if not move(staging.artifact, self._layout.artifact(digest)):
            return False
        if self._resources.options.durable:
            flush(self._layout.artifacts)
        return True

    def _note_use(self, pin: FileLock) -> None:
        pin.touch(self._resources.options.wall_s)
