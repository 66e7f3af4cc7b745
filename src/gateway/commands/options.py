"""Options and arguments that several commands have, the addresses they name, and how failures are told."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from gateway.commands.failure import CommandFailed, Exit
from gateway.core.errors import GatewayError

if TYPE_CHECKING:
    from gateway.commands.client import Address

DEFAULT_URL: Final = "http://127.0.0.1:8000"

ModelArgument: TypeAlias = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
VersionOption: TypeAlias = Annotated[
    str, typer.Option(help="The model's version; the gateway's choice if absent.")
]
UrlOption: TypeAlias = Annotated[
    str, typer.Option(envvar="GATEWAY_URL", help="The gateway's HTTP port, http://HOST:PORT.")
]
AdminUrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="GATEWAY_ADMIN_URL", help="The administration port. [default: 8003 on the host of --url]"
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn failures into a message on standard error and an exit code."""
    try:
        yield
    except CommandFailed as exc:
        typer.echo(f"gateway: {exc}", err=True)
        raise typer.Exit(exc.code) from exc
    except GatewayError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(Exit.FAILED) from exc
    except BrokenPipeError:
        # The reader of our output, `head` for one, has seen enough.
        sys.stderr.close()
        raise typer.Exit(Exit.FAILED) from None


def address_of(url: str, default_port: int = 8000) -> "Address":
    """Return the address that a URL names.

    Raises:
        CommandFailed: it names none.
    """
    from gateway.commands.client import parse_address  # noqa: PLC0415 - `gateway --help` needs no client

    return parse_address(url, default_port)


def beside(url: str, other: str | None, port: int) -> "Address":
    """Return the address of another port of the gateway at `url`: `other` if given, else `port` there."""
    return address_of(other, port) if other else replace(address_of(url), port=port, base_path="")
