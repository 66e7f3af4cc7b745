"""`gateway models show`: everything about one model, from the administration port of a running gateway."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console

from gateway.commands.client import GatewayClient, raise_for_status
from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.model_page import model_page

if TYPE_CHECKING:
    from gateway.commands.client import Address, Reply

_NO_ROUTE = b'{"error":"Not Found"}'


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """What to show.

    Attributes:
        admin: address of the administration port.
        model: name.
        version: number or label of the version whose details are shown; empty: the one that answers.
        as_json: print the page as JSON, everything in it.
    """

    admin: Address
    model: str
    version: str = ""
    as_json: bool = False


def show(options: ShowOptions) -> None:
    """Print what the gateway knows of a model.

    Raises:
        CommandFailed: no gateway, no such model or version, or not the administration port.
    """
    page = _page(_asked(options), options.admin)
    if options.as_json:
        sys.stdout.write(json.dumps(page) + "\n")
        return
    try:
        drawn = model_page(page, options.version)
    except LookupError as exc:
        if isinstance(exc, KeyError):
            raise _nonsense(options.admin) from exc
        raise CommandFailed(str(exc)) from exc
    except (TypeError, ValueError) as exc:
        raise _nonsense(options.admin) from exc
    Console(highlight=False).print(drawn)


def _asked(options: ShowOptions) -> Reply:
    try:
        with GatewayClient(options.admin) as client:
            return client.request("GET", f"/models/{quote(options.model, safe='')}")
    except CommandFailed as exc:
        if exc.code is not Exit.UNREACHABLE:
            raise
        raise CommandFailed(str(exc).replace("--url", "--admin-url"), exc.code) from exc


def _page(reply: Reply, admin: Address) -> dict[str, Any]:
    if reply.status == HTTPStatus.NOT_FOUND and reply.body.replace(b" ", b"") == _NO_ROUTE.replace(b" ", b""):
        raise _nonsense(admin)
    raise_for_status(reply)
    page = reply.json()
    if not isinstance(page, dict):
        raise _nonsense(admin)
    return page


def _nonsense(admin: Address) -> CommandFailed:
    return CommandFailed(
        f"{admin.url} has no page of a model: is it the administration port, 8003 by default?"
    )
