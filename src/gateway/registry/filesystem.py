"""A model source and repository on the local file system."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.errors import ConfigError, ModelLoadError, NotFound
from gateway.core.types import Artifact
from gateway.models.desired import DesiredVersion, desired
from gateway.models.policy import served_numbers
from gateway.registry.changes import changes
from gateway.registry.description import Described, Describer
from gateway.registry.files import DigestCache, Look, Unfit, VersionFiles
from gateway.registry.layout import ModelLocation, locate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from gateway.core.options import ModelSpec

_log = logging.getLogger(__name__)

_NO_MODELS: Final[Mapping[str, Path]] = MappingProxyType({})


def _unchanged(spec: ModelSpec) -> ModelSpec:
    return spec


def _no_label_files(_model: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Settings of a FileSystemSource.

    Attributes:
        adjust: the operator's settings for a model, applied over what its config.pbtxt declares.
        label_files: model -> output -> label file, relative to the model's directory.
        settle_s: files changed within this many seconds are looked at twice, so far apart; a version that
            differs is still being written. Longer than the pauses of whatever writes the files.
        poll_interval_s: `watch` looks at least this often.
        pause: waits between the two looks.
        wall_s: seconds since the epoch, as file times have them.
    """

    adjust: Callable[[ModelSpec], ModelSpec] = _unchanged
    label_files: Callable[[str], Mapping[str, str]] = _no_label_files
    settle_s: float = 0.5
    poll_interval_s: float = 15.0
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    wall_s: Callable[[], float] = time.time


_DEFAULTS: Final = SourceOptions()


@dataclass(slots=True)
class _Version:
    """One version as the first look found it; `look` is what was seen, or why it can never be loaded."""

    location: ModelLocation
    number: int
    files: VersionFiles
    look: Look | str


_Key: TypeAlias = tuple[str, int]


class FileSystemSource:
    """Offers the versions below a directory in Triton's layout, and models named one by one.

    A version is offered once its files have stopped changing; while the files of a version that was offered
    before are being rewritten, it is offered as it was. What is wrong with a model (config.pbtxt, links out
    of the repository, no model file) is offered as a version that fails to load with that reason, so that
    the index shows it. Reads and digests files in a worker thread, one scan at a time.

    Args:
        name: the claim's name.
        root: a repository, `name/<int>/model.onnx`; None for none. It may itself be a link; no link below
            it may lead out of it.
        models: name -> an .onnx file (version 1) or a directory of versions.
        options: settings.
    """

    def __init__(
        self,
        name: str,
        root: Path | None = None,
        models: Mapping[str, Path] = _NO_MODELS,
        options: SourceOptions = _DEFAULTS,
    ) -> None:
        self.name: str = name
        self._root = root
        self._models = dict(models)
        self._options = options
        self._describer = Describer(options.adjust, options.label_files)
        self._digests = DigestCache()
        self._offered: dict[_Key, DesiredVersion] = {}
        self._said: set[str] = set()
        self._scan = asyncio.Lock()

    async def snapshot(self) -> Sequence[DesiredVersion]:
        """Return every version that is to be served now; as `ModelSource.snapshot`."""
        async with self._scan:
            found = await asyncio.to_thread(self._first_look, None)
            await self._settle(found)
            versions, unsettled = await asyncio.to_thread(self._second_look, found, "")
            self._digests.keep_round()
            versions += [self._offered[key] for key in unsettled if key in self._offered]
            self._offered = {v.id[:2]: v for v in versions}
        return sorted(versions, key=lambda v: v.id)

    async def versions(self, model: str, config: str = "") -> Sequence[DesiredVersion]:
        """Return what is to be served of one model; as `Repository.versions`."""
        async with self._scan:
            if model not in await asyncio.to_thread(self._names):
                raise NotFound(
                    f"failed to load '{model}', failed to poll from model repository: no such model"
                )
            found = await asyncio.to_thread(self._first_look, model)
            await self._settle(found)
            versions, unsettled = await asyncio.to_thread(self._second_look, found, config)
        if not versions:
            why = "its files are still being written" if unsettled else "it has no version"
            raise ModelLoadError(f"failed to load '{model}', {why}")
        return versions

    async def models(self) -> Sequence[str]:
        """Return the names of the models there are."""
        return await asyncio.to_thread(self._names)

    async def watch(self) -> AsyncGenerator[Sequence[DesiredVersion], None]:
        """Give a snapshot whenever the set may have changed; one that fails is logged and skipped."""
        async with aclosing(changes(self._watched(), self._options.poll_interval_s)) as looks:
            async for _ in looks:
                versions = await self._try_snapshot()
                if versions is not None:
                    yield versions

    async def _try_snapshot(self) -> Sequence[DesiredVersion] | None:
        try:
            return await self.snapshot()
        except (ConfigError, OSError) as exc:
            _log.warning("model repository %r could not be read, its last set stays: %s", self.name, exc)
            return None

    def _watched(self) -> list[Path]:
        named = [path.parent if path.suffix == ".onnx" else path for path in self._models.values()]
        return sorted({path.resolve() for path in ([self._root] if self._root else []) + named})

    # In a worker thread, one at a time.

    def _names(self) -> list[str]:
        return sorted(locate(self._root, self._models))

    def _first_look(self, only: str | None) -> list[_Version]:
        found: list[_Version] = []
        for name, location in locate(self._root, self._models).items():
            if only in {None, name}:
                found += self._versions_of(location)
        return found

    def _versions_of(self, location: ModelLocation) -> list[_Version]:
        try:
            versions, ignored = location.versions()
        except (OSError, Unfit) as exc:
            self._say(f"model '{location.name}' cannot be read: {exc}")
            return []
        for reason in ignored or ([] if versions else [f"model '{location.name}' has no version directory"]):
            self._say(reason)
        return [_Version(location, number, files, _look(files)) for number, files in versions.items()]

    def _second_look(self, found: Iterable[_Version], config: str) -> tuple[list[DesiredVersion], list[_Key]]:
        """Return the versions that are settled and chosen by policy, and the keys of the unsettled."""
        versions: list[DesiredVersion] = []
        unsettled: list[_Key] = []
        for location, group in _by_location(found):
            described = self._describer.describe(location, config)
            for warning in described.warnings:
                self._say(f"model '{location.name}': {warning}")
            settled = {v.number: w for v in group if (w := self._settled(v, described)) is not None}
            moving = [v.number for v in group if v.number not in settled]
            # A version that was offered before stays a candidate while it is rewritten.
            candidates = [*settled, *(n for n in moving if (location.name, n) in self._offered)]
            chosen = served_numbers(described.spec.versions, candidates)
            versions += [settled[n] for n in chosen if n in settled]
            unsettled += [(location.name, n) for n in chosen if n not in settled]
            if moving:
                self._say(f"model '{location.name}': versions {moving} are still being written")
                unsettled += [(location.name, n) for n in moving if (location.name, n) not in unsettled]
        return versions, unsettled

    def _settled(self, version: _Version, described: Described) -> DesiredVersion | None:
        """Return the version as it is to be offered, None while its files change."""
        directory, filename = version.files.directory, described.model_filename
        if isinstance(version.look, str):
            return _faulty(version, described, version.look)
        try:
            # An empty directory is one that is being filled, or refilled.
            if not version.look or version.files.unfinished() or version.files.look() != version.look:
                return None
            if all(entry[0] != filename for entry in version.look):
                return _faulty(version, described, f"model file '{filename}' is missing")
            digest = self._digests.version_digest(directory, version.look)
            if version.files.look() != version.look:
                return None
        except (OSError, Unfit):
            return None
        artifact = Artifact(directory, directory / filename, digest)
        return desired(version.number, artifact, described.spec, described.problem)

    async def _settle(self, found: Iterable[_Version]) -> None:
        """Wait when some file is so young that it may still be written."""
        since_ns = (self._options.wall_s() - self._options.settle_s) * 1e9
        looks = [v.look for v in found if not isinstance(v.look, str)]
        if any(entry[2] >= since_ns for look in looks for entry in look):
            await self._options.pause(self._options.settle_s)

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _log.warning("%s", reason)


def _look(files: VersionFiles) -> Look | str:
    """Return what is there; empty while nothing is, text when it can never be loaded."""
    try:
        return files.look()
    except Unfit as exc:
        return str(exc)
    except OSError:
        return ()


def _faulty(version: _Version, described: Described, why: str) -> DesiredVersion:
    directory = version.files.directory
    artifact = Artifact(directory, directory / described.model_filename, "")
    return desired(version.number, artifact, described.spec, described.problem or why)


def _by_location(found: Iterable[_Version]) -> Iterable[tuple[ModelLocation, list[_Version]]]:
    groups: dict[str, tuple[ModelLocation, list[_Version]]] = {}
    for version in found:
        groups.setdefault(version.location.name, (version.location, []))[1].append(version)
    return groups.values()
