"""A model registry in memory that is down, slow or lying when told, and what a source needs besides it."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gateway.core.registry import (
    FetchProgress,
    NotInRegistry,
    RegisteredModel,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)
from gateway.models.desired import DesiredVersion
from gateway.registry.cache.artifacts import ArtifactRequest, CachedArtifact
from gateway.registry.cache.manifest import Manifest, ManifestFile
from gateway.registry.following import ModelResolution, PollOutcome, SourcedModel
from gateway.registry.labels import number_of
from gateway.registry.model_specs import ModelFile
from gateway.registry.polling import PollOptions
from gateway.registry.reference import parse_reference
from gateway.registry.resolutions import ResolutionStore
from gateway.registry.source import RegistrySource, RegistrySourceOptions, SourceParts
from gateway.testing import VirtualClock, settle

Result = TypeVar("Result")

TURNS: Final = 60
"""Turns of the event loop within which everything that is due has happened."""
POLL: Final = PollOptions()


def version(label: str, revision: str = "r1", model: str = "fraud") -> RegistryVersion:
    """Return a version as a registry gives it."""
    number = number_of(label)
    assert number is not None
    return RegistryVersion(
        model=model, label=label, number=number, revision=revision, location=f"{model}/{label}"
    )


def registered(
    *labels: str,
    aliases: dict[str, str] | None = None,
    unusable: dict[str, str] | None = None,
    name: str = "fraud",
) -> RegisteredModel:
    """Return what a registry tells of a model that has these versions."""
    versions = sorted((version(label, model=name) for label in labels), key=lambda v: v.number)
    return RegisteredModel(
        name=name, versions=tuple(versions), aliases=aliases or {}, unusable=unusable or {}
    )


@dataclass
class _Stored:
    """One model: label -> revision, and the rest as RegisteredModel has it."""

    revisions: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    files: dict[str, ModelFile] = field(default_factory=dict)


class FakeRegistry:
    """A ModelRegistry, and a ModelFileReader, in memory.

    Attributes:
        down: every question fails as if the registry did not answer.
        hanging: names of models, or `*`, whose questions wait until they are cancelled or `release`d.
        raising: when set, every question raises it.
        asked: the models asked for, in order.
        open_questions: questions that wait now.
        most_open: the most that ever waited at once.
        content_reads: files beside versions whose content was read.
    """

    def __init__(self, name: str = "prod", identity: str = "fake://prod") -> None:
        self.name = name
        self.identity = identity
        self.down = False
        self.hanging: set[str] = set()
        self.raising: Exception | None = None
        self.asked: list[str] = []
        self.open_questions = 0
        self.most_open = 0
        self.content_reads = 0
        self._stored: dict[str, _Stored] = {}
        self._revisions = itertools.count(1)
        self._etags = itertools.count(1)
        self._released = asyncio.Event()

    def publish(self, label: str, model: str = "fraud") -> None:
        """Store a version, or other files under its label."""
        stored = self._stored.setdefault(model, _Stored())
        stored.revisions[label] = f"r{next(self._revisions)}"
        stored.unusable.pop(label, None)

    def break_version(self, label: str, why: str = "still pending", model: str = "fraud") -> None:
        """Let a version be there and not servable."""
        stored = self._stored.setdefault(model, _Stored())
        stored.revisions.pop(label, None)
        stored.unusable[label] = why

    def delete(self, label: str, model: str = "fraud") -> None:
        """Delete a version."""
        stored = self._stored[model]
        stored.revisions.pop(label, None)
        stored.unusable.pop(label, None)

    def delete_model(self, model: str = "fraud") -> None:
        """Delete a model with everything in it."""
        self._stored.pop(model, None)

    def alias(self, alias: str, label: str | None, model: str = "fraud") -> None:
        """Set, move or delete an alias; nobody checks where it leads."""
        aliases = self._stored.setdefault(model, _Stored()).aliases
        if label is None:
            aliases.pop(alias, None)
        else:
            aliases[alias] = label

    def put_file(self, path: str, content: bytes | None, model: str = "fraud") -> None:
        """Store or delete a file beside the versions."""
        files = self._stored.setdefault(model, _Stored()).files
        if content is None:
            files.pop(path, None)
        else:
            files[path] = ModelFile(f"e{next(self._etags)}", content)

    def release(self) -> None:
        """Let what hangs go on."""
        self.hanging.clear()
        self._released.set()
        self._released = asyncio.Event()

    def now(self, model: str = "fraud") -> RegisteredModel:
        """Return what there is now, whatever the registry pretends."""
        stored = self._stored[model]
        versions = [version(label, revision, model) for label, revision in stored.revisions.items()]
        return RegisteredModel(
            name=model,
            versions=tuple(sorted(versions, key=lambda v: v.number)),
            aliases=dict(stored.aliases),
            unusable=dict(stored.unusable),
        )

    async def model(self, name: str) -> RegisteredModel:
        """As `ModelRegistry.model`, when it is in the mood."""
        self.asked.append(name)
        self.open_questions += 1
        self.most_open = max(self.most_open, self.open_questions)
        try:
            while self.hanging & {name, "*"}:
                await self._released.wait()
            await asyncio.sleep(0)
        finally:
            self.open_questions -= 1
        self._check()
        if name not in self._stored:
            raise NotInRegistry(f"there is no model '{name}' in registry '{self.name}'")
        return self.now(name)

    async def model_file(self, model: str, path: str, known: ModelFile | None) -> ModelFile | None:
        """As `ModelFileReader.model_file`."""
        self._check()
        file = self._stored[model].files.get(path) if model in self._stored else None
        if file is None or (known is not None and known.etag == file.etag):
            return known if file is not None else None
        self.content_reads += 1
        return file

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        """Never asked by a source."""
        raise AssertionError("a source must not list files")

    def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncIterator[bytes]:
        """Never asked by a source."""
        raise AssertionError("a source must not read files")

    async def aclose(self) -> None:
        """Do nothing."""

    def _check(self) -> None:
        if self.raising is not None:
            raise self.raising
        if self.down:
            raise RegistryError("resolve", f"registry '{self.name}' refuses connections", may_pass=True)


class FakeCache:
    """An ArtifactStore whose artifacts are directories that a test filled.

    Args:
        directory: made anew for each artifact below it.
        files: path -> content of every version.

    Attributes:
        requests: what was asked for, in order.
        held: artifacts handed out and not given back.
    """

    def __init__(self, directory: Path, files: dict[str, bytes] | None = None) -> None:
        self.files = files if files is not None else {"model.onnx": b"model"}
        self.requests: list[ArtifactRequest] = []
        self.held = 0
        self._directory = directory
        self._names = itertools.count(1)

    @asynccontextmanager
    async def obtain(
        self, request: ArtifactRequest, report: Callable[[FetchProgress], None]
    ) -> AsyncGenerator[CachedArtifact, None]:
        """As `ArtifactCache.obtain`."""
        self.requests.append(request)
        directory = self._directory / str(next(self._names))
        entries = []
        for path, content in self.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            entries.append(ManifestFile(path, len(content), hashlib.sha256(content).hexdigest()))
        manifest = Manifest.of(entries)
        if request.check is not None:
            request.check(directory, manifest)
        self.held += 1
        try:
            yield CachedArtifact(directory, manifest)
        finally:
            self.held -= 1


class Wall:
    """Wall-clock time that only moves when told."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now_s


class InlineThreads(ThreadPoolExecutor):
    """A loop's default executor that does the work at once, so that nothing happens at a time of its own."""

    def submit(self, fn: Callable[..., Result], /, *args: object, **kwargs: object) -> Future[Result]:
        """Do the work, and return a future that is done."""
        done: Future[Result] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            done.set_exception(error)
        return done


class Rig:
    """A source over a FakeRegistry in virtual time; `start` again is a restart of the gateway.

    Attributes:
        registry: the registry.
        cache: gives the files.
        clock: moves by `pass_s` alone, the wall with it.
        source: the source of the last `start`.
        sets: every set that its watch gave.
        polls: every look told to the observer, as (model, outcome).
    """

    def __init__(
        self, directory: Path, *models: SourcedModel, poll: PollOptions = POLL, **options: object
    ) -> None:
        self.registry = FakeRegistry()
        self.cache = FakeCache(directory / "cache")
        self.clock = VirtualClock()
        self.wall = Wall()
        self.store = directory / "resolutions"
        self.models = models or (sourced(),)
        self.options = RegistrySourceOptions(
            poll=poll,
            uniform=lambda: 0.5,
            wall_s=self.wall,
            observer=self,
            **options,  # type: ignore[arg-type]  # a test's own spelling of the fields
        )
        self.sets: list[list[DesiredVersion]] = []
        self.polls: list[tuple[str, PollOutcome]] = []
        self.source = self.make()
        self._watching: asyncio.Task[None] | None = None

    def make(self) -> RegistrySource:
        """Return a source that nobody has asked anything yet."""
        asyncio.get_running_loop().set_default_executor(InlineThreads())
        parts = SourceParts(self.registry, self.cache, ResolutionStore(self.store), self.clock)
        return RegistrySource("registry prod", self.models, parts, self.options)

    def on_poll(self, registry: str, model: str, outcome: PollOutcome, seconds: float) -> None:
        """As `PollObserver.on_poll`."""
        self.polls.append((model, outcome))

    async def start(self, *, watch: bool = True) -> list[DesiredVersion]:
        """Start, or restart, and return the first set; the registry's time to answer passes if it must."""
        await self.stop()
        self.source = self.make()
        snapshot = asyncio.ensure_future(self.source.snapshot())
        await settle(TURNS)
        if not snapshot.done():
            await self.pass_s(self.options.poll.start_timeout_s)
        self.sets = [list(await snapshot)]
        if watch:
            self._watching = asyncio.ensure_future(self._watch())
            await settle(TURNS)
        return self.sets[0]

    async def stop(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    async def pass_s(self, seconds: float, step_s: float = 1.0) -> None:
        """Let time pass in steps, and everything that is due on the way happen."""
        while seconds > 0:
            step_s = min(step_s, seconds)
            self.wall.now_s += step_s
            self.clock.advance(step_s)
            seconds -= step_s
            await settle(TURNS)

    @property
    def labels(self) -> list[str]:
        """Return the labels of the versions wanted now."""
        return [v.origin.label for v in self.sets[-1] if v.origin is not None]

    def status(self, model: str = "fraud") -> ModelResolution:
        """Return where a model stands."""
        return next(r for r in self.source.resolutions() if r.model == model)

    async def _watch(self) -> None:
        async with aclosing(self.source.watch()) as sets:
            async for wanted in sets:
                self.sets.append(list(wanted))


def sourced(name: str = "fraud", selector: str = "@champion", **fields: object) -> SourcedModel:
    """Return a model of the configuration; `fields` are further fields of SourcedModel."""
    reference = parse_reference(f"s3://bucket/{name}{selector}", Path("/"))
    return SourcedModel(name=name, reference=reference, **fields)  # type: ignore[arg-type]  # as above


def published(rig: Rig) -> Rig:
    """Let the registry hold versions 1 and 2, of which 1 is the champion."""
    rig.registry.publish("1")
    rig.registry.publish("2")
    rig.registry.alias("champion", "1")
    return rig
