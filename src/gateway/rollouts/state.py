"""What a decider knows about one line of rollouts; every part of it is a value and survives in a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.rollouts.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.evidence import ArmCounts, Evidence, ShadowCounts
    from gateway.core.rollout import RolloutSpec
    from gateway.core.state import AuditEntry
    from gateway.core.types import VersionId
    from gateway.rollouts.effects import Directive, Effect
    from gateway.rollouts.gates import StepState, StepVerdict

HISTORY: Final = 50
"""Transitions kept for show; all of them are in the audit chain."""
TOMBSTONES_KEPT: Final = 200
"""Withdrawn rollouts remembered per line; the oldest is forgotten first."""
NO_STEP: Final = -1
"""What `serving` is before any step gave the canary something to do."""


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """The rollout's file.

    Attributes:
        path: of it.
        seen_hash: SHA-256 of the newest bytes seen.
        active_hash: of those in force; differs while `error` says why.
        error: why the newest are not in force; empty when they are.
        author: who wrote it.
    """

    path: str = ""
    seen_hash: str = ""
    active_hash: str = ""
    error: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica as the decider sees it.

    Attributes:
        boot_id: of its life.
        live: it is waited for.
        ready: versions READY there.
        epoch: of the plan that it follows.
        lowered: it follows the plan's retreat.
        failed: versions that failed to load, with the reason.
        for_good: those of `failed` beyond help.
    """

    boot_id: str
    live: bool = True
    ready: frozenset[VersionId] = frozenset()
    epoch: int = 0
    lowered: bool = False
    failed: Mapping[VersionId, str] = field(default_factory=_empty)
    for_good: frozenset[VersionId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What one (rollout_id, step) has seen, over all replicas and their lives.

    Attributes:
        last: newest report per replica, of its present life.
        arms: sums over everything that was ever reported.
        shadows: likewise.
    """

    last: Mapping[str, Evidence] = field(default_factory=_empty)
    arms: Mapping[str, ArmCounts] = field(default_factory=_empty)
    shadows: Mapping[str, ShadowCounts] = field(default_factory=_empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Somebody's word for one step of one rollout on one body of evidence.

    Attributes:
        who: as authenticated.
        roles: their groups.
        wall_s: when.
        rollout_id: bound to.
        step: bound to.
        evidence_hash: bound to.
    """

    who: str
    roles: frozenset[str]
    wall_s: float
    rollout_id: str
    step: int
    evidence_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A withdrawn rollout.

    Attributes:
        rollout_id: whose.
        reason: why.
        wall_s: when.
    """

    rollout_id: str
    reason: str
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One transition.

    Attributes:
        serial: of its audit entry.
        source: phase before.
        phase: phase after.
        step: afterwards.
        reason: why.
        who: by whom.
        wall_s: when.
    """

    serial: int
    source: Phase
    phase: Phase
    step: int
    reason: str
    who: str
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """How the document in the store and the state here relate; not stored itself.

    Attributes:
        revision: of the document as last read or written.
        leading: this decider may act; False from a conflict until it has read and restarted.
        ticket: of the write under way, or of the last one.
        writing: a write is under way.
        dirty: something changed since the write under way began, or since the last one.
        urgent: that something must be written at the next chance, not at the next interval.
        lost: the last write failed; tried again with the next tick.
        written_s: monotonic time of the last write begun.
        audits: entries of the outbox that are in the write under way.
        recalls: the next life reads the audit chain, so that a withdrawal goes into it at once.
        told: serial numbers of entries of the outbox that went to the audit chain without waiting.
        with_write: effects that wait for the write under way.
        with_next: effects that wait for the one after it.
        undo: what to go back to when the advance under way cannot be stored.
        undo_to: serial number of the last audit entry of that advance.
    """

    revision: int = 0
    leading: bool = False
    ticket: int = 0
    writing: bool = False
    dirty: bool = False
    urgent: bool = False
    lost: bool = False
    written_s: float = 0.0
    audits: int = 0
    recalls: bool = False
    told: frozenset[int] = frozenset()
    with_write: tuple[Effect, ...] = ()
    with_next: tuple[Effect, ...] = ()
    undo: RolloutState | None = None
    undo_to: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """One line of rollouts: at most one rollout of it is in progress.

    Invariants: `committed` and `prepared` have epochs <= `epoch`; a canary has weight in `committed` only
    after a prepare of that weight was acknowledged; `tombstones` never loses an entry but to an audited retry
    and to TOMBSTONES_KEPT.

    Attributes:
        name: of the line.
        phase: where it stands.
        reason: why, in words.
        since_wall_s: when it came there.
        entered_s: monotonic, likewise; of this process life.
        spec: in force; None: no file.
        file: its file.
        next_spec: read but not in force: it waits for the end of a pause, a freeze or a withdrawal.
        retrying: an audited retry allows the next start to pass its tombstone.
        gone: the file went away; the line ends when the withdrawal is on record.
        resolve_at_s: monotonic time of the next attempt to resolve.
        resolve_tries: attempts that failed.
        base_id: identity of specification and digests.
        rollout_id: `base_id` and which attempt.
        attempts: base_id -> how often it was begun; each time has a rollout_id and evidence of its own.
        tombstones: base_id -> what was withdrawn, oldest first.
        targets: arm name -> version, as resolved once for this rollout.
        labels: arm name -> the registry's label.
        incumbent: what was promoted; None: nothing, or it was rolled back.
        former: the stable that the incumbent took over from.
        step: index of the step that it is in.
        serving: index of the step whose plan is committed, whose evidence counts.
        epoch: last one given out.
        committed: directive in force.
        prepared: directive waiting for acknowledgements; None: no advance under way.
        target_step: that the prepared directive leads to.
        forced: an operator has asked for promotion whatever the gates have proven; harm still withdraws.
        released: somebody has resumed a PauseStep.
        inconclusive: `max_bake_s` went by without a pass.
        acks: replicas that acknowledged the prepared directive.
        replicas: by name.
        paused: by an operator's word.
        resumer: who resumed or retried last; may not approve.
        frozen: a freeze window is open, as of the last event.
        served_s: time in the serving step with evidence arriving.
        elapsed_s: time in the present step, process downtime left out.
        ticked_s: monotonic time of the last tick; None: none in this life.
        grew_s: monotonic time at which evidence last grew; None: never in this step and life.
        totals: evidence of (rollout_id, serving).
        gates: what the gates of the serving step know; None: none is in force.
        verdict: of the same, at the last look; None: not looked yet.
        asked_s: gate name -> monotonic time of the last question.
        approvals: for the present step.
        approval_hash: evidence that approvals must name; set on entering an ApproveStep.
        history: newest last.
        serial: of the last audit entry.
        outbox: audit entries that are not in the chain for certain; after a crash they come again, and
            `detail["serial"]` tells which are there already.
        ignored: why the last event that had no effect had none.
        store: relation to the store.
    """

    name: str
    phase: Phase = Phase.IDLE
    reason: str = ""
    since_wall_s: float = 0.0
    entered_s: float = 0.0
    spec: RolloutSpec | None = None
    file: FileView = FileView()
    next_spec: RolloutSpec | None = None
    retrying: bool = False
    gone: bool = False
    resolve_at_s: float = 0.0
    resolve_tries: int = 0
    base_id: str = ""
    rollout_id: str = ""
    attempts: Mapping[str, int] = field(default_factory=_empty)
    tombstones: Mapping[str, Tombstone] = field(default_factory=_empty)
    targets: Mapping[str, VersionId] = field(default_factory=_empty)
    labels: Mapping[str, str] = field(default_factory=_empty)
    incumbent: VersionId | None = None
    former: VersionId | None = None
    step: int = 0
    serving: int = NO_STEP
    epoch: int = 0
    committed: Directive | None = None
    prepared: Directive | None = None
    target_step: int = 0
    forced: bool = False
    released: bool = False
    inconclusive: bool = False
    acks: frozenset[str] = frozenset()
    replicas: Mapping[str, ReplicaView] = field(default_factory=_empty)
    paused: bool = False
    resumer: str = ""
    frozen: bool = False
    served_s: float = 0.0
    elapsed_s: float = 0.0
    ticked_s: float | None = None
    grew_s: float | None = None
    totals: Totals = Totals()
    gates: StepState | None = None
    verdict: StepVerdict | None = None
    asked_s: Mapping[str, float] = field(default_factory=_empty)
    approvals: tuple[Approval, ...] = ()
    approval_hash: str = ""
    history: tuple[Move, ...] = ()
    serial: int = 0
    outbox: tuple[AuditEntry, ...] = ()
    ignored: str = ""
    store: Store = Store()

    @property
    def weight_ppm(self) -> int:
        """Return the canary's share of the keys as committed; all of them once it is promoted."""
        if self.committed is None:
            return 0
        return self.committed.canary_ppm
