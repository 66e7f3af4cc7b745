"""`gateway plan`: against recorded documents, and against a real port."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.commands.failure import Exit
from gateway.commands.plan import PlanOptions, document, make_plan
from gateway.commands.plan_command import plan
from gateway.commands.plan_estimate import Assumed, about, cautions, estimate
from gateway.commands.plan_gateway import Running, change_of
from gateway.config.rollout_file import RolloutFile, parse_rollout
from gateway.core.rollout import RolloutSpec
from gateway.rollouts.codec import encode
from tests.commands.conftest import StubGateway
from tests.config.rollouts.texts import ROLLOUT, SPLIT

RATES = {"errors": 0.001, "exceed": 0.01, "disagree": 0.001}
STEP = "- {weight: 5%, min_bake: 10m, max_bake: 2h, gates: [safety]}"


def parsed(text: str = ROLLOUT) -> RolloutFile:
    return parse_rollout(text.encode(), "f.yaml")


def spec(text: str = ROLLOUT) -> RolloutSpec:
    found = parsed(text).spec
    assert isinstance(found, RolloutSpec)
    return found


def running(text: str = ROLLOUT, **others: Any) -> dict[str, Any]:
    """Return what a gateway says in which the rollout `text` bakes in its first step."""
    document = {
        "name": "line",
        "model": "m",
        "phase": "baking",
        "step": {"index": 0, "of": 2, "kind": "weight"},
        "spec": encode(spec(text)),
        "file": {"path": "gone.yaml", "active_hash": parsed(text).hash},
        **others,
    }
    return {"rollouts": [document], "files": [], "splits": []}


@pytest.mark.parametrize(
    ("index", "text", "kind", "words"),
    [
        ({}, ROLLOUT, "start", "a new rollout starts"),
        (running(), ROLLOUT, "none", "this very file"),
        (running(), ROLLOUT + "paused: true\n", "overlay", "(a) at once"),
        (running(), ROLLOUT.replace("5%", "4%"), "ease", "(a) at once: the weight is lowered"),
        (running(), ROLLOUT.replace("errors: {}", "errors: {min_events: 9}"), "regate", "(b) at once"),
        (running(), ROLLOUT.replace("@challenger", "@other"), "restart", "(c) the rollout in progress"),
        (running(), ROLLOUT.replace("stable: 1", "stable: 2"), "refused", "(d, e) refused"),
        (running(), ROLLOUT + "assign: {hash: {salt: x}}\n", "refused", "(d, e) refused"),
        (running(phase="promoted"), ROLLOUT + "author: x\n", "none", "nothing starts"),
        (running(phase="promoted"), ROLLOUT.replace("5%", "6%"), "start", "a new rollout starts"),
        (running(phase="aborted"), ROLLOUT.replace("2h", "3h"), "start", "a new rollout starts"),
        (running(name="other"), ROLLOUT, "clash", "other speaks for model 'm'"),
        ({"splits": [{"model": "m"}]}, ROLLOUT, "clash", "a split speaks for model 'm'"),
        (running(spec=None), ROLLOUT + "author: x\n", "unknown", "no class"),
        ({}, SPLIT, "start", "the split is in force"),
    ],
)
def test_what_would_change(index: Mapping[str, Any], text: str, kind: str, words: str) -> None:
    """In the words of the classes of edits."""
    change = change_of(parsed(text), index)
    assert (change.kind, words in change.text) == (kind, True), change.text


def test_a_file_on_this_machine_tells_what_is_in_force(tmp_path: Path) -> None:
    """Where the gateway does not, but only while it still is what is in force."""
    path = tmp_path / "a.yaml"
    path.write_text(ROLLOUT)
    index = running(file={"path": str(path), "active_hash": parsed().hash})
    del index["rollouts"][0]["spec"]
    edited = parsed(ROLLOUT.replace("5%", "4%"))
    assert change_of(edited, index).kind == "ease"
    path.write_text(ROLLOUT + "# edited\n")
    assert change_of(edited, index).kind == "unknown"


def test_a_pause_is_weighed_by_the_step_before_it() -> None:
    """While people are waited for the weight of the step before is in force."""
    text = ROLLOUT.replace("- promote", "- approve: {}\n- promote")
    index = running(text, phase="awaiting_approval", step={"index": 1, "of": 3})
    assert change_of(parsed(text.replace("5%", "4%")), index).kind == "ease"


def test_more_traffic_brings_verdicts_sooner() -> None:
    """Twice the requests, half the time; a step is never shorter than its least bake."""
    slow, fast = (estimate(spec(), Assumed(rate, RATES))[0] for rate in (50.0, 100.0))
    assert slow.gates[0].pass_s == pytest.approx(2 * (fast.gates[0].pass_s or 0))
    assert (slow.canary_per_s, fast.canary_per_s) == (2.5, 5.0)
    quick = estimate(spec(), Assumed(1e6, RATES))[0]
    assert quick.likely_s == 600.0


def test_a_step_that_cannot_yield_a_verdict_in_time_is_warned_of() -> None:
    """With what the policy then does."""
    found = list(cautions(spec(), estimate(spec(), Assumed(10.0, RATES))))
    assert any(
        "safety.errors takes about" in w and "max_bake is 2h" in w and "hold there" in w for w in found
    )
    text = ROLLOUT + "policy: {inconclusive: abort}\n"
    assert "be aborted" in next(cautions(spec(text), estimate(spec(text), Assumed(10.0, RATES))))
    assert list(cautions(spec(), estimate(spec(), Assumed(10_000.0, RATES)))) == []


def test_a_gate_that_never_passes_is_warned_of() -> None:
    """No failures at all prove nothing about a ratio."""
    found = list(cautions(spec(), estimate(spec(), Assumed(100.0, {"errors": 0.0}))))
    assert "safety.errors cannot pass" in found[0]


def test_a_step_that_goes_on_before_harm_is_found_is_warned_of() -> None:
    """What `no_harm` costs."""
    text = ROLLOUT.replace("gates: [safety]}", "gates: [safety], require: no_harm}")
    found = list(cautions(spec(text), estimate(spec(text), Assumed(20.0, RATES))))
    assert "5 times the bad requests, but the step goes on" in found[0]
    assert found[0].endswith("only the rollback window is left to find it")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.6, "0.6s"),
        (59, "59s"),
        (119, "119s"),
        (7200, "2h"),
        (12_600, "3.5h"),
        (1e6, "12d"),
        (math.inf, "never"),
    ],
)
def test_times_are_rough(seconds: float, text: str) -> None:
    """Two digits: an estimate claims no more."""
    assert about(seconds) == text


def test_a_plan_is_json(tmp_path: Path) -> None:
    """Without infinities, which JSON has not."""
    path = tmp_path / "f.yaml"
    path.write_text(ROLLOUT.replace("- promote", "- pause: {}\n- promote"))
    made = make_plan(PlanOptions(path, requests_per_s=100.0))
    body = json.loads(json.dumps(document(made), allow_nan=False))
    assert [s["what"] for s in body["steps"]] == ["weight 5%", "pause until resumed", "promote"]
    assert body["steps"][1]["likely_s"] == "never"
    assert body["likely_s"] == pytest.approx(body["steps"][0]["likely_s"])


def test_a_running_gateway_tells_traffic_memory_and_what_is_in_force(
    stub: StubGateway, tmp_path: Path
) -> None:
    """All three ports are asked; the traffic is what was answered between two looks."""
    path = tmp_path / "f.yaml"
    path.write_text(ROLLOUT.replace("5%", "4%"))
    stub.answer("GET", "/rollouts", running())
    stats = {"model_stats": [{"inference_stats": {"success": {"count": 7}}}]}
    stub.answer("GET", "/v2/models/m/stats", stats)
    line = 'gateway_model_memory_bytes{model="m",version="1"} 2500000.0\n'
    stub.answers["GET", "/metrics"] = (200, {}, line.encode())
    asked = Running(stub.address, stub.address, stub.address, interval_s=0.0)
    made = make_plan(PlanOptions(path, asked))
    assert made.change.kind == "ease"
    assert made.change.step == {"index": 0, "of": 2, "kind": "weight"}
    assert made.assumed == Assumed(None, made.assumed.rates, "none seen")
    assert made.capacity[-1] == "loaded now: version 1 2.5 MB; a version like the largest takes 2.5 MB"


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, list(arguments))


NOBODY = (
    "--url",
    "http://127.0.0.1:1",
    "--admin-url",
    "http://127.0.0.1:1",
    "--metrics-url",
    "http://127.0.0.1:1",
)


def test_the_command_prints_tables_without_a_gateway(tmp_path: Path) -> None:
    """It says that nobody was there to compare with."""
    path = tmp_path / "f.yaml"
    path.write_text(ROLLOUT)
    result = invoke(str(path), "--requests-per-second", "100", *NOBODY)
    assert result.exit_code == Exit.OK, result.output
    assert "no answer from" in result.output
    assert "weight 5%, 5/s" in result.output
    assert "safety.errors" in result.output
    unknown = invoke(str(path), *NOBODY)
    assert "the traffic is not known: give --requests-per-second" in unknown.output


def test_the_command_takes_rates_as_percentages_or_fractions(tmp_path: Path) -> None:
    """What is neither is a wrong command line."""
    path = tmp_path / "f.yaml"
    path.write_text(ROLLOUT)
    for text in ("2%", "0.02"):
        body = json.loads(invoke(str(path), "--error-rate", text, "--json", *NOBODY).stdout)
        assert body["assumed"]["rates"]["errors"] == 0.02
    assert invoke(str(path), "--error-rate", "200%", *NOBODY).exit_code == Exit.USAGE
    path.write_text(ROLLOUT.replace("5%", "5"))
    wrong = invoke(str(path), *NOBODY)
    assert wrong.exit_code == Exit.FAILED
    assert f"{path}:9: steps.0.weight" in wrong.stderr
