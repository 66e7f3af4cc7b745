"""`gateway rollout watch`: a rollout live on the terminal, until its watcher has seen enough."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.rollout_view import rollout_page, rollout_table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gateway.commands.rollout_client import RolloutClient

INTERVAL_S: Final = 1.0


def watch(client: RolloutClient, name: str, console: Console) -> None:
    """Draw the rollout, or all of them without a name, once a second; Ctrl-C ends it.

    A gateway that is away is waited for; what was seen last stays, and says so.

    Raises:
        CommandFailed: it was never reached, or there is no such rollout.
    """
    seen = _drawn(client, name)
    with suppress(KeyboardInterrupt), Live(seen, console=console, screen=console.is_terminal) as live:
        while True:
            time.sleep(INTERVAL_S)
            try:
                seen = _drawn(client, name)
                live.update(seen)
            except CommandFailed as exc:
                if exc.code is not Exit.UNREACHABLE:
                    raise
                live.update(
                    Group(Text("the gateway does not answer; this is what was seen last", "red"), seen)
                )


def _drawn(client: RolloutClient, name: str) -> RenderableType:
    return rollout_page(client.rollout(name)) if name else rollout_table(client.index())
