"""A small world around the pure cores: three gateways, a store with compare-and-set, faults on request.

Every gateway has a replica, and may have a decider that was elected and does not know that another was. Each
action is one thing that can happen; nothing happens by itself but what the code does in one go. Directives
travel by the store alone (`sync`), the weakest that a deployment gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from gateway.core.evidence import ArmCounts, Evidence, ShadowCounts
from gateway.core.rollout import (
    CANARY,
    STABLE,
    ApproveStep,
    Assignment,
    CrashesGate,
    FreezeWindow,
    HashSpec,
    PauseStep,
    Preparation,
    PromoteStep,
    Requirement,
    RolloutSpec,
    ShadowStep,
    Target,
    WeightStep,
)
from gateway.core.rollout_control import Verb
from gateway.core.types import VersionId
from gateway.rollouts import decider, effects, events, replica
from gateway.rollouts.documents import restore, to_document
from gateway.rollouts.phases import PREPARING, WITHDRAWING
from gateway.rollouts.state import RolloutState

if TYPE_CHECKING:
    from gateway.core.state import AuditEntry

Decide: TypeAlias = Callable[[RolloutState, Any], tuple[RolloutState, tuple[effects.Effect, ...]]]
Follow: TypeAlias = Callable[
    [replica.ReplicaState, Any], tuple[replica.ReplicaState, tuple[effects.ReplicaEffect, ...]]
]

NAMES = ("a", "b", "c")
V1, V2, V3 = (VersionId("m", n, f"d{n}") for n in (1, 2, 3))
MONDAY_S = 1_767_600_000.0 + 3600
"""Outside the freeze window of `spec`; FROZEN_S is inside."""
FROZEN_S = 1_780_315_200.0
LATER_S = 10.0
WITHDRAWN = frozenset({"aborting", "rolling_back"})
"""What the audit chain calls withdrawals."""


def spec(canary: int = 2, *, weights: tuple[int, ...] = (10_000, 500_000), **changes: Any) -> RolloutSpec:
    """Return shadow, weights, an approval and promotion; nothing takes time but loading and the window."""
    serving = tuple(WeightStep(w, 0.0, 1e6, ("safety",), Requirement.NO_HARM) for w in weights)
    values: dict[str, Any] = {
        "name": "line",
        "model": "m",
        "stable": Target("1"),
        "canary": Target(str(canary)),
        "assign": Assignment(HashSpec("salt")),
        "prepare": Preparation(load_timeout_s=LATER_S / 2),
        "steps": (*serving, ApproveStep(1), PromoteStep(LATER_S / 2, ("safety",))),
        "gates": {"safety": (CrashesGate(0),)},
        "author": "author",
        "freeze": (FreezeWindow("0 0 1 6 *", 86_400.0),) if changes.pop("freezes", False) else (),
    }
    return RolloutSpec(**(values | changes))


SHADOW = ShadowStep(PPM_QUARTER := 250_000, 0.0, 1e6, ("safety",), Requirement.NO_HARM)
PAUSE = PauseStep(None)


class Now(TypedDict):
    """The time, as every event of the decider has it."""

    now_s: float
    wall_s: float


@dataclass
class Node:
    """One gateway.

    Attributes:
        name: of it.
        boot: number of its life.
        replica: None: crashed.
        decider: None: never elected in this life.
        up: the store and the other gateways can be reached.
        writing: write of its decider on its way.
        counters: (rollout_id, step) -> canary requests, crashes in this life.
        seq: of its last report.
        audit: its audit chain, which outlives it.
        withdrew: rollouts that its own decider withdrew; outlives it by that chain.
    """

    name: str
    boot: int = 1
    replica: replica.ReplicaState | None = None
    decider: RolloutState | None = None
    up: bool = True
    writing: effects.Persist | None = None
    counters: tuple[tuple[str, int], int, int] = (("", 0), 0, 0)
    seq: int = 0
    audit: tuple[AuditEntry, ...] = ()
    withdrew: frozenset[str] = frozenset()

    @property
    def boot_id(self) -> str:
        return f"{self.name}{self.boot}"


@dataclass(frozen=True)
class Ledger:
    """What has happened, for checks that look further back than one action."""

    acks: frozenset[tuple[str, str, int]] = frozenset()
    """Replica, boot, epoch."""
    pinned: Mapping[str, tuple[Mapping[str, VersionId], ...]] = field(default_factory=dict)
    """rollout_id -> targets, as stored; there ought to be one."""
    directives: Mapping[tuple[int, str], tuple[effects.Directive, ...]] = field(default_factory=dict)
    """(epoch, turn) -> directives, as stored; there ought to be one."""
    buried: Mapping[str, int] = field(default_factory=dict)
    """base_id of stored tombstones -> retries asked for at that time."""
    retries: int = 0
    evidence: frozenset[tuple[str, int]] = frozenset()
    """(rollout_id, step) whose canary has answered something."""
    approved: frozenset[tuple[str, str, int, str]] = frozenset()
    """who, rollout_id, step, evidence hash of approvals asked for."""
    audited: frozenset[tuple[str, int]] = frozenset()
    """Gateway and serial of audit entries since it was elected."""


class World:
    """Three gateways and a store."""

    def __init__(
        self, decide: Decide = decider.step, follow: Follow = replica.step, *, by_json: bool = False
    ) -> None:
        self.decide, self.follow, self.by_json = decide, follow, by_json
        self.nodes = {name: Node(name) for name in NAMES}
        self.revision = 0
        self.stored: RolloutState | None = None
        self.now_s = 0.0
        self.wall_s = MONDAY_S
        self.ledger = Ledger()
        self.log: list[tuple[str, Any, RolloutState | None, RolloutState, tuple[effects.Effect, ...]]] = []
        self.wrong: list[str] = []
        for node in self.nodes.values():
            node.replica = replica.initial(node.name, node.boot_id, "line")

    def clone(self) -> World:
        """Return an independent copy; the log begins anew."""
        copy = object.__new__(World)
        copy.__dict__.update(self.__dict__)
        copy.nodes = {name: replace(node) for name, node in self.nodes.items()}
        copy.log, copy.wrong = [], []
        return copy

    # What can happen.

    def elect(self, name: str) -> None:
        """Make a gateway read the store and become the decider, whoever else thinks that they are."""
        node = self.nodes[name]
        state = RolloutState(name="line")
        if self.stored is not None:
            state = restore(to_document(self.stored)) if self.by_json else self.stored
        node.decider, node.writing = state, None
        others = frozenset(place for place in self.ledger.audited if place[0] != name)
        self.ledger = replace(self.ledger, audited=others)
        self._step(
            node,
            events.Restarted(
                clean=True,
                revision=self.revision,
                boot_id=node.boot_id,
                audited=node.audit,
                **self._at(),
            ),
        )
        for other in self._reachable(node):
            seen = events.ReplicaSeen(replica=other.name, boot_id=other.boot_id, **self._at())
            self._step(node, seen)
            self._report(node, other)

    def write(self, name: str, outcome: str) -> None:
        """Finish a write: `ok`, `lost` (not written), `unknown` (written, and the answer lost)."""
        node = self.nodes[name]
        wish, node.writing = node.writing, None
        assert wish is not None
        if outcome == "lost" or not node.up:
            self._step(node, events.StoreLost(ticket=wish.ticket, reason="lost", **self._at()))
            return
        if wish.revision != self.revision:
            self._step(node, events.StoreConflict(ticket=wish.ticket, **self._at()))
            return
        self.revision += 1
        self.stored = wish.state
        self._book(wish.state)
        if outcome == "unknown":
            self._step(node, events.StoreLost(ticket=wish.ticket, reason="unknown", **self._at()))
        else:
            self._step(node, events.StoreWritten(ticket=wish.ticket, revision=self.revision, **self._at()))

    def sync(self, name: str) -> None:
        """Let a replica read the store, and its decider's peers hear how it stands."""
        node = self.nodes[name]
        if self.stored is not None:
            found = [d for d in (self.stored.committed, self.stored.prepared) if d is not None]
            for directive in sorted(found, key=lambda d: d.epoch):
                self._follow(node, events.DirectiveSeen(directive))

    def stale(self, name: str) -> None:
        """Let the oldest directive that was ever stored reach a replica once more."""
        oldest = min(self.ledger.directives)
        self._follow(self.nodes[name], events.DirectiveSeen(self.ledger.directives[oldest][0]))

    def ready(self, name: str) -> None:
        """Let a replica load all that it claims."""
        node = self.nodes[name]
        assert node.replica is not None
        for version in sorted(set().union(*node.replica.claimed.values()) - node.replica.ready):
            self._follow(node, events.VersionReady(version))

    def lose(self, name: str, version: VersionId) -> None:
        """Lose a version."""
        self._follow(self.nodes[name], events.VersionLost(version, "crashed"))

    def partition(self, name: str) -> None:
        """Cut a gateway off."""
        node = self.nodes[name]
        node.up = False
        self._follow(node, events.Connection("down"))
        for other in self._deciders(but=node):
            self._step(other, events.ReplicaLost(replica=name, **self._at()))

    def heal(self, name: str) -> None:
        """Connect it again: it reads the store, then counts as connected."""
        node = self.nodes[name]
        node.up = True
        self.sync(name)
        self._follow(node, events.Connection("up"))
        for other in self._deciders():
            for seen in self._reachable(other) if other is node else [node]:
                self._step(other, events.ReplicaSeen(replica=seen.name, boot_id=seen.boot_id, **self._at()))
                self._report(other, seen)

    def crash(self, name: str, *, clean: bool = False) -> None:
        """End a gateway, killed or in order; another life of it begins at once, knowing nothing."""
        node = self.nodes[name]
        fresh = Node(name, boot=node.boot + 1, up=node.up, audit=node.audit, withdrew=node.withdrew)
        fresh.replica = replica.initial(name, fresh.boot_id, "line")
        for entry in (entry for entry in node.audit if entry.what in WITHDRAWN):
            harm = events.Harm(entry.rollout_id, str(entry.detail["reason"]))
            fresh.replica, _ = self.follow(fresh.replica, harm)
        self.nodes[name] = fresh
        if not fresh.up:
            fresh.replica, _ = self.follow(fresh.replica, events.Connection("down"))
            return
        for other in self._deciders():
            seen = events.ReplicaSeen(replica=name, boot_id=fresh.boot_id, clean=clean, **self._at())
            self._step(other, seen)

    def traffic(self, name: str, *, crashes: int = 0) -> None:
        """Let the canary of a replica answer ten requests, and crash."""
        node = self.nodes[name]
        assert node.replica is not None
        plan = node.replica.plan
        if plan is None or not plan.rollout_id:
            return
        key = (plan.rollout_id, plan.step)
        before = node.counters if node.counters[0] == key else (key, 0, 0)
        node.counters = (key, min(before[1] + 10, 20), before[2] + crashes)
        node.seq += 1
        self.ledger = replace(self.ledger, evidence=self.ledger.evidence | {key})
        for other in self._deciders():
            if (node.up and other.up) or other is node:
                self._step(other, events.EvidenceReport(evidence=_evidence(node), **self._at()))

    def tell(self, event: Callable[..., events.Event], /, **fields: Any) -> None:
        """Give every decider that can be reached an event."""
        for node in self._deciders():
            self._step(node, event(**fields, **self._at()))

    def operate(self, verb: Verb, who: str = "user:op", *, on: str = "") -> None:
        """Let an operator ask for something; approvals are about the evidence shown."""
        for node in self._deciders():
            assert node.decider is not None
            s, seen = node.decider, on or node.decider.approval_hash
            if verb is Verb.APPROVE:
                given = {(who, s.rollout_id, s.step, seen)}
                self.ledger = replace(self.ledger, approved=self.ledger.approved | given)
            if verb is Verb.RETRY:
                self.ledger = replace(self.ledger, retries=self.ledger.retries + 1)
            self._step(node, events.Operator(verb=verb, who=who, evidence_hash=seen, **self._at()))

    def _book(self, state: RolloutState) -> None:
        ledger = self.ledger
        directives, pinned = dict(ledger.directives), dict(ledger.pinned)
        for one in (state.committed, state.prepared):
            if one is not None and one not in (known := directives.get((one.epoch, one.turn.value), ())):
                directives[one.epoch, one.turn.value] = (*known, one)
        if state.rollout_id and state.targets:
            known_targets = pinned.get(state.rollout_id, ())
            if state.targets not in known_targets:
                pinned[state.rollout_id] = (*known_targets, state.targets)
        buried = {
            base: n for base, n in ledger.buried.items() if base in state.tombstones or ledger.retries <= n
        }
        for base in state.tombstones:
            buried.setdefault(base, ledger.retries)
        self.ledger = replace(ledger, directives=directives, pinned=pinned, buried=buried)

    # How it spreads.

    def _at(self) -> Now:
        return {"now_s": self.now_s, "wall_s": self.wall_s}

    def _deciders(self, but: Node | None = None) -> Iterator[Node]:
        for name in NAMES:
            node = self.nodes[name]
            if node is not but and node.up and node.decider is not None and node.decider.store.leading:
                yield node

    def _reachable(self, node: Node) -> Iterator[Node]:
        for other in self.nodes.values():
            if other is node or (node.up and other.up):
                yield other

    def _step(self, node: Node, event: Any) -> None:
        before = node.decider
        assert before is not None
        after, wishes = self.decide(before, event)
        node.decider = after
        self.log.append((node.name, event, before, after, wishes))
        for wish in wishes:
            if isinstance(wish, effects.Persist):
                node.writing = wish
            elif isinstance(wish, effects.Retreat):
                self._follow(node, events.Harm(wish.rollout_id, wish.reason, wish.epoch))
            elif isinstance(wish, effects.Audit):
                self._audit(node, wish.entry)
        if before.phase not in PREPARING and any(isinstance(wish, effects.Retreat) for wish in wishes):
            assert node.replica is not None
            if after.phase in WITHDRAWING:
                node.withdrew |= {after.rollout_id}
            if share := replica.canary_ppm(node.replica.plan, node.replica.wanted):
                self.wrong.append(f"I8 {node.name} withdrew and gives the canary {share} ppm all the same")

    def _audit(self, node: Node, entry: AuditEntry) -> None:
        place = (node.name, entry.detail["serial"])
        if place in self.ledger.audited:
            self.wrong.append(f"I18 entry {place} is in the audit chain twice")
        self.ledger = replace(self.ledger, audited=self.ledger.audited | {place})
        node.audit = (*node.audit, entry)

    def _follow(self, node: Node, event: Any) -> None:
        assert node.replica is not None
        node.replica, wishes = self.follow(node.replica, event)
        self.log.append((node.name, event, None, RolloutState(name=""), wishes))  # type: ignore[arg-type]
        for wish in wishes:
            if isinstance(wish, effects.Acknowledge):
                acks = self.ledger.acks | {(node.name, node.boot_id, wish.epoch)}
                self.ledger = replace(self.ledger, acks=acks)
        for other in list(self._deciders()):
            if other is not node and not (node.up and other.up):
                continue
            for wish in wishes:
                if isinstance(wish, effects.Acknowledge):
                    ack = events.ReplicaAck(
                        replica=node.name, epoch=wish.epoch, boot_id=wish.boot_id, **self._at()
                    )
                    self._step(other, ack)
            if any(isinstance(wish, effects.Report) for wish in wishes):
                self._report(other, node)

    def _report(self, to: Node, about: Node) -> None:
        assert about.replica is not None
        said = replica.report(about.replica)
        self._step(
            to,
            events.ReplicaReport(
                replica=said.replica,
                boot_id=said.boot_id,
                ready=said.ready,
                epoch=said.epoch,
                lowered=said.lowered,
                harmed=said.harmed,
                reason=said.reason,
                **self._at(),
            ),
        )


def _evidence(node: Node) -> Evidence:
    (rollout_id, step), requests, crashes = node.counters
    assert node.replica is not None
    plan = node.replica.plan
    is_shadow = plan is not None and any(s.spec.name == CANARY for s in plan.shadows)
    arm = CANARY if plan is not None and len(plan.arms) > 1 else STABLE
    counts = ArmCounts(requests=requests, units=requests, requests_all=requests, crashes=crashes)
    shadow = {CANARY: ShadowCounts(mirrored=requests, compared=requests)} if is_shadow else {}
    arms = (
        {STABLE: ArmCounts(requests=requests), CANARY: ArmCounts(crashes=crashes)}
        if is_shadow
        else {arm: counts}
    )
    return Evidence(
        rollout_id=rollout_id,
        step=step,
        replica=node.name,
        boot_id=node.boot_id,
        seq=node.seq,
        arms=arms,
        shadows=shadow,
    )
