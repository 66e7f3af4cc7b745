"""A whole rollout in virtual time: the very decider and replica, over a store that always answers.

Everything that a gateway's shell would bring is made up here: the clock, a replica that loads without a
delay, requests drawn at random, people who approve when they are said to. What is decided is decided by
`decider.step` and `replica.step` alone.

Evidence is brought every second of virtual time while anything is new, and more seldom the longer nothing
is: after a fiftieth of the time gone by since, and after `LONGEST_STRIDE_S` at the latest. The requests are
the same and what is due at a known time is met to the second, but the gates compare larger windows: a single
verdict may come somewhat later or earlier than one by every second's evidence, on average it
hardly does.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.core.rollout import CANARY, PPM, ApproveStep, PrometheusGate, PromoteStep
from gateway.core.rollout_control import Verb
from gateway.core.types import VersionId
from gateway.rollouts import decider, effects, events, replica
from gateway.rollouts.decider_evidence import WATCHED
from gateway.rollouts.gates import step_gates
from gateway.rollouts.phases import RESTING, Phase
from gateway.rollouts.simulation_course import Course, Ending, Moment, Stage
from gateway.rollouts.simulation_schedule import Schedule
from gateway.rollouts.simulation_traffic import Seen, Traffic
from gateway.rollouts.state import RolloutState

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.evidence import RoutePlan
    from gateway.core.rollout import Gate, RolloutSpec
    from gateway.rollouts.simulation_course import Scenario

    Decide: TypeAlias = Callable[[RolloutState, Any], tuple[RolloutState, tuple[effects.Effect, ...]]]
    Follow: TypeAlias = Callable[
        [replica.ReplicaState, Any], tuple[replica.ReplicaState, tuple[effects.ReplicaEffect, ...]]
    ]

LONGEST_STRIDE_S: Final = 60
RELOAD_S: Final = 10
"""From a crash of the canary to its being READY again."""
_REPLICA: Final = "simulated"
_GROWTH: Final = 50
_ENDINGS: Final = {
    Phase.PROMOTED: Ending.PROMOTED,
    Phase.ABORTED: Ending.WITHDRAWN,
    Phase.ROLLED_BACK: Ending.WITHDRAWN,
}


def simulate(spec: RolloutSpec, scenario: Scenario, **parts: Any) -> Course:
    """Return what becomes of a rollout; `parts` as `Simulation`."""
    return Simulation(spec, scenario, **parts).run()


class Simulation:
    """One rollout under one scenario.

    Args:
        spec: the rollout.
        scenario: what happens to it.
        stride_s: seconds between two reports of evidence; None: as the module says.
        decide: the decider.
        follow: the replica.
    """

    def __init__(
        self,
        spec: RolloutSpec,
        scenario: Scenario,
        *,
        stride_s: int | None = None,
        decide: Decide = decider.step,
        follow: Follow = replica.step,
    ) -> None:
        self._spec, self._scenario = spec, scenario
        self._schedule = Schedule(spec, scenario)
        self._stride_s, self._decide, self._follow = stride_s, decide, follow
        self._state = RolloutState(name=spec.name)
        self._replica = replica.initial(_REPLICA, _REPLICA, spec.name)
        self._traffic = Traffic(scenario.rates, scenario.seed, fallback_stable=spec.assign.fallback_stable)
        self._queue: deque[events.Event | events.ReplicaEvent] = deque()
        self._now_s = 0
        self._plan: RoutePlan | None = None
        self._measured_from_s = 0.0
        self._news_s = 0
        self._revision = 0
        self._reload_at_s: int | None = None
        self._told = scenario.external
        self._acted_at: tuple[int, float] | None = None
        self._looks = 0
        self._promoted_s: float | None = None
        self._moments: list[Moment] = []
        self._stages: list[Stage] = []
        self._entered: tuple[int, float, Seen] = (0, 0.0, Seen())
        self._asked = [step_gates(spec, index).asked for index in range(len(spec.steps))]

    def run(self) -> Course:
        """Return what becomes of it."""
        at = self._at()
        self._feed(
            events.Restarted(clean=True, revision=0, boot_id=_REPLICA, **at),
            events.ReplicaSeen(replica=_REPLICA, boot_id=_REPLICA, **at),
            events.SpecSeen(
                spec=self._spec, file_hash="simulated", author=self._spec.author or "author", **at
            ),
        )
        while (ending := _ENDINGS.get(self._state.phase)) is None:
            wait = self._schedule.waiting(self._state, self._now_s)
            if wait is not None and (wait.for_good or self._idle_s() >= self._scenario.patience_s):
                return self._course(Ending.HELD, wait.reason, wait.advice)
            if self._now_s >= self._schedule.limit_s:
                return self._course(
                    Ending.HELD, f"nothing is decided: {self._state.reason}", "give it more traffic"
                )
            self._advance()
        return self._course(ending, self._state.reason, "")

    def _idle_s(self) -> float:
        return self._now_s - max(self._state.entered_s, self._news_s)

    def _advance(self) -> None:
        """Go on to the next moment that matters."""
        seconds = self._stride()
        if self._plan is not None:
            measured = self._now_s >= self._measured_from_s
            self._traffic.flow(self._plan, seconds, measured=measured)
        self._now_s += seconds
        self._tell_gates()
        evidence = self._traffic.evidence(_REPLICA, _REPLICA)
        if evidence is not None:
            self._looks += 1
            self._feed(events.EvidenceReport(evidence=evidence, **self._at()))
        self._feed(events.Tick(**self._at()))
        self._happen()

    def _stride(self) -> int:
        state, now_s = self._state, self._now_s
        known = [self._measured_from_s, self._reload_at_s or 0.0]
        nearest = self._schedule.next_due(state, now_s)
        known_s = min((t - now_s for t in (*known, nearest) if t > now_s), default=math.inf)
        if self._stride_s is not None:
            stride: float = self._stride_s
        elif state.phase in RESTING:
            stride = known_s if known_s < math.inf else 1
        else:
            quiet_s = now_s - max(state.entered_s, self._news_s)
            stride = min(max(quiet_s // _GROWTH, 1), LONGEST_STRIDE_S)
        return max(math.ceil(min(stride, known_s)), 1)

    def _happen(self) -> None:
        """Let happen from outside what is due now."""
        state, scenario, at = self._state, self._scenario, self._at()
        canary = state.targets.get(CANARY)
        if self._now_s in scenario.crash_at_s and canary not in self._replica.ready:
            self._note("no canary is READY that could crash")
        elif self._now_s in scenario.crash_at_s and canary is not None:
            self._note("the canary crashes")
            self._traffic.crash()
            self._reload_at_s = self._now_s + RELOAD_S
            self._feed(events.VersionLost(canary, "crashed"))
        if self._now_s == self._reload_at_s and canary is not None:
            self._feed(events.VersionReady(canary))
        for at_s, verdict in scenario.external_at:
            if at_s == self._now_s:
                self._note(f"gates that ask outside are told {verdict} from now on")
                self._told = verdict
                self._tell_gates()
        state = self._state
        word = self._schedule.due(state, self._now_s)
        if word is None or self._acted_at == (state.step, state.entered_s):
            return
        self._acted_at = state.step, state.entered_s
        step = self._spec.steps[state.step]
        if isinstance(step, ApproveStep):
            for number in range(1, step.count + 1):
                self._note(f"approved by person-{number}")
                self._feed(
                    events.Operator(
                        verb=Verb.APPROVE,
                        who=f"user:person-{number}",
                        roles=step.roles,
                        evidence_hash=state.approval_hash,
                        **at,
                    )
                )
        else:
            self._note("resumed")
            self._feed(events.Operator(verb=word, who="user:operator", **at))

    def _tell_gates(self) -> None:
        """Bring the last of the answers that came meanwhile, to every gate that asks outside."""
        state = self._state
        for asked in self._asked[state.serving] if state.gates is not None else ():
            self._feed(self._answer(asked.name, asked.gate))

    def _note(self, what: str) -> None:
        self._news_s = self._now_s
        self._moments.append(Moment(at_s=float(self._now_s), phase=None, step=self._state.step, what=what))

    def _at(self) -> dict[str, Any]:
        return {"now_s": float(self._now_s), "wall_s": self._scenario.start_wall_s + self._now_s}

    def _feed(self, *incoming: events.Event | events.ReplicaEvent) -> None:
        """Handle events, and whatever they lead to at once."""
        self._queue.extend(incoming)
        while self._queue:
            event = self._queue.popleft()
            if isinstance(event, events.Timed):
                before = self._state
                self._state, wishes = self._decide(before, event)
                self._book(before)
                for wish in wishes:
                    self._carry_out(wish)
            else:
                self._replica, orders = self._follow(self._replica, event)
                for order in orders:
                    self._obey(order)

    def _carry_out(self, wish: effects.Effect) -> None:
        match wish:
            case effects.Resolve():
                texts = {arm: t.text if t else "" for arm, t in wish.targets.items()}
                numbers = {text: number for number, text in enumerate(dict.fromkeys(texts.values()), 1)}
                found = {arm: VersionId(wish.model, numbers[t], f"digest {t}") for arm, t in texts.items()}
                self._traffic.canary = found.get(CANARY)
                self._queue.append(events.Resolved(targets=found, **self._at()))
            case effects.Publish(directive):
                self._queue.append(events.DirectiveSeen(directive))
            case effects.Retreat():
                self._queue.append(events.Harm(wish.rollout_id, wish.reason, wish.epoch))
            case effects.Persist():
                self._revision += 1
                written = events.StoreWritten(ticket=wish.ticket, revision=self._revision, **self._at())
                self._queue.append(written)
            case effects.AskGate():
                self._queue.append(self._answer(wish.place, wish.gate))
            case effects.Audit() | effects.Notify():
                pass

    def _obey(self, order: effects.ReplicaEffect) -> None:
        match order:
            case effects.Apply():
                self._plan = order.plan
                self._measured_from_s = self._now_s + order.skip_first_s
                if order.plan is not None:
                    self._traffic.begin(order.plan)
            case effects.Claim():
                claimed = frozenset(v for versions in order.versions.values() for v in versions)
                crashed = {self._traffic.canary} if (self._reload_at_s or 0) > self._now_s else set()
                loaded = sorted(claimed - self._replica.ready - crashed)
                self._queue.extend(events.VersionReady(version) for version in loaded)
            case effects.Acknowledge():
                ack = events.ReplicaAck(
                    replica=order.replica, epoch=order.epoch, boot_id=order.boot_id, **self._at()
                )
                self._queue.append(ack)
            case effects.Report():
                self._queue.append(
                    events.ReplicaReport(
                        replica=order.replica,
                        boot_id=order.boot_id,
                        ready=order.ready,
                        epoch=order.epoch,
                        lowered=order.lowered,
                        harmed=order.harmed,
                        reason=order.reason,
                        **self._at(),
                    )
                )

    def _answer(self, place: str, gate: Gate) -> events.GateAnswer:
        """Return what is told: to a Prometheus gate a number within its bounds, beyond them, or none."""
        state = self._state
        answer = events.GateAnswer(
            rollout_id=state.rollout_id, step=state.serving, place=place, reason="simulated", **self._at()
        )
        if not isinstance(gate, PrometheusGate):
            return replace(answer, verdict=self._told)
        low, high = gate.min_value, gate.max_value
        within = high if high is not None else low
        beyond = math.nextafter(high, math.inf) if high is not None else math.nextafter(low or 0.0, -math.inf)
        return replace(answer, value={"pass": within, "fail": beyond}.get(self._told))

    def _book(self, before: RolloutState) -> None:
        """Take down a transition, and the step that it ends."""
        state = self._state
        known = before.history[-1].serial if before.history else 0
        for move in state.history:
            if move.serial > known:
                self._moments.append(
                    Moment(at_s=float(self._now_s), phase=move.phase, step=state.step, what=move.reason)
                )
                if move.phase is Phase.ROLLBACK_WINDOW:
                    self._promoted_s = float(self._now_s)
        was_in, is_in = before.phase in WATCHED, state.phase in WATCHED
        key, now_key = (before.step, before.rollout_id), (state.step, state.rollout_id)
        if was_in and (not is_in or key != now_key):
            self._stages.append(self._stage(before))
        if is_in and (not was_in or key != now_key):
            self._entered = (state.step, float(self._now_s), replace(self._traffic.seen))

    def _stage(self, before: RolloutState) -> Stage:
        state = self._state
        is_same = (state.rollout_id, state.serving) == (before.rollout_id, before.serving)
        verdict = state.verdict if is_same and state.verdict is not None else before.verdict
        index, began_s, seen = self._entered
        return Stage(
            index=index,
            weight_ppm=PPM if isinstance(self._spec.steps[index], PromoteStep) else before.weight_ppm,
            began_s=began_s,
            ended_s=float(self._now_s),
            served_s=before.served_s,
            phase=state.phase,
            reason=state.reason,
            seen=self._traffic.seen - seen,
            gates=tuple(verdict.document()) if verdict is not None else (),
        )

    def _course(self, ending: Ending, reason: str, advice: str) -> Course:
        if self._state.phase in WATCHED:
            self._stages.append(self._stage(self._state))
        return Course(
            ending=ending,
            phase=self._state.phase,
            reason=reason,
            advice=advice,
            ended_s=float(self._now_s),
            promoted_s=self._promoted_s,
            seen=replace(self._traffic.seen),
            stages=tuple(self._stages),
            moments=tuple(self._moments),
            looks=self._looks,
        )
