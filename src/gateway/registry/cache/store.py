"""The artifact cache: files of versions by their content, fetched once, verified each time they are taken."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RegistryError
from gateway.core.threads import outlast
from gateway.registry.cache.artifacts import CachedArtifact
from gateway.registry.cache.bringing import Bringing
from gateway.registry.cache.collection import collect
from gateway.registry.cache.faults import storage_faults
from gateway.registry.cache.fetching import accept
from gateway.registry.cache.layout import Layout
from gateway.registry.cache.locks import FileLock
from gateway.registry.cache.options import CacheOptions
from gateway.registry.cache.progress import Progress
from gateway.registry.cache.resources import Resources
from gateway.registry.cache.room import Room
from gateway.registry.cache.waiting import take
from gateway.registry.cache.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection
    from pathlib import Path

    from gateway.registry.cache.artifacts import ArtifactRequest
    from gateway.registry.cache.bringing import Brought
    from gateway.registry.cache.collection import CollectReport
    from gateway.registry.cache.manifest import Manifest
    from gateway.registry.cache.progress import Report

_DEFAULTS: Final = CacheOptions()


class _Joint:
    """A version being brought into the cache for everybody of this process who wants it."""

    def __init__(self, request: ArtifactRequest, resources: Resources) -> None:
        self.request = request
        self.progress = Progress(resources.options.now_s)
        self.waiters = 0
        bringing = Bringing(request, self.progress, resources)
        self.task = asyncio.create_task(bringing.run(), name=f"fetch-{request.fetch_key[:8]}")


class ArtifactCache:
    """Files of versions on the local disk. Any number of processes of one user may share the directory.

    Cancelling any call is safe. Nothing is handed out of which not every byte was read back from the disk and
    found right, and neither the event loop nor anybody else's thread waits for the disk or a lock.

    Args:
        directory: for the cache alone; made when it is not there.
        options: limits and settings.
    """

    def __init__(self, directory: Path, options: CacheOptions = _DEFAULTS) -> None:
        room = Room(directory, options.free_disk_reserve_bytes)
        self._resources = Resources(Layout(directory), options, Workers(options.threads), room)
        self._joints: dict[str, _Joint] = {}
        self._owner = uuid.uuid4().hex

    async def prepare(self) -> None:
        """Make the directory a cache, or see that it is one; what `obtain` does too.

        Raises:
            RegistryError: it cannot be one, with what to do.
        """
        with storage_faults("the artifact cache", self._resources.layout.root):
            await self._resources.workers.run(self._resources.layout.prepare)

    @asynccontextmanager
    async def obtain(self, request: ArtifactRequest, report: Report) -> AsyncGenerator[CachedArtifact, None]:
        """Find a version in the cache or fetch it, verify it, and keep it for as long as the context is.

        Requests for one version share one download, those of other processes too. A version that is in the
        cache is verified again without the registry being asked.

        Args:
            request: what is wanted.
            report: called on the event loop, about five times a second at most and at each change of state.

        Raises:
            RegistryError: step `fetch` or `verify`.
        """
        with storage_faults(request.title, self._resources.layout.root):
            manifest, pin = await self._brought(request, report)
        try:
            yield CachedArtifact(self._resources.layout.files(manifest.digest), manifest)
        finally:
            pin.release(self._resources.options.wall_s)

    async def collect(self, keep: Collection[str] = ()) -> CollectReport:
        """Remove what the limits no longer allow, and what crashes have left.

        Never an artifact that is in use by any process, nor one that this or another gateway which shares the
        directory wants kept. Call it from time to time, more often than `leftover_age_s` at any rate: what is
        to be kept is forgotten after that, so that a gateway that is gone keeps nothing for ever.

        Args:
            keep: content digests that must stay though nobody uses them now.

        Raises:
            RegistryError: step `fetch`; the directory cannot be read or written.
        """
        resources = self._resources
        with storage_faults("the artifact cache", resources.layout.root):
            return await resources.workers.run(
                collect, resources.layout, resources.options, self._owner, frozenset(keep)
            )

    async def aclose(self) -> None:
        """Stop every fetch, keeping what is there, and end the threads. Artifacts in use stay pinned."""
        for joint in tuple(self._joints.values()):
            joint.task.cancel()
            await outlast(joint.task)
        await self._resources.workers.aclose()

    async def _brought(self, request: ArtifactRequest, report: Report) -> tuple[Manifest, FileLock]:
        """Return what the request stands for, with a pin of its own."""
        while True:
            joint, led = self._join(request)
            async with self._waiting(joint, report):
                await asyncio.wait([joint.task])
                if joint.task.cancelled():
                    raise RegistryError("fetch", f"{request.title}: the gateway is stopping", may_pass=True)
                failure = joint.task.exception()
                if failure is None:
                    return await self._taken(request, joint.task.result(), verified=led)
                if led or not isinstance(failure, RegistryError) or failure.step != "verify":
                    raise failure
            # It was refused by another's digest or policy, perhaps not by ours.

    def _join(self, request: ArtifactRequest) -> tuple[_Joint, bool]:
        key = request.fetch_key
        joint = self._joints.get(key)
        if joint is not None:
            return joint, False
        joint = self._joints[key] = _Joint(request, self._resources)
        joint.task.add_done_callback(lambda _task: self._forget(key, joint))
        return joint, True

    def _forget(self, key: str, joint: _Joint) -> None:
        if self._joints.get(key) is joint:
            del self._joints[key]

    @asynccontextmanager
    async def _waiting(self, joint: _Joint, report: Report) -> AsyncGenerator[None, None]:
        """Be one of those who wait; the last stops what is unfinished and lets go of what all have taken."""
        joint.waiters += 1
        joint.progress.listen(report)
        try:
            yield
        finally:
            joint.progress.leave(report)
            joint.waiters -= 1
            if joint.waiters == 0:
                await self._end(joint)

    async def _end(self, joint: _Joint) -> None:
        if not joint.task.done():
            self._forget(joint.request.fetch_key, joint)
            joint.task.cancel()
            await outlast(joint.task)
        if not joint.task.cancelled() and joint.task.exception() is None:
            joint.task.result().pin.close()

    async def _taken(
        self, request: ArtifactRequest, brought: Brought, *, verified: bool
    ) -> tuple[Manifest, FileLock]:
        """Pin what was brought, and see whether this request allows it if it was verified for another."""
        resources, manifest = self._resources, brought.manifest
        with ExitStack() as stack:
            pin = stack.enter_context(FileLock(resources.layout.pin_lock(manifest.digest)))
            await take(pin, resources, shared=True)
            if not verified:
                await accept(request, resources.layout.files(manifest.digest), manifest, resources)
            stack.pop_all()
            return manifest, pin
