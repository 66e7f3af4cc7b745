"""Conditions on figures, and what becomes of a run that misses them."""

from typing import Any

import pytest

from loadtests.figures_table import medians, table, verdicts
from loadtests.session import kept
from loadtests.thresholds import ThresholdError, missed, parse


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ("< 20", 19.9, 20),
        ("<=20", 20, 20.1),
        (" > 1e3 ", 1001, 1000),
        (">= 0.95", 0.95, 0.94),
        ("== 0", 0, 1),
    ],
)
def test_conditions(condition: str, holds: float, fails: float) -> None:
    """Every sign, with or without spaces."""
    assert parse(condition).holds(holds)
    assert not parse(condition).holds(fails)


@pytest.mark.parametrize("condition", ["20", "< fast", "=< 3", "< 3 ms", ""])
def test_what_is_no_condition(condition: str) -> None:
    """Is refused when the file is read, not when the run has been made."""
    with pytest.raises(ThresholdError, match="expected a sign and a number"):
        parse(condition)


def test_a_figure_that_was_not_measured_meets_no_threshold() -> None:
    """Silence is no success."""
    assert missed({"p99_ms": "< 20"}, {}) == ["p99_ms was not measured, asked for < 20"]
    assert missed({"p99_ms": "< 20"}, {"p99_ms": 25.0}) == ["p99_ms is 25, asked for < 20"]
    assert missed({"p99_ms": "< 20"}, {"p99_ms": 15.0}) == []


def run(entry: str = "a", thresholds: dict[str, str] | None = None, **figures: float) -> dict[str, Any]:
    return {
        "entry": entry,
        "engine": "wrk",
        "scenario": {"thresholds": thresholds or {}},
        "figures": {"errors": 0.0, "foreign": 0.0, "steal": 0.0, **figures},
        "problems": ["wrong"] if figures.get("errors") else [],
    }


def test_medians_are_judged_and_errors_by_their_worst_run() -> None:
    """A slow run among three is noise; one with errors is not."""
    repeats = [run(p99_ms=10.0), run(p99_ms=12.0), run(p99_ms=90.0, errors=2.0)]
    assert medians(repeats)["p99_ms"] == 12
    assert medians(repeats)["errors"] == 2


def test_exit_status() -> None:
    """0 if all is well, 3 for a missed threshold, 1 when requests went wrong whatever else."""
    slow, wrong = run(thresholds={"p99_ms": "< 5"}, p99_ms=9.0), run("b", errors=1.0)
    assert verdicts({"a": [run()]}) == ([], 0)
    assert verdicts({"a": [slow]})[1] == 3
    assert verdicts({"a": [slow], "b": [wrong]})[1] == 1
    assert verdicts({"b": [wrong], "a": [slow]})[1] == 1


def test_errors_may_be_allowed_by_a_threshold_of_their_own() -> None:
    """A scenario that says how many it bears is judged by that."""
    assert verdicts({"a": [run(thresholds={"errors": "< 5"}, errors=3.0)]}) == ([], 0)


def test_disturbed_runs_are_left_out_but_never_those_with_errors() -> None:
    """As in every table of the load tests."""
    quiet, noisy, wrong = run(), run(foreign=0.5), run(foreign=0.5, errors=1.0)
    assert [r["figures"]["foreign"] for r in kept([quiet, noisy, wrong])["a"]] == [0.0, 0.5]


def test_the_table_shows_what_could_not_be_run() -> None:
    """An unavailable target has a line, not a gap."""
    gone = {**run("gone"), "unavailable": "no such thing"}
    text = table({"a": [run(p99_ms=1.0), run(p99_ms=3.0)], "gone": [gone]})
    assert "2.00 (1.00-3.00)" in text
    assert text.splitlines()[-1].rstrip(" |").endswith("unavailable")
