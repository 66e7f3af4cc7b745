"""The options of `gateway plan`."""
# ruff: noqa: PLC0415, PLR0913  as in cli.py: verbs are imported when called, and each option is a parameter

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.options import (
    DEFAULT_URL,
    AdminUrlOption,
    JsonOption,
    UrlOption,
    address_of,
    beside,
    reported,
)


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rollout file.")],
    *,
    requests_per_second: Annotated[
        float | None,
        typer.Option(min=0.0, help="Requests for the model. [default: what the running gateway sees]"),
    ] = None,
    error_rate: Annotated[str, typer.Option(help="Share of stable's requests that fail.")] = "0.1%",
    exceed_rate: Annotated[
        str, typer.Option(help="Share of stable's requests slower than the thresholds of the gates.")
    ] = "1%",
    disagree_rate: Annotated[
        str, typer.Option(help="Share of shadow answers that differ although the canary is good.")
    ] = "0.1%",
    url: UrlOption = DEFAULT_URL,
    admin_url: AdminUrlOption = None,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_METRICS_URL", help="The metrics port. [default: 8002 on the host of --url]"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a rollout file would change, how long its steps take, and what to be careful about."""
    with reported():
        from gateway.commands.plan import PlanOptions
        from gateway.commands.plan import plan as run
        from gateway.commands.plan_gateway import Running

        rates = {"errors": error_rate, "exceed": exceed_rate, "disagree": disagree_rate}
        run(
            PlanOptions(
                file=file,
                running=Running(
                    beside(url, admin_url, 8003), address_of(url), beside(url, metrics_url, 8002)
                ),
                requests_per_s=requests_per_second,
                rates={kind: _rate(text) for kind, text in rates.items()},
                as_json=as_json,
            )
        )


def _rate(text: str) -> float:
    """Return the fraction that `0.1%` or `0.001` stands for."""
    number = text.strip()
    try:
        rate = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise CommandFailed(f"expected a rate such as 0.1% or 0.001, got {text!r}", Exit.USAGE)
    return rate
