"""The tables and charts of docs/rollout-statistics.md, from simulated rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]  # SciPy ships no types

from loadtests.gate_simulation_published import false_differences, false_rollbacks
from loadtests.gate_simulation_traffic import STEP_MIN, WEIGHTS
from loadtests.svg_chart import Chart, Point, Series, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtests.gate_simulation import Outcome
    from loadtests.gate_simulation_judges import Floats

_BEGIN: Final = "<!-- simulated: written by python -m loadtests.gate_simulation --into docs -->"
_END: Final = "<!-- end of simulated -->"
_METHODS: Final = ("gates", "thresholds, 5", "thresholds, 10", "rank tests")
_CHARTED_RATE: Final = 500
_PUBLISHED_SEED: Final = 20_260_800
_LENGTH_MIN: Final = len(WEIGHTS) * STEP_MIN


def interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Clopper and Pearson)."""
    low = float(beta.ppf(0.025, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, of - count)) if count < of else 1.0
    return low, high


def tables(outcomes: Sequence[Outcome]) -> str:
    """Return the tables in Markdown."""
    seeds = ", ".join(str(outcome.seed) for outcome in outcomes)
    return "\n\n".join(
        [
            _identical(outcomes),
            _faulty(outcomes),
            _passes(outcomes),
            _clusters(outcomes),
            _published(),
            f"Seeds, in the order of simulation: {seeds}; {_PUBLISHED_SEED} for the last two tables.",
        ]
    )


def charts(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the charts as SVG, by file name."""
    found = {}
    titles = {"": "Identical canary withdrawn", "2x errors": "Canary with 2x errors withdrawn"}
    for outcome in outcomes:
        if (
            outcome.case.rate_per_min == _CHARTED_RATE
            and outcome.fault in titles
            and outcome.case.cluster == 1
        ):
            name = "rollout-false-aborts.svg" if not outcome.fault else "rollout-detection.svg"
            found[name] = render(_chart(outcome, f"{titles[outcome.fault]}, {_CHARTED_RATE} requests/min"))
    return found


def write(docs: Path, text: str, drawn: Mapping[str, str]) -> None:
    """Put the tables between their marks in the page, and the charts beside it."""
    page = docs / "rollout-statistics.md"
    before, rest = page.read_text().split(_BEGIN)
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{rest.split(_END)[1]}")
    for name, svg in drawn.items():
        (docs / "img" / name).write_text(svg)


def _identical(outcomes: Sequence[Outcome]) -> str:
    rows = [
        "| requests/min | our gates | thresholds, 5 | thresholds, 10 | rank tests | held by SRM |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        if outcome.fault:
            continue
        cells = [_share(outcome.withdrawn_min[method], outcome.rollouts) for method in _METHODS]
        held = _percent(outcome.held, *interval(round(outcome.held * outcome.rollouts), outcome.rollouts))
        rows.append(f"| {outcome.case.rate_per_min:,} | {' | '.join(cells)} | {held} |")
    return _titled("An identical canary is withdrawn in", rows)


def _faulty(outcomes: Sequence[Outcome]) -> str:
    rows = [
        "| fault | requests/min | gates | canary requests | thresholds, 5 | thresholds, 10 | rank tests |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for outcome in sorted(outcomes, key=lambda o: o.fault):
        if len(outcome.withdrawn_min) < len(_METHODS) or not outcome.fault:
            continue
        times = [_times(outcome.withdrawn_min[method]) for method in _METHODS]
        times.insert(1, _times(outcome.canary_requests))
        rows.append(f"| {outcome.fault} | {outcome.case.rate_per_min:,} | {' | '.join(times)} |")
    return _titled(
        "A bad canary is withdrawn after so many minutes, median / 90th percentile (share found)", rows
    )


def _passes(outcomes: Sequence[Outcome]) -> str:
    shares = " | ".join(f"{weight:.0%}" for weight in WEIGHTS)
    rows = [
        f"| requests/min | {shares} | 1.5 times the errors ever pass a step, at most |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    margins = {o.case.rate_per_min: o for o in outcomes if o.fault == "at the margin"}
    for outcome in outcomes:
        if outcome.fault:
            continue
        bad = margins[outcome.case.rate_per_min]
        steps = " | ".join(f"{share:.0%}" for share in outcome.passed)
        wrong = _percent(
            max(bad.ever_passed), *interval(round(max(bad.ever_passed) * bad.rollouts), bad.rollouts)
        )
        rows.append(f"| {outcome.case.rate_per_min:,} | {steps} | {wrong} |")
    return _titled(
        f"An identical canary has proven both margins at the end of a step of {STEP_MIN} minutes in", rows
    )


def _clusters(outcomes: Sequence[Outcome]) -> str:
    rows = ["| requests/min | errors one at a time | 8 at a time | 32 at a time |", "|---:|---:|---:|---:|"]
    by_rate: dict[int, list[str]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.case.cluster):
        if not outcome.fault or outcome.case.cluster > 1:
            share = _share(outcome.withdrawn_min["gates"], outcome.rollouts)
            by_rate.setdefault(outcome.case.rate_per_min, []).append(share)
    rows += [f"| {rate:,} | {' | '.join(shares)} |" for rate, shares in by_rate.items()]
    return _titled("An identical canary is withdrawn, where errors come in groups, by our gates in", rows)


def _published() -> str:
    rollbacks = [
        "| canary requests/min | 5 failed checks | 10 failed checks | published |",
        "|---:|---:|---:|---:|",
    ]
    for rate, published in ((50, "68 %, 3.4 %"), (500, "0.3 % with 5"), (5000, "")):
        cells = [f"{100 * false_rollbacks(rate, most, 20_000, _PUBLISHED_SEED):.1f} %" for most in (5, 10)]
        rollbacks.append(f"| {rate:,} | {' | '.join(cells)} | {published} |")
    differences = ["| looks | 1 | 6 | 12 | 24 |", "|---|---:|---:|---:|---:|"]
    found = false_differences(4_000, _PUBLISHED_SEED).values()
    differences.append(f"| simulated | {' | '.join(f'{100 * share:.1f} %' for share in found)} |")
    differences.append("| published | 1.7 % | 6.1 % | 7.5 % | 12.1 % |")
    title = "An identical canary is withdrawn by 25 one-minute checks of 99 % success in"
    other = "A rank test at 98 % calls equal arms different, ever, in"
    return f"{_titled(title, rollbacks)}\n\n{_titled(other, differences)}"


def _titled(title: str, rows: Sequence[str]) -> str:
    return "\n".join([f"**{title}**", "", *rows])


def _share(minutes: Floats, of: int) -> str:
    count = int(np.isfinite(minutes).sum())
    return _percent(count / of, *interval(count, of))


def _percent(share: float, low: float, high: float) -> str:
    return f"{100 * share:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


def _times(values: Floats) -> str:
    median, most = np.quantile(values, [0.5, 0.9], method="higher")
    found = float(np.isfinite(values).mean())
    words = " / ".join(f"{value:,.0f}" if np.isfinite(value) else "never" for value in (median, most))
    return words if found == 1 else f"{words} ({found:.0%})"


def _chart(outcome: Outcome, title: str) -> Chart:
    grid = range(0, _LENGTH_MIN + 1, 10)
    series = []
    for method in _METHODS:
        reached = [(minute, 100 * float((outcome.withdrawn_min[method] <= minute).mean())) for minute in grid]
        label = "our gates" if method == "gates" else method
        series.append(Series(label, [Point(minute, share, share, share) for minute, share in reached]))
    ticks = tuple(range(0, _LENGTH_MIN + 1, STEP_MIN))
    return Chart(title, "minutes since the rollout began", "% of rollouts", ticks, series, x_log=False)
