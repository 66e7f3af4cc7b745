"""A model source and repository on the local file system."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.core.errors import ConfigError, ModelLoadError, NotFound
from gateway.core.rollout import Target
from gateway.core.targets import ResolvedTarget
from gateway.core.types import Artifact
from gateway.models.desired import DesiredVersion, desired
from gateway.models.policy import served_numbers
from gateway.registry.changes import changes
from gateway.registry.description import Described, Describer
from gateway.registry.files import DigestCache, Look, Unfit, VersionFiles
from gateway.registry.labels import number_of
from gateway.registry.layout import MODEL_SUFFIX, Located, ModelLocation, locate
from gateway.registry.rounds import RoundMemo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from gateway.core.options import ModelSpec
    from gateway.core.types import VersionId

_log = logging.getLogger(__name__)

_NO_MODEL: Final = ""
"""What is said of directories that are no models is kept under this name."""
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

    number: int
    files: VersionFiles
    look: Look | str


@dataclass(slots=True)
class _Model:
    """One model as the first look found it."""

    location: ModelLocation
    described: Described
    versions: list[_Version]


@dataclass(slots=True)
class _Scan:
    """What the first look found; `unreadable` are the models whose directory could not be read, and why."""

    located: Located
    models: list[_Model]
    unreadable: dict[str, str]


_Key: TypeAlias = tuple[str, int]


class FileSystemSource:
    """Offers the versions below a directory in Triton's layout, and models named one by one.

    A version is offered once its files, and the model's config and label files, have stopped changing; while
    those of a version that was offered before are being rewritten, or cannot be read, it is offered as it
    was. What is wrong with a model (config.pbtxt, links out
    of the repository, no model file) is offered as a version that fails to load with that reason, so that
    the index shows it. Reads and digests files in a worker thread, one scan at a time.

    Args:
        name: the claim's name.
        root: a repository, `name/<int>/model.onnx`; None for none. It may itself be a link; no link below
            it may lead out of it.
        models: name -> an .onnx file (version 1) or a directory of versions.
        options: settings.
        exclude: names below `root` that are served from elsewhere.
    """

    def __init__(
        self,
        name: str,
        root: Path | None = None,
        models: Mapping[str, Path] = _NO_MODELS,
        options: SourceOptions = _DEFAULTS,
        exclude: Collection[str] = (),
    ) -> None:
        self.name: str = name
        self._root = root
        self._models = dict(models)
        self._exclude = frozenset(exclude)
        self._options = options
        self._describer = Describer(options.adjust, options.label_files)
        self._digests = DigestCache()
        self._offered: dict[_Key, DesiredVersion] = {}
        self._said: RoundMemo[str, bool] = RoundMemo()
        self._scan = asyncio.Lock()

    async def snapshot(self) -> Sequence[DesiredVersion]:
        """Return every version that is to be served now; as `ModelSource.snapshot`."""
        async with self._scan:
            scan = await asyncio.to_thread(self._first_look, None, "")
            await self._settle(scan)
            versions, unsettled = await asyncio.to_thread(self._second_look, scan)
            versions += [self._offered[key] for key in unsettled if key in self._offered]
            versions += [v for v in self._offered.values() if v.id.model in scan.unreadable]
            self._offered = {v.id[:2]: v for v in versions}
        return sorted(versions, key=lambda v: v.id)

    async def versions(self, model: str, config: str = "") -> Sequence[DesiredVersion]:
        """Return what is to be served of one model; as `Repository.versions`."""
        async with self._scan:
            if model not in await asyncio.to_thread(self._names):
                raise NotFound(
                    f"failed to load '{model}', failed to poll from model repository: no such model"
                )
            scan = await asyncio.to_thread(self._first_look, model, config)
            await self._settle(scan)
            versions, unsettled = await asyncio.to_thread(self._second_look, scan)
        if not versions:
            why = "its files are still being written, or cannot be read" if unsettled else "it has no version"
            raise ModelLoadError(f"failed to load '{model}', {scan.unreadable.get(model, why)}")
        return versions

    async def models(self) -> Sequence[str]:
        """Return the names of the models there are."""
        return await asyncio.to_thread(self._names)

    async def resolve_target(self, model: str, target: Target) -> ResolvedTarget:
        """Find one version by its number, chosen by the model's policy or not; as `TargetSource`."""
        number = number_of(target.text)
        if number is None:
            raise NotFound(
                f"'{target.text}' is no version of '{model}': a local repository has numbers, no aliases"
            )
        async with self._scan:
            scan = await asyncio.to_thread(self._first_look, model, "")
            await self._settle(scan)
            found = await asyncio.to_thread(self._every_version, scan)
        if number not in found:
            there = ", ".join(map(str, found)) or "none"
            raise NotFound(f"model '{model}' has no version {number} (there are: {there})")
        version = found[number]
        if version.problem:
            raise ModelLoadError(f"version {number} of '{model}' cannot be loaded: {version.problem}")
        pin = {"number": number, "digest": version.artifact.digest}
        return ResolvedTarget(wanted=version, label=str(number), digest=version.artifact.digest, pin=pin)

    async def restore_target(self, model: str, pin: Mapping[str, Any]) -> ResolvedTarget:
        """Find a version again whose files must be as they were; as `TargetSource`."""
        resolved = await self.resolve_target(model, Target(str(pin["number"])))
        if resolved.digest != pin["digest"]:
            raise ModelLoadError(
                f"the files of version {resolved.label} of '{model}' are not those that it was resolved to: "
                f"digest {resolved.digest[:12]}, expected {str(pin['digest'])[:12]}"
            )
        return resolved

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        """Take no note: the files are the repository's own."""

    async def watch(self) -> AsyncGenerator[Sequence[DesiredVersion], None]:
        """Give a snapshot whenever the set may have changed; one that fails is logged and skipped."""
        trees, files = self._watched()
        async with aclosing(changes(trees, files, self._options.poll_interval_s)) as looks:
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

    def _watched(self) -> tuple[list[Path], list[Path]]:
        """Return the directories and the lone model files to watch."""
        named = {path.resolve() for path in self._models.values()}
        files = {path for path in named if path.suffix == MODEL_SUFFIX}
        return sorted((named - files) | ({self._root.resolve()} if self._root else set())), sorted(files)

    # In a worker thread, one at a time.

    def _names(self) -> list[str]:
        return sorted(self._locate().models)

    def _locate(self) -> Located:
        return locate(self._root, self._models, self._exclude)

    def _first_look(self, only: str | None, config: str) -> _Scan:
        """Look at one model, or all, and describe it; `config` is as `Describer.describe` takes it."""
        scan = _Scan(self._locate(), [], {})
        for reason in scan.located.ignored:
            self._say(_NO_MODEL, reason)
        for name, location in scan.located.models.items():
            if only in {None, name}:
                self._look_at(scan, location, config)
        return scan

    def _look_at(self, scan: _Scan, location: ModelLocation, config: str) -> None:
        name = location.name
        try:
            versions, ignored = location.versions()
        except (FileNotFoundError, NotADirectoryError, Unfit) as exc:
            self._say(name, f"model '{name}' is not served: {exc}")
            return
        except (OSError, RuntimeError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            scan.unreadable[name] = f"its directory cannot be read: {reason}"
            self._say(name, f"model '{name}' stays as it is: {scan.unreadable[name]}")
            return
        for reason in ignored or ([] if versions else [f"model '{name}' has no version directory"]):
            self._say(name, reason)
        looks = [_Version(number, files, _look(files)) for number, files in versions.items()]
        scan.models.append(_Model(location, self._describer.describe(location, config), looks))

    def _second_look(self, scan: _Scan) -> tuple[list[DesiredVersion], list[_Key]]:
        """Return the versions that are settled and chosen by policy, and the keys of the unsettled."""
        versions: list[DesiredVersion] = []
        unsettled: list[_Key] = []
        for model in scan.models:
            chosen, moving = self._choose(model)
            versions += chosen
            unsettled += [(model.location.name, number) for number in moving]
        looked_at = {_NO_MODEL, *scan.unreadable, *(m.location.name for m in scan.models)}
        existing = {_NO_MODEL, *scan.located.models}
        self._digests.keep_round(looked_at, existing)
        self._said.keep_round(looked_at, existing)
        return versions, unsettled

    def _every_version(self, scan: _Scan) -> dict[int, DesiredVersion]:
        """Return the versions that are settled, whatever policies choose, by ascending number."""
        found: dict[int, DesiredVersion] = {}
        for model in scan.models:
            for version in model.versions:
                wanted = self._settled(model.location.name, version, model.described)
                if wanted is not None:
                    found[version.number] = wanted
        return dict(sorted(found.items()))

    def _choose(self, model: _Model) -> tuple[list[DesiredVersion], list[int]]:
        """Return what is to be served of one model, and the numbers to serve as they were before."""
        name, described = model.location.name, model.described
        for warning in described.warnings:
            self._say(name, f"model '{name}': {warning}")
        current = described.is_current(model.location)
        settled = {
            v.number: wanted
            for v in model.versions
            if current and (wanted := self._settled(name, v, described)) is not None
        }
        moving = [v.number for v in model.versions if v.number not in settled]
        if moving:
            self._say(name, f"model '{name}': versions {moving} are still being written, or cannot be read")
        # A version that was offered before stays a candidate while it is rewritten.
        candidates = [*settled, *(n for n in moving if (name, n) in self._offered)]
        chosen = served_numbers(described.spec.versions, candidates)
        return [settled[n] for n in chosen if n in settled], moving

    def _settled(self, model: str, version: _Version, described: Described) -> DesiredVersion | None:
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
            digest = self._digests.version_digest(model, directory, version.look)
            if version.files.look() != version.look:
                return None
        except (OSError, Unfit):
            return None
        artifact = Artifact(directory, directory / filename, digest)
        return desired(version.number, artifact, described.spec, described.problem)

    async def _settle(self, scan: _Scan) -> None:
        """Wait when some file is so young that it may still be written."""
        since_ns = (self._options.wall_s() - self._options.settle_s) * 1e9
        looks = [model.described.look for model in scan.models]
        looks += [v.look for model in scan.models for v in model.versions if not isinstance(v.look, str)]
        if any(entry[2] >= since_ns for look in looks for entry in look):
            await self._options.pause(self._options.settle_s)

    def _say(self, model: str, reason: str) -> None:
        """Log a reason, once for as long as each look at the model finds it again."""
        if self._said.get(model, reason) is None:
            self._said.put(model, reason, True)
            _log.warning("%s", reason)


def _look(files: VersionFiles) -> Look | str:
    """Return what is there; empty while nothing is, text when it can never be loaded."""
    try:
        return files.look()
    except (Unfit, RuntimeError, ValueError) as exc:
        return str(exc) if isinstance(exc, Unfit) else f"its files cannot be looked at: {type(exc).__name__}"
    except OSError:
        return ()


def _faulty(version: _Version, described: Described, why: str) -> DesiredVersion:
    directory = version.files.directory
    artifact = Artifact(directory, directory / described.model_filename, "")
    return desired(version.number, artifact, described.spec, described.problem or why)
