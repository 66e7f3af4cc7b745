"""The verbs of `gateway audit`: parses their options, then calls them."""
# ruff: noqa: PLC0415  as in cli.py: verbs are imported when called

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from gateway.commands.options import JsonOption, reported

audit_app = typer.Typer(
    help="Check and read the chain of records of who did what to rollouts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DirectoryArgument: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="DIRECTORY", help="The gateway's state directory; it may be running."),
]


@audit_app.command()
def verify(
    directory: DirectoryArgument,
    *,
    head: Annotated[
        str,
        typer.Option(
            metavar="SEQ:HASH", help="An end printed earlier: shows that nothing was cut off since."
        ),
    ] = "",
) -> None:
    """Check that no record was changed, left out or cut off (exit code 0), else name the first fault (1)."""
    with reported():
        from gateway.commands.audit import verify as run

        run(directory, head)


@audit_app.command()
def head(directory: DirectoryArgument) -> None:
    """Print the chain's end, to be kept where the gateway cannot write."""
    with reported():
        from gateway.commands.audit import head as run

        run(directory)


@audit_app.command()
def show(
    directory: DirectoryArgument,
    *,
    rollout: Annotated[str, typer.Option(help="Only records of this rollout.")] = "",
    since: Annotated[str, typer.Option(help="How long ago, 90m, 24h, 7d, or a time in ISO 8601.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Print records, oldest first."""
    with reported():
        from gateway.commands.audit import ShowAuditOptions
        from gateway.commands.audit import show as run

        run(ShowAuditOptions(directory, rollout, since, as_json))
