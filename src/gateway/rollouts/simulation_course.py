"""What is assumed of a simulated rollout, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.rollouts.phases import Phase
    from gateway.rollouts.simulation_traffic import Rates, Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to a rollout.

    Attributes:
        rates: of its requests.
        seed: of the traffic's random numbers.
        start_wall_s: when it begins, seconds since the epoch; freeze windows go by it.
        crash_at_s: when the canary crashes, in seconds since the beginning.
        approve_after_s: as many people as a step wants approve so long after it has begun to wait; None:
            nobody ever does.
        resume_after_s: a pause that waits for a word gets it so long after it has begun; None: never.
        external: what gates that ask outside are told in the beginning: `pass`, `fail`, `hold` or `no_data`.
        external_at: what they are told from these seconds on; ascending.
        patience_s: it is given up as held after so long in which nothing went on and nothing is to come.
    """

    rates: Rates
    seed: int = 1
    start_wall_s: float = 0.0
    crash_at_s: tuple[int, ...] = ()
    approve_after_s: float | None = None
    resume_after_s: float | None = None
    external: str = "pass"
    external_at: tuple[tuple[int, str], ...] = ()
    patience_s: float = 3600.0


class Ending(enum.Enum):
    """What became of a simulated rollout."""

    PROMOTED = "promoted"
    """The canary has everything, and the rollback window is over."""
    WITHDRAWN = "withdrawn"
    """Aborted, or rolled back in the rollback window."""
    HELD = "held"
    """It waits for people, or for evidence that does not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step gone through. Times are seconds since the beginning.

    Attributes:
        index: of the step.
        weight_ppm: the canary's share.
        began_s: when it was entered.
        ended_s: when it was left, or the simulation ended.
        served_s: time in it with evidence arriving.
        phase: that it was left for; the present one where it was not left.
        reason: of that.
        seen: by users and by the canary, in this step alone.
        gates: verdicts at its end, as in a rollout's status.
    """

    index: int
    weight_ppm: int
    began_s: float
    ended_s: float
    served_s: float
    phase: Phase
    reason: str
    seen: Seen
    gates: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One transition, or what was done to the rollout from outside; `phase` is None for the latter."""

    at_s: float
    phase: Phase | None
    step: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A rollout from its beginning to its end.

    Attributes:
        ending: what became of it.
        phase: the last.
        reason: why it ended so.
        advice: what would let it go on; empty where nothing has to.
        ended_s: seconds from the beginning.
        promoted_s: when the canary was given everything; None: never.
        seen: of the canary, altogether.
        stages: the steps, in order; a step that is begun anew is there again.
        moments: in order.
        looks: how often the controller was given evidence.
    """

    ending: Ending
    phase: Phase
    reason: str
    advice: str
    ended_s: float
    promoted_s: float | None
    seen: Seen
    stages: tuple[Stage, ...]
    moments: tuple[Moment, ...]
    looks: int
