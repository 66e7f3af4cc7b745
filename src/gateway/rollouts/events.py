"""What happens to a rollout, as values. Time comes with every event; nothing here reads a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.evidence import Evidence
    from gateway.core.rollout import RolloutSpec
    from gateway.core.rollout_control import Verb
    from gateway.core.state import AuditEntry
    from gateway.core.types import VersionId
    from gateway.rollouts.effects import Directive


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """When it happened.

    Attributes:
        now_s: monotonic; only differences within one process life mean anything.
        wall_s: seconds since the epoch, for freeze windows, approvals and records.
    """

    now_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecSeen(Timed):
    """A valid rollout file was read, for the first time or after a change.

    Attributes:
        spec: what it says.
        file_hash: SHA-256 of its bytes.
        author: `spec.author`, or the file's owner on disk.
        path: of the file.
    """

    spec: RolloutSpec
    file_hash: str
    author: str
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRefused(Timed):
    """The file was changed into something that cannot be used: what was read before stays in force.

    Attributes:
        file_hash: of its bytes; empty when it cannot be read.
        error: with file and line.
    """

    file_hash: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecGone(Timed):
    """The file was deleted on purpose; a missing directory or an unreadable file is none of this.

    Attributes:
        who: `file:fraud.yaml`.
    """

    who: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Timed):
    """Answer to `Resolve`.

    Attributes:
        targets: arm name -> version, digest known.
        labels: arm name -> the registry's label, for show.
    """

    targets: Mapping[str, VersionId]
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveFailed(Timed):
    """Answer to `Resolve`.

    Attributes:
        reason: what failed and what to do.
        may_pass: another attempt may succeed; else the rollout is aborted.
    """

    reason: str
    may_pass: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen(Timed):
    """A replica is live.

    Attributes:
        replica: its name.
        boot_id: of its life.
        clean: its life before ended in order; else that counts as a crash of a canary that it served.
    """

    replica: str
    boot_id: str
    clean: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLost(Timed):
    """A replica is gone, or cannot be reached: it is waited for no more."""

    replica: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaAck(Timed):
    """A replica has READY whatever the directive of this epoch needs.

    Attributes:
        replica: whose.
        epoch: of the directive.
        boot_id: of its life; empty: of the one that is known.
    """

    replica: str
    epoch: int
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport(Timed):
    """How things stand at a replica.

    Attributes:
        replica: whose.
        boot_id: of its life.
        ready: versions READY there.
        failed: versions that failed to load, with the reason.
        for_good: those of `failed` that no further attempt can help: verification, golden test.
        epoch: of the plan that it follows.
        lowered: it follows the plan's retreat in place of the plan.
        harmed: rollout that it found harmful by itself; empty: none.
        reason: why it is lowered.
    """

    replica: str
    boot_id: str
    ready: frozenset[VersionId]
    failed: Mapping[VersionId, str] = field(default_factory=lambda: MappingProxyType({}))
    for_good: frozenset[VersionId] = frozenset()
    epoch: int = 0
    lowered: bool = False
    harmed: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReport(Timed):
    """Running totals of one replica."""

    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswer(Timed):
    """Answer to `AskGate`.

    Attributes:
        rollout_id: as asked.
        step: as asked.
        place: as asked.
        verdict: `pass`, `fail`, `hold` or `no_data` of an external gate; empty for a prometheus gate.
        value: of the expression; None: no data.
        error: it could not be asked; an outage is never a pass and never harm.
        reason: that came with the verdict.
    """

    rollout_id: str
    step: int
    place: str
    verdict: str = ""
    value: float | None = None
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Timed):
    """Time goes on; about once a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator(Timed):
    """Somebody asks for something.

    Attributes:
        verb: what.
        who: `user:alice (uid 1000)`.
        roles: groups that they are in.
        evidence_hash: that an approval is about, as `status` shows it.
        reason: in their words.
    """

    verb: Verb
    who: str
    roles: frozenset[str] = frozenset()
    evidence_hash: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted(Timed):
    """This decider takes over a state just read from the store (`documents.restore`), or a fresh one.

    Attributes:
        clean: the life before ended in order.
        revision: of the document as read; 0: there is none.
        boot_id: of this life.
        audited: newest entries of the audit chain about this line. A withdrawal among them that the store
            never heard of, because the life before ended first, is made up for. None: the chain cannot be
            read back, so nothing goes into it before it is stored.
    """

    clean: bool
    revision: int
    boot_id: str
    audited: tuple[AuditEntry, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreWritten(Timed):
    """Answer to `Persist`: durable, with this revision now."""

    ticket: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConflict(Timed):
    """Answer to `Persist`: somebody else wrote; this decider is one no more until it reads and restarts."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLost(Timed):
    """Answer to `Persist`: not written, or nobody knows; it is tried again."""

    ticket: int
    reason: str = ""


Event: TypeAlias = (
    SpecSeen
    | SpecRefused
    | SpecGone
    | Resolved
    | ResolveFailed
    | ReplicaSeen
    | ReplicaLost
    | ReplicaAck
    | ReplicaReport
    | EvidenceReport
    | GateAnswer
    | Tick
    | Operator
    | Restarted
    | StoreWritten
    | StoreConflict
    | StoreLost
)
"""Of the decider."""


@dataclass(frozen=True, slots=True)
class DirectiveSeen:
    """A directive arrived, published or read from the store. Of several, give the lower epoch first."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class VersionReady:
    """A version is READY here."""

    version: VersionId


@dataclass(frozen=True, slots=True)
class VersionLost:
    """A version is not READY here any more.

    Attributes:
        version: which.
        reason: `crashed`, `unloaded`.
    """

    version: VersionId
    reason: str


@dataclass(frozen=True, slots=True)
class Harm:
    """Something here says that the canary does harm: a local gate, or the decider's `Retreat`.

    Attributes:
        rollout_id: whose canary.
        reason: in words.
        epoch: of a `Retreat`: whatever canary a directive up to this epoch is about is meant too. While the
            store refuses writes the replicas follow one that the decider has given another rollout_id since.
    """

    rollout_id: str
    reason: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """The store can or cannot be reached from here."""

    state: Literal["up", "down"]


ReplicaEvent: TypeAlias = DirectiveSeen | VersionReady | VersionLost | Harm | Connection
"""Of a replica."""
