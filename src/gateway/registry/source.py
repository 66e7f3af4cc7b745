"""A model source and repository whose versions come from a model registry."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.registry import RegistryError
from gateway.registry.asking import ModelInquiry
from gateway.registry.following import Following, MissingPolicy, ModelResolution, PollOutcome, SourcedModel
from gateway.registry.offers import OfferParts, Offers
from gateway.registry.polling import Jittered, Lanes, PollOptions, Turn, within
from gateway.registry.provider import ArtifactRules, ArtifactStore
from gateway.registry.selection import select, served
from gateway.registry.targets import pinned_version, resolved_target, select_target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence

    from gateway.core.clock import Clock
    from gateway.core.registry import ModelRegistry, RegistryVersion
    from gateway.core.rollout import Target
    from gateway.core.targets import ResolvedTarget
    from gateway.core.types import VersionId, VersionStatus
    from gateway.models.desired import DesiredVersion
    from gateway.registry.model_specs import ModelDescription
    from gateway.registry.resolutions import Resolution, ResolutionStore
    from gateway.registry.verification.policy import SignatureReport

_log = logging.getLogger(__name__)


class PollObserver(Protocol):
    """Told of every look at a registry, on the event loop; never suspends, blocks or raises."""

    def on_poll(self, registry: str, model: str, outcome: PollOutcome, seconds: float) -> None:
        """Take note that a look at a model took `seconds`, waiting for a turn not counted."""


class _Nobody:
    def on_poll(self, registry: str, model: str, outcome: PollOutcome, seconds: float) -> None:
        """Take no note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySourceOptions:
    """Settings of a RegistrySource.

    Attributes:
        poll: how often and how patiently the registry is asked.
        on_missing: what becomes of a version when what named it is no longer in the registry.
        rules: what the files of versions must be like.
        keep_previous: versions no longer wanted whose files stay cached for a rollback, those READY last.
        save_interval_s: a resolution that does not change is written to disk again after so long, so that a
            restart without the registry knows about how old it is.
        observer: told of every look.
        uniform: random numbers in [0, 1) for jitter.
        wall_s: seconds since the epoch.
    """

    poll: PollOptions = field(default_factory=PollOptions)
    on_missing: MissingPolicy = MissingPolicy.KEEP
    rules: ArtifactRules = field(default_factory=ArtifactRules)
    keep_previous: int = 2
    save_interval_s: float = 300.0
    observer: PollObserver = field(default_factory=_Nobody)
    uniform: Callable[[], float] = random.random
    wall_s: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class SourceParts:
    """What a RegistrySource works with; none of it is the source's to close.

    Attributes:
        registry: where the models are.
        cache: where their files are put.
        resolutions: what registries said last, on disk.
        clock: time and timers.
    """

    registry: ModelRegistry
    cache: ArtifactStore
    resolutions: ResolutionStore
    clock: Clock


class _Followed:
    """One model: what is known of it, who asks, what is offered, and when it is looked at next."""

    def __init__(self, model: SourcedModel, parts: SourceParts, options: RegistrySourceOptions) -> None:
        registry, clock, wall_s = parts.registry, parts.clock, options.wall_s
        self.model = model
        self.following = Following(model, registry.name, options.on_missing, wall_s())
        self.inquiry = ModelInquiry(model, registry, clock, wall_s)
        self.offers = Offers(
            model,
            OfferParts(
                registry=registry,
                cache=parts.cache,
                rules=options.rules,
                keep_previous=options.keep_previous,
            ),
        )
        self.turn = Turn(clock, options.poll.hint_spacing_s)
        self.looking = asyncio.Lock()
        self.looks = 0
        self.saved: Resolution | None = None
        self.unsaved = ""
        self.key = f"model '{model.name}' = {model.reference} in {registry.identity}"


_DEFAULTS: Final = RegistrySourceOptions()


class RegistrySource:
    """A Repository over models of one registry, and a LifecycleObserver that notes which versions were READY.

    The registry is waited for by `watch`, `versions` and, for a bounded time, `snapshot` alone. What it said
    last stands until it says something else, over restarts too; `following.py` has the rules. Each model is
    asked for on its own, so that a slow or faulty one delays no other.

    Args:
        name: the claim's name.
        models: those whose versions come from the registry, under different public names.
        parts: what it works with.
        options: settings.
    """

    def __init__(
        self,
        name: str,
        models: Sequence[SourcedModel],
        parts: SourceParts,
        options: RegistrySourceOptions = _DEFAULTS,
    ) -> None:
        self.name: str = name
        self._parts = parts
        self._options = options
        self._followed = {model.name: _Followed(model, parts, options) for model in models}
        self._lanes = Lanes(options.poll)
        self._pauses = Jittered(options.poll, options.uniform)
        self._changed = asyncio.Event()
        self._restoring = asyncio.Lock()
        self._restored = False
        self._is_followed = False

    async def snapshot(self) -> Sequence[DesiredVersion]:
        """Ask for every model, and return what is wanted; as `ModelSource.snapshot`.

        Takes `start_timeout_s` at most: what the registry has not answered by then is as an earlier run left
        it, or has no version yet; `problems` says so.
        """
        await self._restore()
        poll = self._options.poll
        before = {f: f.looks for f in self._followed.values()}
        looks = {f: asyncio.ensure_future(self._look(f, poll.start_timeout_s)) for f in before}
        try:
            if looks:
                await within(self._parts.clock, poll.start_timeout_s, _all(*looks.values()))
        except TimeoutError:
            self._give_up([f for f in looks if f.looks == before[f]])
        finally:
            await _cancel(*looks.values())
        for followed in looks:
            # What was all asked at once is to be asked one after the other from now on.
            answered = followed.looks != before[followed] and not followed.following.failures
            self._plan(followed, self._pauses.spread() if answered else 0.0)
        return self.wanted()

    async def watch(self) -> AsyncGenerator[Sequence[DesiredVersion], None]:
        """Ask for each model time and again; give the complete set when it, or a problem, has changed."""
        await self._restore()
        self._is_followed = True
        tasks = [asyncio.ensure_future(self._follow(f)) for f in self._followed.values()]
        for task in tasks:
            task.add_done_callback(lambda _task: self._changed.set())
        try:
            while True:
                self._changed.clear()
                yield self.wanted()
                await self._changed.wait()
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            self._is_followed = False
            await _cancel(*tasks)

    def wanted(self) -> Sequence[DesiredVersion]:
        """Return the complete set as it is known now, without asking anybody."""
        return sorted((v for f in self._followed.values() for v in self._offered(f)), key=lambda v: v.id)

    async def models(self) -> Sequence[str]:
        """Return the public names of the models, resolved or not."""
        return sorted(self._followed)

    async def versions(self, model: str, config: str = "") -> Sequence[DesiredVersion]:
        """Ask for one model now, and return what is wanted of it; as `Repository.versions`."""
        followed = self._followed.get(model)
        if followed is None:
            raise NotFound(f"failed to load '{model}', failed to poll from model repository: no such model")
        await self._restore()
        await self._look(followed, self._options.poll.timeout_s)
        self._plan(followed, self._pauses.after(followed.following.failures))
        try:
            wanted = await self._configured(followed, config) if config else self._offered(followed)
        except RegistryError as error:
            raise ModelLoadError(f"failed to load '{model}', {error}") from error
        if not wanted:
            why = followed.following.message or "resolve: it has no version"
            raise ModelLoadError(f"failed to load '{model}', {why}")
        return wanted

    async def resolve_target(self, model: str, target: Target) -> ResolvedTarget:
        """Ask the registry what `target` names now; as `TargetSource`."""
        followed = self._known(model)
        await self._restore()
        await self._look(followed, self._options.poll.timeout_s)
        registered, following = followed.inquiry.registered, followed.following
        if registered is None or following.description is None or following.failures:
            raise RegistryError("resolve", following.message or "the registry did not answer", may_pass=True)
        version = select_target(registered, following.description.spec.versions, target)
        return resolved_target(self._target(followed, version, following.description), version)

    async def restore_target(self, model: str, pin: Mapping[str, Any]) -> ResolvedTarget:
        """Make a version that was resolved earlier, from the cache if need be; as `TargetSource`."""
        followed = self._known(model)
        await self._restore()
        description = followed.following.description
        if description is None:
            await self._look(followed, self._options.poll.timeout_s)
            description = followed.following.description
        if description is None:
            raise RegistryError("resolve", followed.following.message or "no answer yet", may_pass=True)
        version = pinned_version(pin)
        return resolved_target(self._target(followed, version, description), version)

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        """Forget targets that are no longer needed; as `TargetSource`."""
        for followed in self._followed.values():
            followed.offers.keep_targets([v for v in versions if v.model == followed.model.name])

    def hint(self, registered: str | None = None) -> int:
        """Look at a model soon, as something says that it changed; hints in a row make one look a second.

        Args:
            registered: the model's name in the registry; None: every model.

        Returns:
            How many models are looked at.
        """
        hinted = [f for f in self._followed.values() if registered in {None, f.model.reference.model}]
        for followed in hinted:
            followed.turn.hint()
        return len(hinted)

    def problems(self) -> Mapping[str, str]:
        """Return, by public name, what keeps a model from being as its reference says: `resolve: ...`."""
        return {name: f.following.message for name, f in self._followed.items() if f.following.message}

    def resolutions(self) -> Sequence[ModelResolution]:
        """Return where each model stands with the registry."""
        return [
            f.following.report(f.turn.remaining_s() if self._is_followed else None)
            for f in self._followed.values()
        ]

    def keep_digests(self) -> frozenset[str]:
        """Return the content digests that the cache must keep: wanted now, or READY not long ago."""
        kept: set[str] = set()
        for followed in self._followed.values():
            kept |= followed.offers.keep_digests(followed.following)
        return frozenset(kept)

    def signature(self, version: VersionId) -> SignatureReport | None:
        """Return what checking a version's signature found; None when nobody has looked."""
        followed = self._followed.get(version.model)
        return followed.offers.signature(version) if followed is not None else None

    def on_transition(self, status: VersionStatus) -> None:
        """Note which versions were READY, for the rollback window, and for which one stands in no more."""
        followed = self._followed.get(status.id.model)
        if followed is None:
            return
        if followed.offers.note(status, followed.following, self._options.wall_s()):
            followed.offers.make(followed.following)
            self._changed.set()

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note: `on_transition` has it."""

    async def _restore(self) -> None:
        """Take up what an earlier run knew, once."""
        async with self._restoring:
            if self._restored:
                return
            keys = {f.key: f for f in self._followed.values()}
            found = await asyncio.to_thread(self._parts.resolutions.load, list(keys))
            for key, resolution in found.items():
                followed = keys[key]
                description = await followed.inquiry.describe_from(resolution.texts)
                followed.saved = resolution
                followed.following.restore(resolution, description, self._options.wall_s())
                followed.offers.make(followed.following)
            self._restored = True

    def _give_up(self, followed: Sequence[_Followed]) -> None:
        """Take note at start of what was not answered; what was not even asked is not the model's fault."""
        timeout_s = self._options.poll.start_timeout_s
        why = f"resolve: registry '{self._parts.registry.name}' did not answer within {timeout_s:g} s"
        for one in followed:
            one.following.failed(why, self._options.wall_s(), is_down=one.turn.remaining_s() is None)

    async def _follow(self, followed: _Followed) -> None:
        while True:
            await followed.turn.wait()
            await self._look(followed, self._options.poll.timeout_s)
            self._plan(followed, self._pauses.after(followed.following.failures))

    def _plan(self, followed: _Followed, delay_s: float) -> None:
        """Plan the next look; one that is to confirm the last comes soon."""
        soon_s = self._options.poll.hint_spacing_s
        followed.turn.plan(min(soon_s, delay_s) if followed.following.unconfirmed else delay_s)

    async def _look(self, followed: _Followed, timeout_s: float) -> None:
        """Ask for one model, tell what it came to, and keep it on disk."""
        following, clock = followed.following, self._parts.clock
        async with followed.looking:
            failures, before = following.failures, following.mark()
            async with self._lanes.enter(failures):
                followed.turn.begin()
                began_s = clock.now_s()
                outcome = await followed.inquiry.look(following, timeout_s)
                seconds = clock.now_s() - began_s
            followed.looks += 1
            self._options.observer.on_poll(self._parts.registry.name, followed.model.name, outcome, seconds)
            if failures and not following.failures:
                self._retry_soon()
            if before != following.mark():
                followed.offers.make(following)
                self._log_change(followed.model.name, str(before[-1]), following.message)
                self._changed.set()
            await self._save(followed)

    def _log_change(self, model: str, before: str, now: str) -> None:
        if now and now != before:
            _log.warning("model %r: %s", model, now)
        elif before and not now:
            _log.info("model %r: registry %r is followed", model, self._parts.registry.name)

    def _retry_soon(self) -> None:
        """The registry answers again: look at the other models that it had no answer for."""
        for followed in self._followed.values():
            if followed.following.failures:
                followed.turn.sooner(self._pauses.spread())

    async def _save(self, followed: _Followed) -> None:
        """Keep what is known on disk, when it has changed or is a while old; a full disk stops nothing."""
        resolution, saved = followed.following.resolution(), followed.saved
        if resolution is None:
            return
        if saved is not None:
            same = replace(resolution, ok_s=saved.ok_s) == saved
            if same and resolution.ok_s - saved.ok_s < self._options.save_interval_s:
                return
        try:
            await asyncio.to_thread(self._parts.resolutions.save, followed.key, resolution)
            followed.saved, followed.unsaved = resolution, ""
        except (OSError, ValueError) as error:
            reason = str(error.strerror if isinstance(error, OSError) else error)
            if reason != followed.unsaved:  # it is tried again at every look
                followed.unsaved = reason
                _log.warning("what %s led to cannot be kept: %s", followed.key, reason)

    async def _configured(self, followed: _Followed, config: str) -> list[DesiredVersion]:
        """Return what is wanted of a model with a client's config in place of its own."""
        following, registered = followed.following, followed.inquiry.registered
        description = await followed.inquiry.describe(config)
        versions = following.versions
        if registered is not None:
            selector = followed.model.reference.selector
            selection = select(registered, selector, description.spec.versions, versions)
            versions = served(selection, versions, unload_missing=False)
        return followed.offers.make_otherwise(versions, description, following.aliases)

    def _known(self, model: str) -> _Followed:
        followed = self._followed.get(model)
        if followed is None:
            raise NotFound(f"registry '{self._parts.registry.name}' is asked for no model '{model}'")
        return followed

    def _target(
        self, followed: _Followed, version: RegistryVersion, description: ModelDescription
    ) -> DesiredVersion:
        return followed.offers.make_target(version, description, followed.following.aliases)

    def _offered(self, followed: _Followed) -> list[DesiredVersion]:
        return followed.offers.make(followed.following)


async def _all(*tasks: asyncio.Future[None]) -> None:
    await asyncio.wait(tasks)


async def _cancel(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
