"""One model of a registry over time: what it answered, what is served of it, and what people are told. Pure.

The rules, all of them here:

- A fault (no answer, nonsense, a config.pbtxt that does not parse) changes nothing of what is served.
- An answer that has what was asked for is followed at once.
- An answer that lacks what names the versions (the alias, the version, the model, or every version) is
  followed under the policy `unload`, once it came twice in a row: between deleting an alias and setting it
  anew a registry has none. Under `keep` what was served stays, and the status says so.
- A version that is there and cannot be served (still pending, half written) is followed under neither.
- A config.pbtxt that is gone is, too, once two answers in a row came without it: whoever replaces it may
  delete it first, and the defaults in its place would load every version anew.
- After a restart, where none of the versions wanted was ever READY, the one that was READY last comes first,
  and serves until one of them is READY: as without the restart, a version takes over when it can and may.
  Should it fail to load, the others need not wait for it any more; it is tried beside them.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.models.pbtxt import CONFIG_FILE
from gateway.registry.resolutions import Resolution, served_last
from gateway.registry.selection import Hold, Selection, select, served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.options import ModelSpec
    from gateway.core.registry import RegisteredModel, RegistryVersion
    from gateway.registry.model_specs import ModelDescription
    from gateway.registry.reference import ModelReference
    from gateway.registry.resolutions import ReadyVersion

CONFIRMATIONS: Final = 2
"""Answers in a row that must lack what was there before it is taken to be gone."""
NOT_ASKED: Final = "resolve: the registry has not been asked yet"


class MissingPolicy(enum.Enum):
    """What becomes of a version when what named it is no longer in the registry."""

    KEEP = "keep"
    """It goes on serving."""
    UNLOAD = "unload"
    """It is withdrawn."""


class ResolutionStatus(enum.Enum):
    """How much what is wanted of a model can be relied on."""

    PENDING = "pending"
    """The registry has not been asked yet."""
    OK = "ok"
    """The registry's last answer is followed."""
    STALE = "stale"
    """The registry gave no usable answer: what it said before stands."""
    MISSING = "missing"
    """The registry does not have what the reference names."""
    ERROR = "error"
    """The registry gave no usable answer, and nothing is known from before."""


class PollOutcome(enum.Enum):
    """What one look at a registry came to; a bounded label of metrics."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    MISSING = "missing"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResolution:
    """Where one model stands with its registry, for people and metrics.

    Attributes:
        model: public name.
        registry: the registry's name in the configuration.
        reference: the model's `source:`.
        status: in one word.
        since_s: when it came into this status, wall-clock seconds since the epoch.
        last_ok_s: when the registry last had what the reference names; None: never, as far as is known.
        message: what is amiss and what is served meanwhile; empty for OK.
        labels: the registry's ids of the versions wanted, ascending.
        aliases: alias -> label as the registry had them last.
        next_poll_s: seconds until it is asked again; None while it is being asked, or not followed.
    """

    model: str
    registry: str
    reference: str
    status: ResolutionStatus
    since_s: float
    last_ok_s: float | None
    message: str
    labels: tuple[str, ...]
    aliases: Mapping[str, str]
    next_poll_s: float | None = None


def _unchanged(spec: ModelSpec) -> ModelSpec:
    return spec


def _no_files() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedModel:
    """A model of the configuration whose versions come from a registry.

    Attributes:
        name: public name.
        reference: which model and versions.
        digest: the content digest that its files must have, SHA-256 in hex; empty for any.
        allow_breaking: as `ModelSpec.allow_breaking`.
        lazy: as `ModelSpec.lazy`.
        adjust: the operator's settings, applied over what config.pbtxt declares; raises ModelLoadError where
            they contradict each other.
        label_files: output -> label file beside the versions, as the operator named them.
    """

    name: str
    reference: ModelReference
    digest: str = ""
    allow_breaking: bool = False
    lazy: bool = False
    adjust: Callable[[ModelSpec], ModelSpec] = _unchanged
    label_files: Mapping[str, str] = field(default_factory=_no_files)


class Following:
    """What is known of one model. Told of answers and faults; never asks, waits or reads a clock.

    Invariant: `versions` shrinks only by an answer of the registry, never by a fault.

    Args:
        model: the model.
        registry: the registry's name, for messages.
        policy: what becomes of versions that the registry no longer names.
        wall_s: now, seconds since the epoch.

    Attributes:
        versions: those wanted now, ascending numbers.
        aliases: alias -> label as last answered.
        description: how to serve them; None until it is known.
        status: see ResolutionStatus.
        message: what is amiss; empty when nothing is.
        failures: faults in a row.
        unconfirmed: the last answer must be confirmed by another before it is followed.
        ready: versions that were READY; written by the source.
    """

    def __init__(self, model: SourcedModel, registry: str, policy: MissingPolicy, wall_s: float) -> None:
        self.model = model
        self.versions: tuple[RegistryVersion, ...] = ()
        self.aliases: dict[str, str] = {}
        self.description: ModelDescription | None = None
        self.status = ResolutionStatus.PENDING
        self.message = NOT_ASKED
        self.failures = 0
        self.unconfirmed = False
        self.ready: tuple[ReadyVersion, ...] = ()
        self._registry = registry
        self._policy = policy
        self._since_s = wall_s
        self._last_ok_s: float | None = None
        self._missing = 0
        self._bare = 0
        self._may_stand_in = False
        self._had_its_turn = False

    @property
    def standing_in(self) -> tuple[RegistryVersion, ...]:
        """What an earlier process served and nobody wants any more, as long as nothing wanted was READY."""
        return served_last(self.ready, self.versions) if self._may_stand_in else ()

    @property
    def offered(self) -> tuple[RegistryVersion, ...]:
        """The versions to be served, ascending numbers: those wanted, and what stands in for them."""
        standing_in = self.standing_in
        wanted = () if standing_in and not self._had_its_turn else self.versions
        return tuple(sorted((*standing_in, *wanted), key=lambda version: version.number))

    def restore(self, resolution: Resolution, description: ModelDescription | None, wall_s: float) -> None:
        """Take up what an earlier process knew; without a description only the history is of use."""
        self.ready = resolution.ready
        if description is None:
            return
        self.versions, self.aliases, self.description = resolution.versions, resolution.aliases, description
        self._last_ok_s = resolution.ok_s
        self._may_stand_in = True
        if self.versions:
            self._enter(ResolutionStatus.STALE, self._as_before(NOT_ASKED), wall_s)

    def answered(
        self, registered: RegisteredModel, description: ModelDescription, wall_s: float
    ) -> PollOutcome:
        """Follow an answer of the registry, as far as the rules above go."""
        believed = self._believed(description)
        policy = believed.spec.versions
        selection = select(registered, self.model.reference.selector, policy, self.versions)
        before = self.mark()[:-1]
        self.description = believed
        self.aliases = dict(registered.aliases)
        outcome = self._follow(selection, wall_s)
        self.unconfirmed = self.unconfirmed or believed is not description
        changed = before != self.mark()[:-1]
        return PollOutcome.CHANGED if changed and outcome is PollOutcome.UNCHANGED else outcome

    def absent(self, why: str, wall_s: float) -> PollOutcome:
        """Take note that the registry has no such model."""
        return self._follow(Selection((), why, Hold.MISSING), wall_s)

    def failed(self, why: str, wall_s: float, *, is_down: bool = True) -> None:
        """Take note that the registry gave no usable answer; what is wanted stays.

        Args:
            why: for people.
            wall_s: now.
            is_down: the registry itself is in the way, so that asking less often is kind to it.
        """
        self.failures = self.failures + 1 if is_down else 0
        self.unconfirmed = False
        self._missing = self._bare = 0
        if self.description is None or not self.versions:
            self._enter(ResolutionStatus.ERROR, why, wall_s)
        else:
            self._enter(ResolutionStatus.STALE, self._as_before(why), wall_s)

    def mark(self) -> tuple[object, ...]:
        """Return what a claim and an index are made from; unequal when either may have changed."""
        return self.versions, self.offered, self.aliases, self.description, self.message

    def settled(self, version: RegistryVersion, *, is_ready: bool) -> None:
        """Take note that a version that is offered is READY, or has failed."""
        key = (version.label, version.revision)
        if key in {(v.label, v.revision) for v in self.standing_in}:
            self._had_its_turn = True
        elif is_ready:
            self._may_stand_in = False

    def resolution(self) -> Resolution | None:
        """Return what is worth keeping on disk; None as long as nothing is known."""
        if self.description is None or self._last_ok_s is None:
            return None
        return Resolution(
            versions=self.versions,
            aliases=dict(self.aliases),
            texts=dict(self.description.texts),
            ok_s=self._last_ok_s,
            ready=self.ready,
        )

    def report(self, next_poll_s: float | None) -> ModelResolution:
        """Return where it stands."""
        return ModelResolution(
            model=self.model.name,
            registry=self._registry,
            reference=str(self.model.reference),
            status=self.status,
            since_s=self._since_s,
            last_ok_s=self._last_ok_s,
            message=self.message,
            labels=tuple(v.label for v in self.versions),
            aliases=dict(self.aliases),
            next_poll_s=next_poll_s,
        )

    def _believed(self, description: ModelDescription) -> ModelDescription:
        """Return the description to go by: the one before, as long as it may be that its file is replaced."""
        known = self.description
        if known is None or CONFIG_FILE not in known.texts or CONFIG_FILE in description.texts:
            self._bare = 0
            return description
        self._bare += 1
        return description if self._bare >= CONFIRMATIONS else known

    def _follow(self, selection: Selection, wall_s: float) -> PollOutcome:
        self.failures = 0
        missing = selection.hold is Hold.MISSING
        self._missing = self._missing + 1 if missing else 0
        confirmed = self._missing >= CONFIRMATIONS
        unload = self._policy is MissingPolicy.UNLOAD
        self.unconfirmed = missing and unload and not confirmed and bool(self.versions)
        self.versions = served(selection, self.versions, unload_missing=unload and confirmed)
        if selection.hold is Hold.NONE or selection.versions:
            self._last_ok_s = wall_s
        if selection.hold is Hold.NONE:
            self._enter(ResolutionStatus.OK, "", wall_s)
            return PollOutcome.UNCHANGED
        self._enter(ResolutionStatus.MISSING, f"resolve: {selection.problem}{self._kept()}", wall_s)
        return PollOutcome.MISSING

    def _kept(self) -> str:
        """Return what is served although the registry does not name it, for the end of a message."""
        if not self.versions:
            return ""
        labels = ", ".join(f"'{v.label}'" for v in self.versions[-8:])
        if self.unconfirmed:
            return f"; serving {labels} until the registry says so again"
        return f"; serving {labels} as before"

    def _as_before(self, why: str) -> str:
        since = _clock_time(self._last_ok_s)
        return f"{why}; serving what registry '{self._registry}' said at {since}"

    def _enter(self, status: ResolutionStatus, message: str, wall_s: float) -> None:
        if status is not self.status:
            self._since_s = wall_s
        self.status = status
        self.message = message


def _clock_time(wall_s: float | None) -> str:
    if wall_s is None:
        return "a time not known"
    return dt.datetime.fromtimestamp(wall_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
