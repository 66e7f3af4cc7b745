"""The same rollout many times over, each time with other random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.rollouts.simulation import simulate
from gateway.rollouts.simulation_course import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.core.rollout import RolloutSpec
    from gateway.rollouts.simulation_course import Course, Scenario


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ninetieth hundredth of some values; as many as there are reach either."""

    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The runs that ended alike.

    Attributes:
        runs: how many.
        share: of all.
        seconds: until the canary was withdrawn or given everything, or the rollout given up as held.
        requests: assigned to the canary until the end.
        users_errors: of those, failed for the user.
        reasons: why -> how many, the most frequent first; numbers are left out of the reasons.
    """

    runs: int
    share: float
    seconds: Spread
    requests: Spread
    users_errors: Spread
    reasons: Mapping[str, int]


def courses(spec: RolloutSpec, scenario: Scenario, runs: int) -> Iterator[Course]:
    """Yield so many courses, in order: with the scenario's seed, the next one, and so on."""
    for number in range(runs):
        yield simulate(spec, replace(scenario, seed=scenario.seed + number))


def summary(found: Sequence[Course]) -> dict[Ending, Share]:
    """Return the shares of the endings that there were."""
    return {
        ending: _share([course for course in found if course.ending is ending], len(found))
        for ending in Ending
        if any(course.ending is ending for course in found)
    }


def _share(alike: list[Course], of: int) -> Share:
    reasons: dict[str, int] = {}
    for course in alike:
        gate, _, _ = course.reason.partition(": ")
        reasons[gate] = reasons.get(gate, 0) + 1
    return Share(
        runs=len(alike),
        share=len(alike) / of,
        seconds=_spread([decided_s(course) for course in alike]),
        requests=_spread([course.seen.requests for course in alike]),
        users_errors=_spread([course.seen.users_errors for course in alike]),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
    )


def decided_s(course: Course) -> float:
    """Return when it was decided what becomes of the canary: the rollback window after it left out."""
    is_promoted = course.ending is Ending.PROMOTED and course.promoted_s is not None
    return course.promoted_s if is_promoted and course.promoted_s is not None else course.ended_s


def _spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    return Spread(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9)))
