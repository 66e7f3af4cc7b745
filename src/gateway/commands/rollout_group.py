"""The verbs of `gateway rollout`: parses their options, then calls them."""
# ruff: noqa: PLC0415, PLR0913  as in cli.py: verbs are imported when called, and each option is a parameter

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from gateway.commands.options import DEFAULT_URL, AdminUrlOption, JsonOption, UrlOption, beside, reported
from gateway.commands.rollout_simulate_command import simulate

if TYPE_CHECKING:
    from gateway.commands.rollout_client import RolloutClient

rollout_app = typer.Typer(
    help="See how rollouts stand, and act on them.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="The rollout's name.")]
AnyNameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="[NAME]", help="The rollout's name; all of them if absent.")
]
SocketOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="GATEWAY_OPERATOR_SOCKET",
        help="The gateway's operator socket. [default: where the gateway says, if that is on this host]",
    ),
]
ReasonOption: TypeAlias = Annotated[str, typer.Option(help="Why, for the audit log.")]


@rollout_app.command()
def status(
    name: AnyNameArgument = "",
    *,
    url: UrlOption = DEFAULT_URL,
    admin_url: AdminUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print where one rollout stands, or all of them."""
    with reported():
        import json

        from rich.console import Console

        from gateway.commands.rollout_view import rollout_page, rollout_table

        client = _client(url, admin_url)
        document = client.rollout(name) if name else client.index()
        if as_json:
            typer.echo(json.dumps(document))
            return
        Console(highlight=False).print(rollout_page(document) if name else rollout_table(document))


@rollout_app.command()
def watch(
    name: AnyNameArgument = "", *, url: UrlOption = DEFAULT_URL, admin_url: AdminUrlOption = None
) -> None:
    """Show the same live, until Ctrl-C."""
    with reported():
        from rich.console import Console

        from gateway.commands.rollout_watch import watch as run

        run(_client(url, admin_url), name, Console(highlight=False))


@rollout_app.command()
def wait(
    name: NameArgument,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            help="The rollout file that must be in force: what an older one came to is not waited for."
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.0, help="Longest wait, in seconds.")] = 86_400.0,
    url: UrlOption = DEFAULT_URL,
    admin_url: AdminUrlOption = None,
) -> None:
    """Wait until it is promoted (exit code 0) or withdrawn (1), for pipelines."""
    with reported():
        from gateway.commands.rollout_wait import Wait, file_hash
        from gateway.commands.rollout_wait import wait as run

        run(_client(url, admin_url), Wait(name, timeout_s, file_hash(file) if file else ""), typer.echo)


@rollout_app.command()
def login(
    *, url: UrlOption = DEFAULT_URL, admin_url: AdminUrlOption = None, operator_socket: SocketOption = None
) -> None:
    """Print the address of the page with a session of yours, good for eight hours. Keep it to yourself."""
    with reported():
        client = _client(url, admin_url, operator_socket)
        typer.echo(f"{client.admin.url}/rollouts/ui#session={client.login()}")


def _verb(name: str, what: str) -> Callable[..., None]:
    def act(
        rollout: NameArgument,
        *,
        reason: ReasonOption = "",
        evidence: Annotated[
            str,
            typer.Option(
                help="Hash of the evidence that is approved; what there is now if absent.",
                hidden=name != "approve",
            ),
        ] = "",
        url: UrlOption = DEFAULT_URL,
        admin_url: AdminUrlOption = None,
        operator_socket: SocketOption = None,
    ) -> None:
        with reported():
            from gateway.commands.rollout_wait import describe

            client = _client(url, admin_url, operator_socket)
            typer.echo(describe(client.operate(rollout, name, reason=reason, evidence=evidence)))

    act.__doc__ = what
    return act


for _name, _what in {
    "pause": "Hold it where it is; a withdrawal still happens.",
    "resume": "Let it go on after a pause.",
    "approve": "Approve of the evidence, on the gateway's host, where it is known who you are.",
    "abort": "Give everything back to stable.",
    "promote": "Promote now, whatever gates say; approvals that the file asks for are still needed.",
    "rollback": "Go back to the old stable while it is kept warm.",
    "retry": "Begin a withdrawn rollout again.",
}.items():
    rollout_app.command(_name)(_verb(_name, _what))

rollout_app.command()(simulate)


def _client(url: str, admin_url: str | None, operator_socket: Path | None = None) -> "RolloutClient":
    from gateway.commands.rollout_client import RolloutClient

    return RolloutClient(beside(url, admin_url, 8003), operator_socket)
