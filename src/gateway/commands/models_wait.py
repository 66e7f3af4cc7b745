"""`gateway models --wait`: returns when a model is ready, for scripts that start a gateway and go on."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.commands.client import GatewayClient, model_path
from gateway.commands.failure import CommandFailed, Exit

if TYPE_CHECKING:
    from gateway.commands.client import Address

_PAUSE_S: Final = 0.2


def wait(address: Address, model: str, timeout_s: float) -> None:
    """Wait until a model is ready; the gateway itself may still be starting.

    Raises:
        CommandFailed: it was not within `timeout_s`, with what is in its way.
    """
    until_s = time.monotonic() + timeout_s
    while not _is_ready(address, model, last=time.monotonic() >= until_s):
        if time.monotonic() >= until_s:
            raise CommandFailed(
                f"model '{model}' is not ready after {timeout_s:g} s: {_reason(address, model)}"
            )
        time.sleep(_PAUSE_S)


def _is_ready(address: Address, model: str, *, last: bool) -> bool:
    try:
        with GatewayClient(address, timeout_s=5.0) as client:
            return client.request("GET", f"{model_path(model)}/ready").status == HTTPStatus.OK
    except CommandFailed as exc:
        if last or exc.code is not Exit.UNREACHABLE:
            raise
        return False


def _reason(address: Address, model: str) -> str:
    with GatewayClient(address, timeout_s=5.0) as client:
        index = client.json("POST", "/v2/repository/index")
    rows = [row for row in index if row.get("name") == model]
    if not rows:
        return "there is no such model"
    last = rows[-1]
    return ": ".join(text for text in (last.get("state", ""), last.get("reason", "")) if text)
