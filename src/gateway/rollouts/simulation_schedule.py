"""What a simulated rollout waits for, and when something is to happen to it: seconds since its beginning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.rollout import ApproveStep, PauseStep, PromoteStep, ShadowStep, WeightStep
from gateway.core.rollout_control import Verb
from gateway.rollouts.freeze import frozen_until, next_freeze
from gateway.rollouts.phases import STEPPING, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.rollout import RolloutSpec, Step
    from gateway.rollouts.simulation_course import Scenario
    from gateway.rollouts.state import RolloutState

_SPARE_S: Final = 3 * 86_400.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a rollout does not go on.

    Attributes:
        reason: in words.
        advice: what would let it go on.
        for_good: nothing that is yet to happen, evidence included, could change it.
    """

    reason: str
    advice: str
    for_good: bool = False


class Schedule:
    """What is known in advance of one rollout under one scenario."""

    def __init__(self, spec: RolloutSpec, scenario: Scenario) -> None:
        self._spec, self._scenario = spec, scenario
        outside = (*scenario.crash_at_s, *(at_s for at_s, _ in scenario.external_at))
        self._outside = tuple(sorted(float(at_s) for at_s in outside))
        self._freeze: tuple[float, float] | None = None
        self._freeze_known_to_s = -1.0

    def waiting(self, state: RolloutState, now_s: float) -> Wait | None:
        """Return what a rollout waits for that is not to come; None while it may go on by itself."""
        word_s = self._word_at_s(state)
        if (self._outside and self._outside[-1] > now_s) or (word_s is not None and word_s > now_s):
            return None
        has_begun = state.phase is not Phase.IDLE
        if self._spec.paused:
            return Wait("the file says `paused: true`", "take it out of the file", for_good=not has_begun)
        if self._spec.freeze:
            frozen_to = frozen_until(self._spec.freeze, self._scenario.start_wall_s + now_s)
            if frozen_to is not None:
                never = Wait("a freeze window can not be read", "look at its cron and tz", for_good=True)
                return never if math.isinf(frozen_to) else None
        if not has_begun:
            return Wait(state.reason, "name another version as the canary", for_good=True)
        return self._stuck(state) if state.phase in STEPPING else None

    def due(self, state: RolloutState, now_s: float) -> Verb | None:
        """Return what people are to say now."""
        at_s = self._word_at_s(state)
        if at_s is None or now_s < at_s:
            return None
        return Verb.APPROVE if state.phase is Phase.AWAITING_APPROVAL else Verb.RESUME

    def next_due(self, state: RolloutState, now_s: float) -> float:
        """Return when the next thing known happens or is over; infinite: nothing is."""
        return min((at_s for at_s in self._known(state, now_s) if at_s > now_s), default=math.inf)

    @property
    def limit_s(self) -> float:
        """When a rollout that is neither held nor at an end is given up."""
        total = _SPARE_S + (self._outside[-1] if self._outside else 0.0)
        for step in self._spec.steps:
            match step:
                case ShadowStep() | WeightStep():
                    total += 2 * step.max_bake_s
                case PauseStep():
                    resumed_s = self._scenario.resume_after_s or 0.0
                    total += step.duration_s if step.duration_s is not None else resumed_s
                case ApproveStep():
                    total += self._scenario.approve_after_s or 0.0
                case PromoteStep():
                    total += step.keep_stable_warm_s
        return 2 * total + 4 * sum(window.for_s for window in self._spec.freeze)

    def _stuck(self, state: RolloutState) -> Wait | None:
        scenario, step = self._scenario, self._step(state)
        if state.phase is Phase.AWAITING_APPROVAL:
            if scenario.approve_after_s is None:
                return Wait("it waits for approval for ever", "give --approve-after, as long as people take")
            return Wait("the approvals do not count", "look at the step's count, roles and expires")
        if state.phase is Phase.PAUSED_STEP and isinstance(step, PauseStep) and step.duration_s is None:
            return Wait("it waits to be resumed for ever", "give --resume-after, as long as people take")
        if state.phase is not Phase.HOLDING:
            return None
        if state.inconclusive:
            return Wait(state.reason, "an operator has to promote or abort it, or the file needs other gates")
        return Wait(state.reason, "see to what holds it")

    def _known(self, state: RolloutState, now_s: float) -> Iterator[float]:
        yield from self._outside
        if (word_s := self._word_at_s(state)) is not None:
            yield word_s
        if self._spec.freeze:
            yield from self._freezes(now_s)
        step = self._step(state)
        if isinstance(step, ShadowStep | WeightStep) and state.phase is Phase.BAKING:
            yield from (now_s + bake_s - state.served_s for bake_s in (step.min_bake_s, step.max_bake_s))
        elif isinstance(step, PauseStep) and step.duration_s is not None:
            yield now_s + step.duration_s - state.elapsed_s
        elif isinstance(step, PromoteStep):
            yield now_s + step.keep_stable_warm_s - state.elapsed_s

    def _freezes(self, now_s: float) -> Iterator[float]:
        start_s = self._scenario.start_wall_s
        frozen_to = frozen_until(self._spec.freeze, start_s + now_s)
        if frozen_to is not None:
            yield frozen_to - start_s
        if now_s >= self._freeze_known_to_s:
            self._freeze = next_freeze(self._spec.freeze, start_s + now_s)
            ahead_s = math.inf if self._freeze is None else self._freeze[0] - start_s
            self._freeze_known_to_s = ahead_s
        if self._freeze is not None:
            yield self._freeze[0] - start_s

    def _word_at_s(self, state: RolloutState) -> float | None:
        step = self._step(state)
        if state.phase is Phase.AWAITING_APPROVAL and isinstance(step, ApproveStep):
            after_s = self._scenario.approve_after_s
        elif state.phase is Phase.PAUSED_STEP and isinstance(step, PauseStep) and step.duration_s is None:
            after_s = self._scenario.resume_after_s
        else:
            return None
        return None if after_s is None else float(math.ceil(state.entered_s + after_s))

    def _step(self, state: RolloutState) -> Step | None:
        in_step = state.phase in STEPPING or state.phase is Phase.ROLLBACK_WINDOW
        return self._spec.steps[state.step] if in_step else None
