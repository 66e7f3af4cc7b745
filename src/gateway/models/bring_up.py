"""Takes one version from NEW to READY: fetch, verify, load, check, warm-up, golden test."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from gateway.core.errors import BackendUnavailable, ModelLoadError
from gateway.core.remote import REMOTE_BACKENDS
from gateway.core.types import VersionState
from gateway.models.compatibility import breaking_changes
from gateway.models.golden.run import run_golden
from gateway.models.lifecycle import STARTING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from gateway.core.interfaces import LoadedModel, ServedVersion
    from gateway.core.registry import ArtifactProvider, FetchProgress
    from gateway.core.types import Artifact, ModelSignature
    from gateway.models.budget import LoadBudget
    from gateway.models.loading import VersionLoader
    from gateway.models.records import VersionRecord
    from gateway.models.served import LoadedVersion

_T = TypeVar("_T")
REMOTE_LOADS: Final = 16
"""Versions that other servers may be loading or be asked about at once; local loads do not wait for them."""
_log = logging.getLogger(__name__)


class Withdrawn(Exception):
    """A version on its way to READY is wanted by nobody any more."""


class Closable(Protocol):
    """Something to be closed once."""

    async def aclose(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BringUpParts:
    """What a BringUp works with.

    Attributes:
        loader: loads, warms and joins.
        budget: asked before each load.
        find_golden: returns the golden tests in a version's directory.
        load_concurrency: versions that may be between LOADING and READY at once, in this process.
        fetch_concurrency: versions that may be FETCHING or VERIFYING at once; loads do not wait for them.
        enter: told of each step, which the record must then be in.
        report: told how far the files of a version are.
        in_use: the versions whose clients a version will have to answer when it is READY.
    """

    loader: VersionLoader
    budget: LoadBudget
    find_golden: Callable[[Path], Awaitable[Sequence[Path]]]
    load_concurrency: int
    fetch_concurrency: int
    enter: Callable[[VersionRecord, VersionState], None]
    report: Callable[[VersionRecord, FetchProgress], None]
    in_use: Callable[[VersionRecord], Sequence[ServedVersion]]


class BringUp:
    """Runs the steps of versions, a bounded number at once. Event loop only; switches nothing."""

    def __init__(self, parts: BringUpParts) -> None:
        self._loader = parts.loader
        self._budget = parts.budget
        self._find_golden = parts.find_golden
        self._loads = asyncio.Semaphore(parts.load_concurrency)
        self._remote_loads = asyncio.Semaphore(REMOTE_LOADS)
        self._fetches = asyncio.Semaphore(parts.fetch_concurrency)
        self._enter = parts.enter
        self._report = parts.report
        self._in_use = parts.in_use

    async def run(self, record: VersionRecord, held: AsyncExitStack) -> LoadedVersion:
        """Take a NEW record through its steps; it is left in the last one before READY.

        Waiting for a turn, for files and for memory ends as soon as the version is withdrawn; a native load
        cannot be stopped, and is given up when it has ended.

        Args:
            record: the version.
            held: takes what closes the version and frees all it holds, to be closed by the caller when the
                version is unloaded, or at once when this raises. Closing it raises nothing.

        Raises:
            Withdrawn: nobody wants it any more.
            GatewayError: a step failed; the record is in the state of that step.
        """
        artifact = record.wanted.artifact
        provider = record.provider
        if provider is not None and not record.problem:
            async with AsyncExitStack() as turn:
                await _unless_withdrawn(record, lambda: turn.enter_async_context(self._fetches))
                artifact = await self._fetched(record, provider, held)
        loads = self._remote_loads if record.wanted.spec.backend in REMOTE_BACKENDS else self._loads
        async with AsyncExitStack() as turn:
            await _unless_withdrawn(record, lambda: turn.enter_async_context(loads))
            return await self._loaded(record, artifact, held)

    async def _fetched(
        self, record: VersionRecord, provider: ArtifactProvider, held: AsyncExitStack
    ) -> Artifact:
        """Get the files, which stay until `held` is closed."""
        self._step(record, VersionState.FETCHING)
        files = AsyncExitStack()
        _keep(held, record, files)

        def obtain() -> Awaitable[Artifact]:
            obtaining = provider.obtain(lambda progress: self._report(record, progress))
            return files.enter_async_context(obtaining)

        artifact = await _unless_withdrawn(record, obtain)
        if record.state is VersionState.FETCHING:
            self._enter(record, VersionState.VERIFYING)
        record.obtained(artifact)
        return artifact

    async def _loaded(self, record: VersionRecord, artifact: Artifact, held: AsyncExitStack) -> LoadedVersion:
        self._step(record, VersionState.LOADING)
        if record.problem:
            raise ModelLoadError(record.problem)

        async def admit() -> None:
            # Here and not before: what is withdrawn before it asks has nothing to release.
            held.callback(self._budget.released, record.id)
            await self._budget.admit(record.wanted, artifact)

        await _unless_withdrawn(record, admit)
        opened = await held.enter_async_context(AsyncExitStack())
        models = await self._loader.load(record.wanted, artifact)
        for model in models:
            _keep(opened, record, model)
        if record.of_registry:
            self._step(record, VersionState.CHECKING)
            await self._check(record, artifact, models[0].signature)
        self._step(record, VersionState.WARMING)
        await self._loader.warm_up(record.wanted, models)
        await self._test(record, artifact, models)
        _check_wanted(record)
        served = self._loader.join(record.wanted, models)
        opened.pop_all()
        _keep(opened, record, served)
        self._budget.loaded(record.id, served.memory)
        return served

    async def _check(self, record: VersionRecord, artifact: Artifact, signature: ModelSignature) -> None:
        """Hold the signature against what the registry says of it and what clients use now.

        Raises:
            RegistryError: the registry contradicts the file.
            ModelLoadError: it would break clients, and `allow_breaking` is not set.
        """
        if record.provider is not None:
            await asyncio.to_thread(record.provider.narrow, artifact, signature)
        if record.wanted.spec.allow_breaking:
            return
        for served in self._in_use(record):
            if changes := breaking_changes(served.signature, signature):
                raise ModelLoadError(
                    f"it would break clients of version {served.label or served.id.number}: "
                    f"{'; '.join(changes)}. If that is intended, set allow_breaking: true for the model"
                )

    async def _test(self, record: VersionRecord, artifact: Artifact, models: Sequence[LoadedModel]) -> None:
        """Run the golden tests that the version brings, on every device.

        Raises:
            ModelLoadError: the model does not answer as they expect, or they cannot be read.
        """
        files = await self._find_golden(artifact.directory)
        if not files:
            return
        self._step(record, VersionState.TESTING)
        for model in models:
            await run_golden(model, record.wanted.spec, files)
            _check_wanted(record)

    def _step(self, record: VersionRecord, state: VersionState) -> None:
        _check_wanted(record)
        self._enter(record, state)


def _keep(held: AsyncExitStack, record: VersionRecord, part: Closable) -> None:
    """Let `held` close `part`; a failure is logged and keeps neither the others nor the manager from it."""

    async def close() -> None:
        try:
            await part.aclose()
        except Exception:  # noqa: BLE001 - logged: the version is gone from routing, whatever it left
            _log.exception("unloading model %r version %d", record.id.model, record.id.number)

    held.push_async_callback(close)


def _check_wanted(record: VersionRecord) -> None:
    """Go on with a record that is wanted and not at its end.

    Raises:
        Withdrawn: it is not.
    """
    if record.withdrawn or record.state not in STARTING:
        raise Withdrawn


async def _unless_withdrawn(record: VersionRecord, work: Callable[[], Awaitable[_T]]) -> _T:
    """Wait for work that a withdrawal of the record cancels.

    When cancelled, so is the work, and waited for.

    Raises:
        Withdrawn: nobody wanted the version any more.
        BackendUnavailable: the work was cancelled, and neither by the withdrawal nor by whoever waits here.
    """
    _check_wanted(record)
    record.waiting = working = asyncio.ensure_future(work())
    try:
        await asyncio.wait({working})
    except asyncio.CancelledError:
        record.call_off()
        await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # seen: it is not the reason for which this ends
        raise
    called_off = record.waiting is not working
    record.waiting = None
    if not working.cancelled():
        return working.result()
    if called_off:
        raise Withdrawn
    raise BackendUnavailable("what it waited for was cancelled from within")
