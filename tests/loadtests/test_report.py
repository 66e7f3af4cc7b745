"""How repeats become a table."""

from typing import Any

from loadtests.report import comparison_disturbed, direct_table, disturbed, load_table, quiet, spread


def record(rate: float = 100.0, **fields: Any) -> dict[str, Any]:
    figures = {
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "cpu_us": 30.0,
        "mean_batch": 4.0,
        "ratio": 0.5,
        "cpu_ratio": 0.25,
    }
    cell = {"model": "m", "protocol": "http", "rows": 1, "concurrency": 8}
    state: dict[str, Any] = {"foreign": 0.0, "steal": 0.0, "direct_share": 1.0, "errors": []}
    return {**cell, **figures, **state, "requests_per_s": rate, "rows_per_s": rate, **fields}


def test_the_spread_is_median_least_and_most() -> None:
    """In any order, written with the form given."""
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([1000.0, 3000.0]).text(",.0f") == "2,000 (1,000-3,000)"


def test_more_than_a_tenth_taken_by_others_disturbs() -> None:
    """Other processes and the host count together; a slow reference disturbs a comparison alone."""
    assert not disturbed(record(foreign=0.05, steal=0.05))
    assert disturbed(record(foreign=0.06, steal=0.05))
    slow = record(direct_share=0.8)
    assert (disturbed(slow), comparison_disturbed(slow)) == (False, True)


def test_disturbed_repeats_are_left_out_where_there_are_others() -> None:
    """Each cell by itself; its least disturbed run stays if all are; one with errors is never hidden."""
    good, bad = record(1.0), record(2.0, foreign=0.5)
    worse, least = record(3.0, concurrency=16, foreign=0.9), record(4.0, concurrency=16, steal=0.3)
    wrong = record(5.0, foreign=0.9, errors=["3 failed"])
    assert quiet([good, bad, worse, least, wrong]) == [good, wrong, least]
    assert quiet([good, bad], is_disturbed=lambda run: run["requests_per_s"] == 1.0) == [bad]


def test_the_table_has_a_line_for_each_cell() -> None:
    """Repeats share it, errors are added up, columns are aligned."""
    table = load_table([record(100.0), record(300.0, errors=["x", "y"]), record(7.0, rows=32)])
    head, rule, first, second = table.splitlines()
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[:5] == ["m", "http", "1", "8", "200 (100-300)"]
    assert cells[-3:] == ["50.0% (50.0%-50.0%)", "25.0% (25.0%-25.0%)", "2"]
    assert "7 (7-7)" in second


def test_direct_calls_have_their_own_table() -> None:
    """A line for each model and batch size."""
    runs = [
        {"model": "m", "rows": rows, "rows_per_s": rate, "call_us": 10.0, "row_cpu_us": 1.5}
        for rows, rate in ((1, 10.0), (32, 50.0), (32, 70.0))
    ]
    lines = direct_table(runs).splitlines()
    assert len(lines) == 4
    assert "60 (50-70)" in lines[-1]
    assert "1.5 (1.5-1.5)" in lines[-1]
