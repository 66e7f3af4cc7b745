"""Simulates whole rollouts under our gates, fixed thresholds and repeated rank tests, side by side.

    python -m loadtests.gate_simulation                  prints the tables of docs/rollout-statistics.md
    python -m loadtests.gate_simulation --into docs      writes them there, and its charts

Every case has its own seed, so that a table can be made again to the digit.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.gate_simulation_judges import Minutes, OurGates, fixed_thresholds, rank_tests
from loadtests.gate_simulation_page import charts, tables, write
from loadtests.gate_simulation_traffic import SLOW_RATE, SLOW_RATE_HALF_SLOWER, TICK_S, Case, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtests.gate_simulation_judges import Floats

RATES: Final = (50, 500, 5000)
SEED: Final = 20_260_801
IDENTICAL: Final = 2_000
FAULTY: Final = 500
AT_MARGIN: Final = 1_000
CLUSTERS: Final = (8, 32)
FAULTS: Final = {
    "2x errors": (2.0, SLOW_RATE),
    "5x errors": (5.0, SLOW_RATE),
    "+50 % latency": (1.0, SLOW_RATE_HALF_SLOWER),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each method did with the same rollouts.

    Attributes:
        case: traffic and fault.
        fault: its name; empty for an identical canary.
        seed: of the traffic.
        rollouts: how many.
        withdrawn_min: by method, when each rollout was withdrawn, in minutes; infinite: never.
        canary_requests: what ours had let the canary answer by then.
        held: share of rollouts in which a sample-ratio mismatch was shown.
        passed: by step, share of rollouts in which both margins were proven at its end.
        ever_passed: by step, share of rollouts in which the errors' margin was ever proven.
    """

    case: Case
    fault: str
    seed: int
    rollouts: int
    withdrawn_min: dict[str, Floats]
    canary_requests: Floats
    held: float
    passed: tuple[float, ...]
    ever_passed: tuple[float, ...]


def simulate(case: Case, rollouts: int, seed: int, fault: str = "", *, others: bool = True) -> Outcome:
    """Return what became of so many rollouts; `others`: also under the methods beside ours."""
    rng = np.random.default_rng(seed)
    ours, minutes = OurGates(rollouts), Minutes(rollouts, rng)
    for tick in ticks(case, rollouts, rng):
        ours.look(tick, from_s=tick.now_s - TICK_S)
        if others:
            minutes.add(tick)
    slow = case.slow_rate != SLOW_RATE
    withdrawn: dict[str, Any] = {"gates": ours.abort_min}
    if others:
        withdrawn["thresholds, 5"] = fixed_thresholds(minutes, 5, slow=slow)
        withdrawn["thresholds, 10"] = fixed_thresholds(minutes, 10, slow=slow)
        withdrawn["rank tests"] = rank_tests(minutes)
    return Outcome(
        case,
        fault,
        seed,
        rollouts,
        withdrawn,
        ours.canary_requests,
        float(np.isfinite(ours.hold_min).mean()),
        tuple(float(share) for share in ours.passed.mean(axis=1)),
        tuple(float(share) for share in ours.ever_passed.mean(axis=1)),
    )


def every_case() -> Iterator[Outcome]:
    """Yield the outcome of each case of the tables, as it is known."""
    for number, rate in enumerate(RATES):
        yield simulate(Case(rate), IDENTICAL, SEED + number)
        for place, (fault, (ratio, slow)) in enumerate(FAULTS.items()):
            seed = SEED + 100 * (1 + place) + number
            yield simulate(Case(rate, ratio, slow), FAULTY, seed, fault)
        at_margin = Case(rate, error_ratio=1.5)
        yield simulate(at_margin, AT_MARGIN, SEED + 400 + number, "at the margin", others=False)
    for number, rate in enumerate(RATES):
        for place, cluster in enumerate(CLUSTERS):
            seed = SEED + 500 + 10 * number + place
            clustered = Case(rate, cluster=cluster)
            yield simulate(clustered, AT_MARGIN, seed, f"{cluster} at a time", others=False)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--into", type=Path, help="the folder of rollout-statistics.md")
    args = parser.parse_args()
    outcomes = []
    for outcome in every_case():
        outcomes.append(outcome)
        print(f"{outcome.rollouts} rollouts, seed {outcome.seed}: {outcome.case} {outcome.fault}", flush=True)
    print(tables(outcomes))
    if args.into:
        write(args.into, tables(outcomes), charts(outcomes))


if __name__ == "__main__":
    main()
