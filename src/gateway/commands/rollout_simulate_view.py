"""Prints simulated rollouts: one as a timeline, many as a distribution."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.model_page import printable
from gateway.commands.plan_estimate import describe_step
from gateway.rollouts.simulation_course import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.rollout import RolloutSpec
    from gateway.rollouts.simulation_course import Course, Scenario, Stage
    from gateway.rollouts.simulation_runs import Share, Spread

_STYLES: Final = {Ending.PROMOTED: "bold green", Ending.WITHDRAWN: "bold red", Ending.HELD: "bold yellow"}
_VERDICT_STYLES: Final = {"pass": "green", "harm": "bold red", "hold": "yellow"}
_PIPE_WIDTH: Final = 200
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def print_course(spec: RolloutSpec, scenario: Scenario, course: Course, notes: Sequence[str]) -> None:
    """Print how one rollout went."""
    console = _console()
    _print_head(console, spec, scenario, notes)
    console.print(f"seed      {scenario.seed}\n")
    console.print(_timeline(spec, course))
    console.print()
    _print_moments(console, course)
    seen = course.seen
    console.print(
        Text(course.ending.value, style=_STYLES[course.ending])
        + Text(printable(f" after {clock(course.ended_s)}{_when_promoted(course)}: {course.reason}"))
    )
    if course.advice:
        console.print(Text(printable(f"{course.advice}"), style="yellow"))
    console.print(
        f"{seen.requests:,} requests went to the canary, {seen.errors:,} failed there, "
        f"{seen.users_errors:,} failed for the user; it ran {seen.pairs:,} copies"
    )


def print_summary(
    spec: RolloutSpec, scenario: Scenario, shares: Mapping[Ending, Share], notes: Sequence[str]
) -> None:
    """Print how many rollouts went."""
    console = _console()
    _print_head(console, spec, scenario, notes)
    runs = sum(share.runs for share in shares.values())
    console.print(f"seeds     {scenario.seed} to {scenario.seed + runs - 1}\n")
    table = Table(box=None, pad_edge=False)
    for name in (f"of {runs}", "share", "after", "to the canary", "failed for users"):
        table.add_column(name, justify="left" if name.startswith("of") else "right", no_wrap=True)
    table.add_column("why")
    for ending, share in shares.items():
        why = ", ".join(f"{reason} ({count})" for reason, count in share.reasons.items())
        table.add_row(
            Text(ending.value, style=_STYLES[ending]),
            f"{share.share:.1%}",
            f"{clock(share.seconds.median)} / {clock(share.seconds.p90)}",
            _pair(share.requests),
            _pair(share.users_errors),
            Text(printable(why)),
        )
    console.print(table)
    console.print("\nMedian / 90th percentile. Promoted: when the canary was given everything.")


def clock(seconds: float) -> str:
    """Return a time in its two largest units: `1h20m`, `10m1s`, `0s`."""
    left = round(seconds)
    if left < 1:
        return "0s"
    for place, (size, unit) in enumerate(_UNITS):
        if left >= size:
            whole, rest = divmod(left, size)
            smaller = _UNITS[place + 1] if place + 1 < len(_UNITS) else (1, "")
            more = rest // smaller[0]
            return f"{whole}{unit}" + (f"{more}{smaller[1]}" if more else "")
    return "0s"


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def _print_head(console: Console, spec: RolloutSpec, scenario: Scenario, notes: Sequence[str]) -> None:
    rates = scenario.rates
    start = datetime.fromtimestamp(scenario.start_wall_s, tz=UTC)
    console.print(Text(printable(f"{spec.name}: model {spec.model}, simulated"), style="bold"))
    console.print(f"traffic   {rates.requests_per_s:,.4g} requests/s from {start:%Y-%m-%d %H:%M} UTC")
    console.print(f"stable    {_percent(rates.stable_errors)} fail, {_percent(rates.stable_slow)} are slow")
    console.print(
        f"canary    {_percent(rates.canary_errors)} fail, {_percent(rates.canary_slow)} are slow, "
        f"{_percent(rates.disagreement)} of its copies differ"
    )
    for note in notes:
        console.print(Text(printable(f"assumed   {note}"), style="dim"))


def _timeline(spec: RolloutSpec, course: Course) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("step", "began", "lasted"):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "failed", "for users"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("then")
    for stage in course.stages:
        _add_stage(table, spec, stage)
    return table


def _add_stage(table: Table, spec: RolloutSpec, stage: Stage) -> None:
    seen = stage.seen
    copies = f"{seen.pairs:,} copies" if seen.pairs else "-"
    table.add_row(
        Text(f"{stage.index + 1} {describe_step(spec.steps[stage.index])}", style="bold"),
        clock(stage.began_s),
        clock(stage.ended_s - stage.began_s),
        f"{seen.requests:,}" if seen.requests else copies,
        f"{seen.errors:,}",
        f"{seen.users_errors:,}",
        Text(printable(f"{stage.phase.value.replace('_', ' ')}: {stage.reason}")),
    )
    for gate in stage.gates:
        verdict = Text(gate["verdict"], style=_VERDICT_STYLES.get(gate["verdict"], ""))
        evidence = Text(
            printable(f" {gate['name']}: {gate['reason']}{_evidence(gate['numbers'])}"), style="dim"
        )
        table.add_row("", "", "", "", "", "", verdict + evidence)


def _evidence(numbers: Mapping[str, Any]) -> str:
    """Return the evidence in nats against what it must reach."""
    found = []
    harm = numbers.get("log_e_harm_peak", numbers.get("log_e_harm"))
    if harm is not None and "log_bound_harm" in numbers:
        found.append(f"harm {harm:.1f} of {numbers['log_bound_harm']:.1f}")
    proof = max((numbers[k] for k in ("log_e_pass", "log_e_absolute") if k in numbers), default=None)
    if proof is not None and "log_bound_pass" in numbers:
        found.append(f"proof {proof:.1f} of {numbers['log_bound_pass']:.1f}")
    return f" [{', '.join(found)}]" if found else ""


def _print_moments(console: Console, course: Course) -> None:
    told = [moment for moment in course.moments if moment.phase is None]
    for moment in told:
        console.print(Text(printable(f"at {clock(moment.at_s)}, step {moment.step + 1}: {moment.what}")))
    if told:
        console.print()


def _when_promoted(course: Course) -> str:
    if course.promoted_s is None:
        return ""
    return f", with everything given to the canary after {clock(course.promoted_s)}"


def _pair(spread: Spread) -> str:
    return f"{spread.median:,.0f} / {spread.p90:,.0f}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.4g}%"
