"""What the pure cores ask of the world. The decider's shell and the replica's carry them out, in order.

A directive takes hold by being stored: `Persist` carries the whole state, directives included, and `Publish`
follows only once the store has it. `Retreat` is the exception: it lowers, so it waits for nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.evidence import RoutePlan
    from gateway.core.rollout import ExternalGate, PrometheusGate, Target
    from gateway.core.state import AuditEntry
    from gateway.core.types import VersionId
    from gateway.rollouts.state import RolloutState


class Turn(enum.Enum):
    """The two halves of an advance."""

    PREPARE = "prepare"
    """Load and get ready; acknowledge; change nothing."""
    COMMIT = "commit"
    """Apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """What the decider tells every replica. One writer per epoch: it comes from a stored state alone.

    Attributes:
        rollout: name of the line of rollouts.
        model: public name.
        epoch: ascending over the life of the line of rollouts; a replica follows a greater one only.
        turn: prepare or commit.
        plan: where requests go; None: no rollout any more, the model's source decides.
        retreat: what a replica goes back to by itself when the canary does harm; None: the plan itself is one
            to go back to, and it is followed at once, whatever is READY.
        ready: versions that must be READY before it is acknowledged or followed.
        keep: versions to keep loaded, by reason: `rollout`, `rollback_window`.
        skip_first_s: latencies count from so long after the plan is applied; goes into `evidence_from_s`.
    """

    rollout: str
    model: str
    epoch: int
    turn: Turn
    plan: RoutePlan | None
    retreat: RoutePlan | None = None
    ready: frozenset[VersionId] = frozenset()
    keep: Mapping[str, tuple[VersionId, ...]] = field(default_factory=lambda: MappingProxyType({}))
    skip_first_s: float = 0.0

    @property
    def rollout_id(self) -> str:
        """Whose canary it is about; empty for one that has none."""
        return self.plan.rollout_id if self.plan is not None else ""

    @property
    def canary_ppm(self) -> int:
        """Share of the keys that it gives to anything but what it would retreat to."""
        if self.plan is None or self.retreat is None:
            return 0
        safe = self.retreat.arms[0].version
        return sum(arm.weight_ppm for arm in self.plan.arms if arm.version != safe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """Find out which versions the targets are now; answer with `Resolved` or `ResolveFailed`.

    Attributes:
        rollout: its name.
        model: public name.
        targets: by arm name; None: whatever serves now.
    """

    rollout: str
    model: str
    targets: Mapping[str, Target | None]


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell every replica; the store has it already, so a lost message is made up for by reading the store."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class Retreat:
    """Tell this replica at once, the others as far as they can be reached: no traffic for this canary.

    Attributes:
        rollout: name of the line.
        rollout_id: whose canary.
        reason: in words.
        epoch: last one given out; directives up to it that a replica has may be of another rollout_id.
    """

    rollout: str
    rollout_id: str
    reason: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Persist:
    """Write a document by compare-and-set; answer with `StoreWritten`, `StoreConflict` or `StoreLost`.

    Attributes:
        key: of the document.
        revision: that the store must have now.
        state: to be written, as `documents.to_document` puts it.
        ticket: to be given back in the answer.
    """

    key: str
    revision: int
    state: RolloutState
    ticket: int


@dataclass(frozen=True, slots=True)
class Audit:
    """Append to the audit chain: a withdrawal at once, everything else when the store has it."""

    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell whoever asked to be told of transitions.

    Attributes:
        rollout: its name.
        what: `baking`, `aborted`, as the phase is called.
        detail: JSON types.
    """

    rollout: str
    what: str
    detail: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class AskGate:
    """Ask a gate that is answered from outside; answer with `GateAnswer` of the same place.

    Attributes:
        rollout: its name.
        rollout_id: likewise in the answer.
        step: likewise.
        place: name of the gate in its step, `drift.external`.
        gate: what to ask.
        versions: arm name -> version number, for the query's blanks.
    """

    rollout: str
    rollout_id: str
    step: int
    place: str
    gate: ExternalGate | PrometheusGate
    versions: Mapping[str, int]


Effect: TypeAlias = Resolve | Publish | Retreat | Persist | Audit | Notify | AskGate
"""Of the decider."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Give the router this plan.

    Attributes:
        model: public name.
        plan: None: the rollout is over, the model's source decides.
        skip_first_s: `evidence_from_s` of the plan is to be so long from now.
    """

    model: str
    plan: RoutePlan | None
    skip_first_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Keep these versions loaded, by reason, and no others for this rollout: a whole set, not a change.

    It comes after the `Apply` that ends their use, before the one that begins it.
    """

    rollout: str
    versions: Mapping[str, frozenset[VersionId]]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the decider that this replica is ready for an epoch (`ReplicaAck`)."""

    replica: str
    epoch: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell the decider how things stand here (`ReplicaReport`).

    Attributes:
        replica: whose.
        boot_id: of its life.
        epoch: of the plan that it follows.
        ready: versions READY here.
        lowered: it follows the plan's retreat in place of the plan.
        harmed: rollout that it has found harmful by itself; empty: none.
        reason: why it is lowered.
    """

    replica: str
    boot_id: str
    epoch: int
    ready: frozenset[VersionId]
    lowered: bool
    harmed: str
    reason: str


ReplicaEffect: TypeAlias = Apply | Claim | Acknowledge | Report
"""Of a replica."""
