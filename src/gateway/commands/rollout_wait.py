"""`gateway rollout wait`: ends when a rollout has, so that a pipeline can go on from what came of it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.failure import CommandFailed, Exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.commands.rollout_client import RolloutClient

PROMOTED: Final = frozenset({"promoted", "rollback_window"})
FAILED: Final = frozenset({"aborted", "aborting", "rolled_back", "rolling_back"})
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for.

    Attributes:
        name: of the rollout.
        timeout_s: longest wait.
        file_hash: SHA-256 of the rollout file that must be the one in force: what an earlier one came to says
            nothing, and a gateway that knows of none yet is given the time to. Empty: whichever is.
    """

    name: str
    timeout_s: float
    file_hash: str = ""


def wait(client: RolloutClient, wanted: Wait, tell: Callable[[str], None]) -> None:
    """Return when the rollout is promoted; a gateway that restarts meanwhile is waited for.

    Args:
        client: of the gateway.
        wanted: what is waited for.
        tell: given a line whenever the rollout enters another phase or step.

    Raises:
        CommandFailed: it was aborted or rolled back, with the reason, or was not over in time; there is no
            such rollout, or the gateway refuses the file.
    """
    name, timeout_s = wanted.name, wanted.timeout_s
    until_s = time.monotonic() + timeout_s
    told = ""
    while True:
        document = _asked(client, wanted, last=time.monotonic() >= until_s)
        if document is not None and not _is_in_force(document, wanted.file_hash):
            told = "the gateway has not taken up this file yet"
        elif document is not None:
            line = describe(document)
            if line != told:
                tell(line)
            told = line
            if document["phase"] in PROMOTED:
                return
            if document["phase"] in FAILED:
                raise CommandFailed(
                    f"rollout '{name}' was withdrawn: {document.get('reason') or 'no reason'}"
                )
        if time.monotonic() >= until_s:
            raise CommandFailed(f"rollout '{name}' was not over after {timeout_s:g} s: {told or 'no answer'}")
        time.sleep(min(_PAUSE_S, max(0.0, until_s - time.monotonic())))


def file_hash(file: Path) -> str:
    """Return the hash by which a gateway knows a rollout file.

    Raises:
        CommandFailed: it cannot be read.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as exc:
        raise CommandFailed(f"{file}: cannot be read: {exc.strerror}", Exit.USAGE) from exc


def describe(document: dict[str, Any]) -> str:
    """Return where a rollout stands, in one line."""
    step = document.get("step") or {}
    parts = [str(document.get("phase", "?"))]
    if step.get("of"):
        parts.append(f"step {step.get('index', 0) + 1} of {step['of']}")
    if weight_ppm := document.get("weight_ppm"):
        parts.append(f"canary {weight_ppm / 10_000:g} %")
    parts += ["paused"] if document.get("paused") else []
    parts += [str(document["reason"])] if document.get("reason") else []
    return ", ".join(parts)


def _is_in_force(document: dict[str, Any], file_hash: str) -> bool:
    return not file_hash or (document.get("file") or {}).get("active_hash") == file_hash


def _asked(client: RolloutClient, wanted: Wait, *, last: bool) -> dict[str, Any] | None:
    """Return the rollout's document, empty while the gateway has not read its file; None: nobody answers."""
    try:
        if not wanted.file_hash:
            return client.rollout(wanted.name)
        document = client.find(wanted.name) or {}
        if not _is_in_force(document, wanted.file_hash):
            _raise_if_refused(client, wanted)
    except CommandFailed as exc:
        if last or exc.code is not Exit.UNREACHABLE:
            raise
        return None
    return document


def _raise_if_refused(client: RolloutClient, wanted: Wait) -> None:
    for row in client.index()["files"]:
        if row["hash"] == wanted.file_hash != row["active_hash"] and row["error"]:
            raise CommandFailed(f"rollout '{wanted.name}' does not begin: {row['error']}")
