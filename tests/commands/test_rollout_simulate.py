"""`gateway rollout simulate`: its options, its pages, its JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.commands.failure import Exit
from gateway.commands.rollout_group import rollout_app
from gateway.commands.rollout_simulate_view import clock
from tests.config.rollouts.texts import ROLLOUT, SPLIT

ALIKE = ("--traffic", "500/s", "--stable-error-rate", "1%")


def invoke(path: Path, *arguments: str, text: str = ROLLOUT) -> Result:
    path.write_text(text)
    return CliRunner().invoke(rollout_app, ["simulate", str(path), *arguments])


def document(path: Path, *arguments: str, text: str = ROLLOUT) -> dict[str, Any]:
    result = invoke(path, *arguments, "--json", text=text)
    assert result.exit_code == Exit.OK, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line.yaml"


def test_a_timeline_says_when_each_step_ended_and_why(path: Path) -> None:
    """With the evidence of its gates, and what it cost the users."""
    result = invoke(path, *ALIKE)
    assert result.exit_code == Exit.OK, result.output
    assert "1 weight 5%" in result.output
    assert "2 promote" in result.output
    assert "pass safety.errors: failures: canary" in result.output
    assert "[harm" in result.output
    assert "promoted after 1h10m, with everything given to the canary after 10m1s" in result.output
    bad = invoke(path, *ALIKE, "--canary-error-rate", "5%")
    assert "aborting: safety.errors: failures: canary" in bad.output
    assert "withdrawn after" in bad.output
    assert "failed for the user" in bad.output


def test_a_wait_for_ever_is_told_with_what_ends_it(path: Path) -> None:
    """Unless it is said how long people take."""
    text = ROLLOUT.replace("- promote", "- approve: {}\n- promote")
    result = invoke(path, *ALIKE, text=text)
    assert "it waits for approval for ever" in result.output
    assert "give --approve-after" in result.output
    approved = invoke(path, *ALIKE, "--approve-after", "2h", text=text)
    assert "at 2h10m, step 2: approved by person-1" in approved.output
    assert "promoted after" in approved.output


def test_many_runs_are_a_distribution(path: Path) -> None:
    """Shares, and how long and how many requests it took."""
    arguments = (*ALIKE, "--canary-error-rate", "5%", "--runs", "9", "--seed", "4")
    result = invoke(path, *arguments)
    assert result.exit_code == Exit.OK, result.output
    assert "seeds     4 to 12" in result.output
    assert "withdrawn  100.0%" in result.output
    assert "safety.errors (9)" in result.output
    body = document(path, *arguments)
    assert [course["seed"] for course in body["courses"]] == list(range(4, 13))
    assert body["endings"]["withdrawn"]["runs"] == 9
    assert "stages" not in body
    last = document(path, *ALIKE, "--canary-error-rate", "5%", "--seed", "12")
    assert last["courses"] == body["courses"][-1:]


def test_json_has_stages_moments_and_what_was_assumed(path: Path) -> None:
    """All as JSON types."""
    body = document(path, *ALIKE, "--crash-at", "2m", "--start", "2026-11-20T16:00+01:00")
    assert body["scenario"]["start_wall_s"] == 1_795_186_800
    assert body["scenario"]["rates"]["canary_errors"] == body["scenario"]["rates"]["stable_errors"] == 0.01
    (course,) = body["courses"]
    assert (course["ending"], course["ended_s"]) == ("withdrawn", 120)
    assert body["stages"][0]["gates"][0]["name"] == "safety.errors"
    assert {"at_s": 120, "phase": None, "step": 0, "what": "the canary crashes"} in body["moments"]


def test_what_is_assumed_is_said(path: Path) -> None:
    """Gates that ask outside, and when it begins."""
    text = ROLLOUT + '  - external: {url: "http://127.0.0.1:1/verdict"}\n'
    text += 'freeze: [{cron: "0 17 * * FRI", for: 63h, tz: Europe/Berlin}]\n'
    result = invoke(path, *ALIKE, text=text)
    assert "gates that ask outside are told pass" in result.output
    assert "--start says otherwise" in result.output
    told = invoke(path, *ALIKE, "--external-at", "5m=fail", "--start", "2026-11-18T09:00Z", text=text)
    assert "at 5m, step 1: gates that ask outside are told fail from now on" in told.output
    assert "withdrawn after 5m: safety.external" in told.output
    assert "--start says" not in told.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--traffic", "fast"), "--traffic: expected requests by time, such as 50/s"),
        (("--traffic", "0/s"), "--traffic: expected"),
        (("--traffic", "1e9/s"), "--traffic: expected"),
        (("--canary-error-rate", "120%"), "--canary-error-rate: expected a rate such as 0.1%"),
        (("--disagreement", "some"), "--disagreement: expected a rate"),
        (("--fallback-rate", "1%"), "on_canary_failure: fallback_stable"),
        (("--crash-at", "20"), "--crash-at: expected a duration with its unit"),
        (("--approve-after", "1 hour"), "--approve-after: expected a duration"),
        (("--external", "maybe"), "--external: expected pass, fail, hold or no_data, got 'maybe'"),
        (("--external-at", "3h"), "--external-at: expected a time and a verdict such as 3h=fail"),
        (("--external-at", "3h=no"), "--external-at: expected pass"),
        (("--start", "tomorrow"), "--start: expected a time such as"),
        (("--start", "2026-11-20T16:00"), "does not say in which zone"),
        (("--runs", "0"), "--runs"),
    ],
)
def test_what_makes_no_sense_is_refused(path: Path, arguments: tuple[str, ...], words: str) -> None:
    """With what would, and the exit code of a wrong command line."""
    result = invoke(path, *ALIKE, *arguments)
    assert result.exit_code == Exit.USAGE, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_files_that_cannot_be_simulated(path: Path) -> None:
    """One without steps is the wrong file to give; a wrong one is told with its line."""
    split = invoke(path, *ALIKE, text=SPLIT)
    assert (split.exit_code, "nothing to simulate" in split.stderr) == (Exit.USAGE, True)
    wrong = invoke(path, *ALIKE, text=ROLLOUT.replace("5%", "5"))
    assert (wrong.exit_code, f"{path}:9: steps.0.weight" in wrong.stderr) == (Exit.FAILED, True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m"),
        (601, "10m1s"),
        (3600, "1h"),
        (5400, "1h30m"),
        (86_400, "1d"),
        (90_061, "1d1h"),
    ],
)
def test_times_have_two_units(seconds: float, text: str) -> None:
    """The largest that there is, and the next."""
    assert clock(seconds) == text
