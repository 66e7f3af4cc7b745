"""Small parts of the long counts of Triton fleets: faults under load, and a soak of both backends."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway._proto import open_inference_pb2 as pb
from loadtests import triton_scene as scene
from loadtests.soak_models import OFFSET
from loadtests.soak_triton import Report, rows, run_soak
from loadtests.triton_clients import Answer, judged
from loadtests.triton_faults import Plan, Row, Trial
from loadtests.triton_page import put_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLAN: Final = Plan(rate=60.0, before_s=1.0, fault_s=3.0, return_s=30.0, after_s=0.5)
QUICK: Final[dict[str, Any]] = {
    "batching": "passthrough",
    "slow_start_s": 0.5,
    "probe": {"interval_s": 0.2, "timeout_s": 0.5},
    "ejection": {"interval_s": 0.5, "min_volume": 5, "base_s": 0.5, "max_s": 1.0},
    "retry": {"budget_share": 1, "budget_floor_per_s": 100},
}
NO_HELP: Final = {"retry": {"attempts": 1}, "ejection": {"consecutive": 10_000, "min_volume": 10_000}}
"""A fleet that neither retries nor ejects."""
GOOD: Final = Row(
    fault="kill", before_errors=0, early=100, early_errors=9, late=1000, late_errors=5, wrong=0, unanswered=0,
    attempts=1.1, out_s=0.1, fault_share=0.0, back_s=2.0, slowest_s=0.1,
)  # fmt: skip


def _tried(fault: str, options: dict[str, Any]) -> Row:
    with scene.endpoints(2) as fleet, scene.gateway(fleet, options=options, more={}) as process:
        return asyncio.run(Trial(process, fleet[0], PLAN).run(fault))


@pytest.mark.soak
@pytest.mark.slow
def test_a_fault_is_not_noticed() -> None:
    """Of an endpoint that fails half of its requests no client sees anything, and it is used again."""
    row = _tried("errors", QUICK)
    assert row.early + row.late > PLAN.rate
    assert row.early_errors + row.late_errors == 0, row.why
    assert (row.wrong, row.unanswered) == (0, 0)
    assert row.back_s is not None


@pytest.mark.soak
@pytest.mark.slow
def test_a_fault_is_noticed_where_nothing_helps() -> None:
    """The measurement sees the errors that a fleet without retries and ejection lets through."""
    row = _tried("errors", {**QUICK, **NO_HELP})
    assert row.early_errors > 0
    assert all("the test asked for this error" in reason for reason in row.why)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, []),
        ({"late_errors": 6}, ["more than 0.5% errors"]),
        ({"before_errors": 1}, ["errors before the fault"]),
        ({"attempts": 1.101}, ["more than 1.1 attempts"]),
        ({"back_s": None}, ["not used again"]),
        ({"wrong": 1}, ["wrong answers"]),
        ({"unanswered": 1}, ["unanswered requests"]),
    ],
)
def test_what_is_held_against_a_fault(change: dict[str, Any], problem: Sequence[str]) -> None:
    """Each limit is found passed, and kept at the limit itself."""
    assert replace(GOOD, **change).problems == problem


def test_an_answer_is_judged_by_version_and_data() -> None:
    """Data of another request, and an answer by another version, are both wrong."""
    answer = pb.ModelInferResponse(model_name=OFFSET, model_version="2")
    answer.outputs.add(name="y", datatype="FP32", shape=[1, 4])
    answer.raw_output_contents.append(b"".join(float_bytes(value + 2) for value in range(4)))
    data = answer.SerializeToString()
    assert judged(data, range(4), 2) == ""
    assert judged(data, range(4), 1).startswith("wrong: version 2")
    assert judged(data, range(1, 5), 2).startswith("wrong: data")


def float_bytes(value: float) -> bytes:
    """Return an FP32 as it travels."""
    return struct.pack("<f", value)


@pytest.mark.soak
@pytest.mark.slow
def test_a_soak_answers_every_request() -> None:
    """With faults of random endpoints each answer is right, or an error that is; this process's are right."""
    report = run_soak(8.0)
    verdicts = {row.check: row for row in rows(report, 8.0)}
    assert report.faults.total() > 0
    for check in ("triton, answers", "triton, beside"):
        assert verdicts[check].ok, verdicts[check].why


def test_a_soak_is_held_against_its_limits() -> None:
    """One wrong answer, one of a kind that nobody should see, one error beside, growth and lag each fail."""
    good = Answer(0.0, 0.1, "")
    report = Report(remote=[good] * 99, local=[good] * 99, rss_bytes=[1 << 20] * 10, lag={0.005: 10.0})
    assert all(row.ok for row in rows(report, 1.0))
    report.remote.append(replace(good, error="wrong: data"))
    report.local.append(replace(good, error="UNAVAILABLE: shutting down"))
    report.rss_bytes += [20 << 20] * 10
    report.lag = {0.005: 0.0, 0.01: 10.0}
    assert not any(row.ok for row in rows(report, 1.0))


def test_a_table_is_put_between_its_marks(tmp_path: Path) -> None:
    """What is around it stays; a page without marks is refused."""
    page = tmp_path / "triton-measurements.md"
    page.write_text("a\n<!-- faults: made by loadtests -->\nold\n<!-- end of faults -->\nb\n")
    for _ in range(2):
        put_table(tmp_path, "faults", ("one", "two"), [("1", "2")])
    table = "| one | two |\n| --- | --- |\n| 1 | 2 |"
    marks = "<!-- faults: made by loadtests -->", "<!-- end of faults -->"
    assert page.read_text() == f"a\n{marks[0]}\n\n{table}\n\n{marks[1]}\nb\n"
    with pytest.raises(ValueError, match="no marks"):
        put_table(tmp_path, "memory", (), [])
