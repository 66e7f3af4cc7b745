"""`gateway audit`: check the chain of records of who did what, read it, name its end."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gateway.commands.failure import CommandFailed, Exit
from gateway.state.chain import FaultKind, Head
from gateway.state.verification import Verified, chain_files, read_records
from gateway.state.verification import verify as verify_chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.core.state import AuditRecord

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SETTLE_ATTEMPTS: Final = 5
_SETTLE_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ShowAuditOptions:
    """Which records to print.

    Attributes:
        directory: the gateway's state directory, or the chain's.
        rollout: only of this one; empty: of all.
        since: how long ago, `90m`, `24h`, `7d`, or a time in ISO 8601, UTC where it names no offset; empty:
            from the first.
        as_json: print the records as they are, one a line.
    """

    directory: Path
    rollout: str = ""
    since: str = ""
    as_json: bool = False


def verify(directory: Path, head: str = "") -> None:
    """Print that a chain is sound, and its head.

    Args:
        directory: the gateway's state directory, or the chain's; the gateway may be running.
        head: `SEQ:HASH` as `gateway audit head` printed it once: shows that nothing was cut off since.

    Raises:
        CommandFailed: it is not, with the first fault (FAILED); or it cannot be looked at (USAGE).
    """
    chain = _chain(directory)
    found = _verified(chain, _parsed_head(head) if head else None)
    if found.fault is not None:
        raise CommandFailed(f"{found.fault}; sound up to record {found.head.seq}")
    files = "1 file" if found.files == 1 else f"{found.files} files"
    sys.stdout.write(f"{chain}: {found.head.seq} records in {files}, sound; head {found.head}\n")


def head(directory: Path) -> None:
    """Print the end of a chain as `SEQ:HASH`, to be kept where the gateway cannot write.

    Raises:
        CommandFailed: the chain is not sound (FAILED), or it cannot be looked at (USAGE).
    """
    found = _verified(_chain(directory), None)
    if found.fault is not None:
        raise CommandFailed(f"{found.fault}; sound up to record {found.head.seq}")
    sys.stdout.write(f"{found.head}\n")


def show(options: ShowAuditOptions) -> None:
    """Print records, oldest first, one a line. They are not checked: `verify` does that.

    Raises:
        CommandFailed: there is no chain, it cannot be read, or `since` is no time (USAGE).
    """
    since_s = _since_s(options.since) if options.since else 0.0
    for record in _records(_chain(options.directory)):
        if record.at >= since_s and options.rollout in {"", record.entry.rollout}:
            sys.stdout.write(_json(record) if options.as_json else _line(record))


def _chain(directory: Path) -> Path:
    chain = directory / "audit" if (directory / "audit").is_dir() else directory
    try:
        if chain_files(chain):
            return chain
    except OSError as error:
        raise _unreadable(error) from error
    raise CommandFailed(f"there is no audit chain in {directory}", Exit.USAGE)


def _verified(chain: Path, known: Head | None) -> Verified:
    """Check a chain; a line that is incomplete may be one that a running gateway is writing."""
    for attempt in range(1, _SETTLE_ATTEMPTS + 1):
        try:
            found = verify_chain(chain, known)
        except OSError as error:
            raise _unreadable(error) from error
        if found.fault is None or found.fault.kind is not FaultKind.TORN or attempt == _SETTLE_ATTEMPTS:
            return found
        time.sleep(_SETTLE_PAUSE_S)
    raise AssertionError("unreachable")


def _records(chain: Path) -> Iterator[AuditRecord]:
    try:
        yield from read_records(chain)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> CommandFailed:
    return CommandFailed(f"{error.filename}: {error.strerror}", Exit.USAGE)


def _parsed_head(text: str) -> Head:
    match = re.fullmatch(r"(\d{1,15}):([0-9a-f]{64})", text.strip())
    if match is None:
        raise CommandFailed(
            f"'{text}' is no head: it must be SEQ:HASH, as `gateway audit head` prints it", Exit.USAGE
        )
    return Head(int(match[1]), match[2])


def _since_s(text: str) -> float:
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return time.time() - int(match[1]) * _UNITS_S[match[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandFailed(
            f"'{text}' is no time: give 90m, 24h or 7d, or one like 2026-01-31T12:00", Exit.USAGE
        ) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _json(record: AuditRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def _line(record: AuditRecord) -> str:
    entry = record.entry
    at = datetime.fromtimestamp(record.at, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
    detail = json.dumps(entry.detail) if entry.detail else ""
    words = (
        f"{record.seq:>6}",
        f"{at}Z",
        entry.rollout or "-",
        entry.kind,
        entry.what,
        f"by {entry.who}",
        detail,
    )
    return "  ".join(_shown(word) for word in words if word) + "\n"


def _shown(text: str) -> str:
    """Return text that leaves the terminal as it is."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
