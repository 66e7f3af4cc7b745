"""`gateway rollout simulate`: what would become of a rollout, once or many times."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.rollout_simulate_view import print_course, print_summary
from gateway.config.rollout_listing import read_rollout
from gateway.config.rollout_values import parse_duration
from gateway.core.rollout import ExternalGate, PrometheusGate, RolloutSpec
from gateway.rollouts.simulation_course import Scenario
from gateway.rollouts.simulation_runs import courses, summary
from gateway.rollouts.simulation_traffic import Rates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.rollouts.simulation_course import Course

_PER_S: Final = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_MOST_PER_S: Final = 1e7
_TRAFFIC: Final = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*/\s*(s|min|m|h)")
_VERDICTS: Final = ("pass", "fail", "hold", "no_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The command line, as typed; see its help."""

    file: Path
    traffic: str
    stable_error_rate: str = "0.1%"
    canary_error_rate: str | None = None
    stable_slow_rate: str = "1%"
    canary_slow_rate: str | None = None
    disagreement: str = "0.1%"
    fallback_rate: str | None = None
    crash_at: tuple[str, ...] = ()
    approve_after: str | None = None
    resume_after: str | None = None
    external: str = "pass"
    external_at: tuple[str, ...] = ()
    start: str | None = None
    seed: int = 1
    runs: int = 1
    as_json: bool = False


def simulate(given: Given) -> None:
    """Print what would become of a rollout.

    Raises:
        CommandFailed: an option, or the file's kind, makes no sense.
        ConfigError: the file is wrong; every complaint on a line of its own.
    """
    scenario = _scenario(given)
    file = read_rollout(given.file)
    spec = file.spec
    if not isinstance(spec, RolloutSpec) or not spec.steps:
        raise _wrong(f"{given.file} has no steps: nothing is decided in it, so there is nothing to simulate")
    if given.fallback_rate is not None and not spec.assign.fallback_stable:
        raise _wrong("--fallback-rate: the file does not say `on_canary_failure: fallback_stable`")
    notes = tuple(_notes(spec, given))
    found = []
    for course in courses(spec, scenario, given.runs):
        found.append(course)
        _tell(f"{len(found)} of {given.runs}" if given.runs > 1 else "")
    _tell("")
    if given.as_json:
        sys.stdout.write(json.dumps(_document(spec, scenario, found, notes)) + "\n")
    elif given.runs == 1:
        print_course(spec, scenario, found[0], notes)
    else:
        print_summary(spec, scenario, summary(found), notes)


def _tell(progress: str) -> None:
    """Show how far it is, in the place of what was shown before."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{progress}")
        sys.stderr.flush()


def _scenario(given: Given) -> Scenario:
    stable_errors = _rate("--stable-error-rate", given.stable_error_rate)
    stable_slow = _rate("--stable-slow-rate", given.stable_slow_rate)
    canary_errors, canary_slow = given.canary_error_rate, given.canary_slow_rate
    return Scenario(
        rates=Rates(
            requests_per_s=_traffic(given.traffic),
            stable_errors=stable_errors,
            canary_errors=_rate("--canary-error-rate", canary_errors) if canary_errors else stable_errors,
            stable_slow=stable_slow,
            canary_slow=_rate("--canary-slow-rate", canary_slow) if canary_slow else stable_slow,
            disagreement=_rate("--disagreement", given.disagreement),
            fallbacks=_rate("--fallback-rate", given.fallback_rate) if given.fallback_rate else None,
        ),
        seed=given.seed,
        start_wall_s=_start(given.start),
        crash_at_s=tuple(sorted(_second("--crash-at", text) for text in given.crash_at)),
        approve_after_s=_duration("--approve-after", given.approve_after) if given.approve_after else None,
        resume_after_s=_duration("--resume-after", given.resume_after) if given.resume_after else None,
        external=_verdict("--external", given.external),
        external_at=tuple(sorted(_change(text) for text in given.external_at)),
    )


def _notes(spec: RolloutSpec, given: Given) -> Iterator[str]:
    """Yield what the outcome rests on that is not in the file, and was not said."""
    gates = [gate for group in spec.gates.values() for gate in group]
    if any(isinstance(gate, ExternalGate | PrometheusGate) for gate in gates) and not given.external_at:
        yield f"gates that ask outside are told {given.external}; --external and --external-at say otherwise"
    if spec.freeze and given.start is None:
        yield "it begins now, and so do its freeze windows: --start says otherwise"
    if spec.paused:
        yield "the file says `paused: true`"
    yield "every request is another user's, loading takes no time, and the rates stay as they are"


def _document(
    spec: RolloutSpec, scenario: Scenario, found: list[Course], notes: tuple[str, ...]
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": spec.name,
        "model": spec.model,
        "scenario": asdict(scenario),
        "notes": list(notes),
        "endings": {ending.value: asdict(share) for ending, share in summary(found).items()},
        "courses": [
            {
                "seed": scenario.seed + number,
                "ending": course.ending.value,
                "phase": course.phase.value,
                "reason": course.reason,
                "advice": course.advice,
                "ended_s": course.ended_s,
                "promoted_s": course.promoted_s,
                "seen": asdict(course.seen),
            }
            for number, course in enumerate(found)
        ],
    }
    if len(found) == 1:
        document |= {
            "stages": [_stage(asdict(stage)) for stage in found[0].stages],
            "moments": [_stage(asdict(moment)) for moment in found[0].moments],
        }
    return document


def _stage(values: dict[str, Any]) -> dict[str, Any]:
    phase = values["phase"]
    return values | {"phase": phase.value if phase is not None else None}


def _traffic(text: str) -> float:
    match = _TRAFFIC.fullmatch(text.strip())
    per_s = float(match[1]) / _PER_S[match[2]] if match else 0.0
    if not 0 < per_s <= _MOST_PER_S:
        raise _wrong(f"--traffic: expected requests by time, such as 50/s or 3000/min, got {text!r}")
    return per_s


def _rate(option: str, text: str) -> float:
    number = text.strip()
    try:
        rate = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise _wrong(f"{option}: expected a rate such as 0.1% or 0.001, got {text!r}")
    return rate


def _duration(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise _wrong(f"{option}: {exc}") from exc


def _second(option: str, text: str) -> int:
    return max(math.ceil(_duration(option, text)), 1)


def _verdict(option: str, text: str) -> str:
    if text not in _VERDICTS:
        raise _wrong(f"{option}: expected {', '.join(_VERDICTS[:-1])} or {_VERDICTS[-1]}, got {text!r}")
    return text


def _change(text: str) -> tuple[int, str]:
    when, equals, verdict = text.partition("=")
    if not equals:
        raise _wrong(f"--external-at: expected a time and a verdict such as 3h=fail, got {text!r}")
    return _second("--external-at", when.strip()), _verdict("--external-at", verdict.strip())


def _start(text: str | None) -> float:
    if text is None:
        return time.time() // 60 * 60
    try:
        when = datetime.fromisoformat(text)
    except ValueError as exc:
        raise _wrong(f"--start: expected a time such as 2026-11-20T16:00+01:00, got {text!r}") from exc
    if when.tzinfo is None:
        raise _wrong(f"--start: {text!r} does not say in which zone: add +01:00, or Z for UTC")
    return when.astimezone(UTC).timestamp()


def _wrong(message: str) -> CommandFailed:
    return CommandFailed(message, Exit.USAGE)
