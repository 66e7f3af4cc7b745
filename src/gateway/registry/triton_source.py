"""A model source whose versions are those that the servers of a fleet have READY."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.registry import RegistryError
from gateway.core.targets import ResolvedTarget
from gateway.core.types import Artifact
from gateway.models.desired import desired
from gateway.models.policy import served_numbers
from gateway.registry.fleet_versions import Standing
from gateway.registry.labels import number_of
from gateway.registry.polling import within

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from gateway.core.clock import Clock, Timer
    from gateway.core.options import ModelSpec
    from gateway.core.rollout import Target
    from gateway.core.types import VersionId
    from gateway.models.desired import DesiredVersion
    from gateway.registry.fleet_versions import Listing, Offer

_log = logging.getLogger(__name__)

_PUBLIC_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


class VersionListing(Protocol):
    """Knows what the endpoints of a fleet have READY; kept fresh by somebody in the background.

    Attributes:
        fleet: the fleet's name.
    """

    fleet: str

    def listing(self) -> Listing:
        """Return what is known now, without asking anybody."""

    def changes(self) -> AsyncGenerator[None, None]:
        """Give None at once, and whenever `listing` may have changed since."""

    async def known(self) -> None:
        """Wait until every endpoint has answered, or failed to, at least once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetModel:
    """A model that a fleet serves.

    Attributes:
        spec: how it is served, the public name included; versions add their number to its backend's options.
        remote: its name on the fleet.
        enough: how many of so many endpoints must have a version for it to be READY.
    """

    spec: ModelSpec
    remote: str
    enough: Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonSourceOptions:
    """Settings of a TritonSource.

    Attributes:
        models: those that the configuration names.
        every: makes the FleetModel of any other model that is READY on the fleet; None: no others are served.
            Raises ModelLoadError where settings contradict each other.
        elsewhere: public names that are served from elsewhere, whatever the fleet has under them.
        files: an empty directory, in place of files that these versions do not have here.
        grace_s: a version that no endpoint has any more is withdrawn only after so long.
        start_timeout_s: time that is waited for endpoints that have not been asked yet.
    """

    models: Sequence[FleetModel]
    every: Callable[[str], FleetModel] | None = None
    elsewhere: Collection[str] = ()
    files: Path
    grace_s: float = 30.0
    start_timeout_s: float = 5.0


class TritonSource:
    """A Repository, followed, and TargetSource over the models of one fleet. Event loop only.

    A fleet that is down takes nothing away: what was offered stays offered, and `problems` says why the rest
    is not. Versions are told apart by their number alone: Triton does not say what files it has loaded.

    Args:
        name: the claim's name.
        listing: what the fleet's endpoints have.
        options: settings.
        clock: time and timers.
    """

    def __init__(
        self, name: str, listing: VersionListing, options: TritonSourceOptions, clock: Clock
    ) -> None:
        self.name: str = name
        self._listing = listing
        self._options = options
        self._clock = clock
        self._models: dict[str, FleetModel] = {model.spec.name: model for model in options.models}
        self._standing = {name: self._stand(model) for name, model in self._models.items()}
        self._offers: Mapping[str, Offer] = {}
        self._made: dict[tuple[str, int], DesiredVersion] = {}
        self._refused: set[str] = set()
        self._due = asyncio.Event()
        self._timer: Timer | None = None

    async def snapshot(self) -> Sequence[DesiredVersion]:
        """Return what is to be served now, waiting a while for endpoints not asked yet."""
        await self._look_first()
        return self.wanted()

    async def watch(self) -> AsyncGenerator[Sequence[DesiredVersion], None]:
        """Give the complete set whenever it, or a problem, has changed."""
        before: Mapping[str, Offer] | None = None
        async with aclosing(self._listing.changes()) as changes:
            changed = asyncio.ensure_future(anext(changes))
            due = asyncio.ensure_future(self._due.wait())
            try:
                while True:
                    await asyncio.wait((changed, due), return_when=asyncio.FIRST_COMPLETED)
                    if changed.done():
                        changed.result()
                        changed = asyncio.ensure_future(anext(changes))
                    if due.done():
                        self._due.clear()
                        due = asyncio.ensure_future(self._due.wait())
                    self._look()
                    if self._offers != before:
                        before = self._offers
                        yield self.wanted()
            finally:
                for wait in (changed, due):
                    wait.cancel()
                await asyncio.gather(changed, due, return_exceptions=True)
                if self._timer is not None:
                    self._timer.cancel()

    def wanted(self) -> Sequence[DesiredVersion]:
        """Return the complete set as it is known now."""
        wanted = [v for name in self._offers for v in self._wanted(name)]
        return sorted(wanted, key=lambda v: v.id)

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        return self._listing.fleet

    def remote_names(self) -> Mapping[str, str]:
        """Return public name -> name on the fleet."""
        return {name: model.remote for name, model in self._models.items()}

    async def models(self) -> Sequence[str]:
        """Return the public names of the models, READY or not."""
        return sorted(self._models)

    async def versions(self, model: str, config: str = "") -> Sequence[DesiredVersion]:
        """Return what is to be served of one model; as `Repository.versions`."""
        self._look()
        if model not in self._models:
            raise NotFound(f"failed to load '{model}', failed to poll from model repository: no such model")
        if config:
            raise ModelLoadError(
                f"failed to load '{model}', its configuration is the fleet's: it is not replaced"
            )
        wanted = self._wanted(model)
        if not wanted:
            raise ModelLoadError(f"failed to load '{model}', {self._offers[model].problem}")
        return wanted

    def problems(self) -> Mapping[str, str]:
        """Return, by public name, what keeps a model from being served as its entry says."""
        return {name: offer.problem for name, offer in self._offers.items() if offer.problem}

    async def resolve_target(self, model: str, target: Target) -> ResolvedTarget:
        """Find one version that is READY on the fleet by its number; as `TargetSource`."""
        await self._look_first()
        found = self._models.get(model)
        if found is None:
            raise NotFound(f"fleet '{self._listing.fleet}' is asked for no model '{model}'")
        number = number_of(target.text)
        if number is None:
            raise NotFound(
                f"'{target.text}' is no version of '{model}': a fleet's models have numbers, no aliases"
            )
        offer = self._offers[model]
        if number not in offer.numbers:
            if offer.problem:
                raise RegistryError("resolve", offer.problem.removeprefix("resolve: "), may_pass=True)
            there = ", ".join(map(str, offer.numbers)) or "none"
            raise NotFound(f"model '{model}' has no version {number} (there are: {there})")
        return self._resolved(found, number)

    async def restore_target(self, model: str, pin: Mapping[str, Any]) -> ResolvedTarget:
        """Make a version again that was found earlier, whether or not the fleet has it now."""
        self._look()
        found = self._models.get(model)
        if found is None:
            raise NotFound(f"fleet '{self._listing.fleet}' is asked for no model '{model}'")
        resolved = self._resolved(found, int(pin["number"]))
        if resolved.digest != pin["digest"]:
            raise ModelLoadError(
                f"version {resolved.label} of '{model}' was resolved on another fleet or model"
            )
        return resolved

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        """Take no note: there are no files here."""

    async def _look_first(self) -> None:
        """Look once every endpoint has been asked, or the time for that is over."""
        try:
            await within(self._clock, self._options.start_timeout_s, self._listing.known())
        except TimeoutError:
            _log.warning("fleet %r: not every endpoint has answered yet", self._listing.fleet)
        self._look()

    def _look(self) -> None:
        """Take in what the fleet has now."""
        listing, now_s = self._listing.listing(), self._clock.now_s()
        self._discover(listing)
        self._offers = {name: standing.look(listing, now_s) for name, standing in self._standing.items()}
        dues_s = [offer.due_s for offer in self._offers.values() if offer.due_s is not None]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(min(dues_s), self._due.set) if dues_s else None

    def _discover(self, listing: Listing) -> None:
        """Make entries for models that are READY on the fleet and named nowhere."""
        if self._options.every is None:
            return
        for remote in sorted(listing.models):
            known = remote in self._models or remote in self._options.elsewhere
            if not known and any(listing.models[remote].values()):
                self._enter(remote, self._options.every)

    def _enter(self, remote: str, every: Callable[[str], FleetModel]) -> None:
        if not _PUBLIC_NAME.fullmatch(remote):
            self._refuse(remote, "its name cannot be a public one: give it an entry under models")
            return
        try:
            model = every(remote)
        except ModelLoadError as error:
            self._refuse(remote, str(error))
            return
        self._models[remote] = model
        self._standing[remote] = self._stand(model)

    def _stand(self, model: FleetModel) -> Standing:
        return Standing(self._listing.fleet, model.remote, model.enough, self._options.grace_s)

    def _wanted(self, name: str) -> list[DesiredVersion]:
        model = self._models[name]
        numbers = served_numbers(model.spec.versions, self._offers[name].numbers)
        return [self._version(model, number) for number in numbers]

    def _version(self, model: FleetModel, number: int) -> DesiredVersion:
        key = (model.spec.name, number)
        made = self._made.get(key)
        if made is None:
            identity = json.dumps((self._listing.fleet, model.remote, number))
            digest = hashlib.sha256(identity.encode()).hexdigest()
            spec = replace(model.spec, backend_options={**model.spec.backend_options, "version": number})
            files = self._options.files
            made = self._made[key] = desired(number, Artifact(files, files, digest), spec)
        return made

    def _resolved(self, model: FleetModel, number: int) -> ResolvedTarget:
        version = self._version(model, number)
        digest = version.artifact.digest
        pin = {"number": number, "digest": digest}
        return ResolvedTarget(wanted=version, label=str(number), digest=digest, pin=pin)

    def _refuse(self, remote: str, reason: str) -> None:
        if remote not in self._refused:
            self._refused.add(remote)
            _log.warning("model %r of fleet %r is not served: %s", remote, self._listing.fleet, reason)
