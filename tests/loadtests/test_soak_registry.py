"""The long counts of registries and lazy models, a small part of each; `make soak` does all of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from loadtests.soak_lazy import lazy_model, name_of, replay, run_lazy, zipf_trace
from loadtests.soak_models import OFFSET, publish
from loadtests.soak_registry import Plan, run_registry, swapping
from loadtests.soak_registry_models import Publisher, following, secrets, table_model
from loadtests.soak_registry_report import RegistryReport, rows
from loadtests.soak_server import GatewayProcess, settings
from tests.servers.seaweed import BUCKET, seaweed

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

PLAN = Plan(moves=2, period_s=2.0, poll_s=0.3, size_bytes=1_000_000, rate=50.0)
MODELS, REQUESTS, MODEL_BYTES, BUDGET_BYTES = 8, 80, 1_000_000, 100_000_000


def answers_are_right(report: RegistryReport) -> bool:
    """Return whether the table's row about answers holds."""
    (row,) = (row for row in rows(report) if row.check == "registry, answers")
    return row.ok


@pytest.mark.soak
@pytest.mark.slow
def test_an_alias_moves_under_load_and_nothing_fails() -> None:
    """Each move is over within its time, and each of the versions has answered."""
    report = run_registry(PLAN)
    assert report.problems() == []
    assert answers_are_right(report)
    assert [(swap.version, swap.cold) for swap in report.swaps] == [(2, True), (1, False)]
    assert {sent.version for sent in report.sent} == {"1", "2"}
    during, between = report.latencies()
    assert len(during) + len(between) == len(report.sent)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("content", [table_model(9, PLAN.size_bytes), None], ids=["wrong", "missing"])
def test_wrong_answers_and_moves_that_come_to_nothing_are_counted(
    tmp_path: Path, content: onnx.ModelProto | None
) -> None:
    """Version 2 answers as another would, or is not there to be moved to."""
    with seaweed() as server:
        publisher = Publisher(server)
        publisher.push(1, PLAN.size_bytes)
        asyncio.run(publisher.move(1))
        if content is not None:
            server.bucket(BUCKET).put(f"soak/{OFFSET}/2/model.onnx", content.SerializeToString())
        config = following(server, str(tmp_path / "cache"), PLAN.poll_s)
        with GatewayProcess(config, tmp_path, secrets(server)) as gateway:
            plan = replace(PLAN, moves=1, patience_s=PLAN.patience_s if content is not None else 1.0)
            report = asyncio.run(swapping(gateway, publisher, plan))
    wrong = {sent.problem.partition(" answered")[0] for sent in report.sent if sent.problem}
    assert wrong == ({"version 2"} if content is not None else set())
    assert [bool(swap.problem) for swap in report.swaps] == [content is None]
    assert not answers_are_right(report)


@pytest.mark.soak
@pytest.mark.slow
def test_lazy_models_answer_within_their_memory() -> None:
    """Each is loaded when it is first asked for; with room for all of them, only then."""
    asked = set(zipf_trace(MODELS, REQUESTS))
    report, simulated = run_lazy(MODELS, REQUESTS, MODEL_BYTES, BUDGET_BYTES)
    assert report.problems == []
    assert (report.sent, report.starts) == (REQUESTS, len(asked))
    assert report.hit_rate == pytest.approx(simulated)
    assert 0 < report.peak_held <= BUDGET_BYTES
    assert report.costs.keys() <= asked


@pytest.mark.soak
@pytest.mark.slow
def test_lazy_models_that_answer_wrongly_or_not_at_all_are_counted(tmp_path: Path) -> None:
    """One answers as another would, and one cannot be loaded; the rest is right."""
    repository = tmp_path / "repository"
    for index in range(3):
        publish(repository, name_of(index), 1, lazy_model(0, MODEL_BYTES))
    (repository / name_of(2) / "1" / "model.onnx").write_bytes(b"no model")
    limits = {"limits": {"cpu": BUDGET_BYTES}}
    config = settings(repository) | {"defaults": {"lazy": True}, "memory": limits}
    with GatewayProcess(config, tmp_path) as server:
        report = asyncio.run(replay(server, [0, 1, 2, 0, 1, 0]))
    assert report.sent == 6
    assert sorted(problem.partition(" ")[0] for problem in report.problems) == ["lazy001:"] * 2 + ["lazy002:"]
