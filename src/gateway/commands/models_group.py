"""The verbs of `gateway models`: parses their options, then calls them."""
# ruff: noqa: PLC0415, PLR0913  as in cli.py: verbs are imported when called, and each option is a parameter

from typing import Annotated

import typer

from gateway.commands.failure import Exit
from gateway.commands.options import (
    DEFAULT_URL,
    AdminUrlOption,
    JsonOption,
    ModelArgument,
    UrlOption,
    address_of,
    beside,
    reported,
)

models_app = typer.Typer(
    help="Print what a running gateway serves: version, state, signature, memory, rows per second.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@models_app.callback()
def models(
    context: typer.Context,
    *,
    url: UrlOption = DEFAULT_URL,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_METRICS_URL", help="The metrics port. [default: 8002 on the host of --url]"
        ),
    ] = None,
    admin_url: AdminUrlOption = None,
    interval_s: Annotated[float, typer.Option(min=0.01, help="Seconds over which rows are counted.")] = 1.0,
    wait: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Print nothing; return when this model is ready.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.0, help="Longest that --wait waits, in seconds.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Print what a running gateway serves: version, state, signature, memory, rows per second."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    with reported():
        from gateway.commands.models_table import ModelsOptions
        from gateway.commands.models_table import models as run
        from gateway.commands.models_wait import wait as wait_for

        if wait is not None:
            wait_for(address_of(url), wait, timeout_s)
            return
        metrics, admin = beside(url, metrics_url, 8002), beside(url, admin_url, 8003)
        run(ModelsOptions(address_of(url), metrics, admin, interval_s, as_json))


def _refuse_options(context: typer.Context) -> None:
    """End a command line whose options stand before the sub-command, which does not see them."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            typer.echo(f"gateway: options of '{context.invoked_subcommand}' stand behind it", err=True)
            raise typer.Exit(Exit.USAGE)


@models_app.command()
def show(
    model: ModelArgument,
    *,
    version: Annotated[
        str,
        typer.Option(help="The version shown in detail, number or label; the one that answers if absent."),
    ] = "",
    url: UrlOption = DEFAULT_URL,
    admin_url: AdminUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print everything about one model: versions, steps, signature, lineage, where its registry stands."""
    with reported():
        from gateway.commands.models_show import ShowOptions
        from gateway.commands.models_show import show as run

        run(ShowOptions(beside(url, admin_url, 8003), model, version, as_json))
