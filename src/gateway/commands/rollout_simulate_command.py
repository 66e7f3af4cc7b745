"""The options of `gateway rollout simulate`."""
# ruff: noqa: PLC0415, PLR0913  as in cli.py: verbs are imported when called, and each option is a parameter

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.options import JsonOption, reported


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rollout file.")],
    *,
    traffic: Annotated[str, typer.Option(help="Requests for the model: 50/s, 3000/min or 1e6/h.")],
    stable_error_rate: Annotated[str, typer.Option(help="Share of stable's requests that fail.")] = "0.1%",
    canary_error_rate: Annotated[
        str | None, typer.Option(help="Share of the canary's requests that fail. [default: as stable]")
    ] = None,
    stable_slow_rate: Annotated[
        str, typer.Option(help="Share of stable's answers slower than the thresholds of the gates.")
    ] = "1%",
    canary_slow_rate: Annotated[
        str | None, typer.Option(help="The same of the canary's. [default: as stable]")
    ] = None,
    disagreement: Annotated[str, typer.Option(help="Share of shadow answers that differ.")] = "0.1%",
    fallback_rate: Annotated[
        str | None,
        typer.Option(
            help="Share of the canary's requests that stable answers in its place, besides those that fail. "
            "[default: all that fail, and no others]"
        ),
    ] = None,
    crash_at: Annotated[
        list[str] | None,
        typer.Option(help="When the canary crashes, such as 20m after the beginning; repeatable."),
    ] = None,
    approve_after: Annotated[
        str | None, typer.Option(help="How long people take to approve. [default: they never do]")
    ] = None,
    resume_after: Annotated[
        str | None, typer.Option(help="How long a pause without an end lasts. [default: for ever]")
    ] = None,
    external: Annotated[
        str, typer.Option(help="What gates that ask outside are told: pass, fail, hold or no_data.")
    ] = "pass",
    external_at: Annotated[
        list[str] | None, typer.Option(help="What they are told from then on, such as 3h=fail; repeatable.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="When it begins, such as 2026-11-20T16:00+01:00; freeze windows go by it. [default: now]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random numbers.")] = 1,
    runs: Annotated[
        int, typer.Option(min=1, max=10_000, help="So many times, each with the next seed: a distribution.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Print what would become of a rollout, by the very controller, in virtual time. No gateway is asked."""
    with reported():
        from gateway.commands.rollout_simulate import Given
        from gateway.commands.rollout_simulate import simulate as run

        run(
            Given(
                file=file,
                traffic=traffic,
                stable_error_rate=stable_error_rate,
                canary_error_rate=canary_error_rate,
                stable_slow_rate=stable_slow_rate,
                canary_slow_rate=canary_slow_rate,
                disagreement=disagreement,
                fallback_rate=fallback_rate,
                crash_at=tuple(crash_at or ()),
                approve_after=approve_after,
                resume_after=resume_after,
                external=external,
                external_at=tuple(external_at or ()),
                start=start,
                seed=seed,
                runs=runs,
                as_json=as_json,
            )
        )
