"""One step of the decider under way: the state as it becomes, and what to ask of the world."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gateway.core.state import AuditEntry
from gateway.rollouts.effects import Notify, Publish
from gateway.rollouts.freeze import frozen_until
from gateway.rollouts.identity import evidence_hash
from gateway.rollouts.phases import TRANSITIONS, Phase
from gateway.rollouts.state import HISTORY, Move

if TYPE_CHECKING:
    from gateway.core.rollout import RolloutSpec, Step
    from gateway.rollouts.effects import Directive, Effect
    from gateway.rollouts.events import Timed
    from gateway.rollouts.state import RolloutState

CONTROLLER: Final = "controller"


class Work:
    """Mutable inside one call of `decider.step`, and seen nowhere else.

    Attributes:
        state: as it becomes.
        effects: that need not wait for the store.
        now_s: monotonic.
        wall_s: since the epoch.
    """

    def __init__(self, state: RolloutState, event: Timed) -> None:
        self.now_s = event.now_s
        self.wall_s = event.wall_s
        self.effects: list[Effect] = []
        self.state = replace(state, ignored="")
        self.look_at_windows()

    @property
    def spec(self) -> RolloutSpec:
        """The specification in force; only where a phase implies that there is one."""
        assert self.state.spec is not None
        return self.state.spec

    @property
    def blocked(self) -> str:
        """Why nothing may start or advance; empty when it may."""
        if self.state.paused:
            return "paused by an operator"
        if self.state.spec is not None and self.state.spec.paused:
            return "paused by the file"
        return "frozen" if self.state.frozen else ""

    def look_at_windows(self) -> None:
        """Find out whether a freeze window of the specification in force is open."""
        windows = self.state.spec.freeze if self.state.spec is not None else ()
        frozen = frozen_until(windows, self.wall_s) is not None
        if frozen != self.state.frozen:
            self.state = replace(self.state, frozen=frozen)

    def step_at(self, index: int) -> Step | None:
        """Return a step; None beyond the last, or before the first."""
        return self.spec.steps[index] if 0 <= index < len(self.spec.steps) else None

    def set(self, **changes: Any) -> None:
        """Replace fields of the state; they are stored at the next interval."""
        if not self.state.store.dirty:
            changes["store"] = replace(self.state.store, dirty=True)
        self.state = replace(self.state, **changes)

    def emit(self, effect: Effect) -> None:
        """Ask for something now."""
        self.effects.append(effect)

    def publish(self, directive: Directive) -> None:
        """Tell the replicas once the store has the state."""
        self._hold(Publish(directive))

    def ignore(self, reason: str) -> None:
        """Record why an event has no effect."""
        self.state = replace(self.state, ignored=reason)

    def move(self, phase: Phase, reason: str, who: str = CONTROLLER, serial: int | None = None) -> None:
        """Change the phase: one audit record, which is there already if it has a number, one notice."""
        before = self.state.phase
        if phase not in TRANSITIONS[before]:
            self.ignore(f"no way from {before.value} to {phase.value}: {reason}")
            return
        detail = {"from": before.value, "to": phase.value, "reason": reason}
        if serial is None:
            serial = self.record("transition", phase.value, who, detail)
        moved = Move(
            serial=serial,
            source=before,
            phase=phase,
            step=self.state.step,
            reason=reason,
            who=who,
            wall_s=self.wall_s,
        )
        self.set(
            phase=phase,
            reason=reason,
            since_wall_s=self.wall_s,
            entered_s=self.now_s,
            history=(*self.state.history, moved)[-HISTORY:],
        )
        notice = {"reason": reason, "rollout_id": self.state.rollout_id}
        self._hold(Notify(self.state.name, phase.value, notice))

    def record(self, kind: str, what: str, who: str, detail: dict[str, Any]) -> int:
        """Add an audit entry; return its serial number."""
        s = self.state
        serial = s.serial + 1
        place = {"serial": serial, "at": self.wall_s, "step": s.step, "epoch": s.epoch}
        entry = AuditEntry(
            kind=kind,
            what=what,
            who=who,
            rollout=s.name,
            rollout_id=s.rollout_id,
            evidence_hash=self.evidence_hash() if s.serving >= 0 else "",
            config_hash=s.file.active_hash,
            detail={**place, "weight_ppm": s.weight_ppm, **detail},
        )
        self.set(serial=serial, outbox=(*s.outbox, entry))
        self.urgent()
        return serial

    def evidence_hash(self) -> str:
        """Return the hash of the evidence as it is now."""
        return evidence_hash(self.state.rollout_id, self.state.serving, self.state.totals, self.state.verdict)

    def urgent(self) -> None:
        """Store at the end of this step."""
        self._store(dirty=True, urgent=True)

    def _hold(self, effect: Effect) -> None:
        self._store(with_next=(*self.state.store.with_next, effect))
        self.urgent()

    def _store(self, **changes: Any) -> None:
        self.state = replace(self.state, store=replace(self.state.store, **changes))

    def store(self, **changes: Any) -> None:
        """Replace fields of the relation to the store."""
        self._store(**changes)
