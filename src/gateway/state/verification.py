"""Read an audit chain from its first record and say where it is not what was written. Blocking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.state.audit_files import is_chain_file
from gateway.state.chain import MAX_ENTRY_BYTES, ChainFault, FaultKind, Head, follow, head_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.core.state import AuditRecord

_MAX_LINE_BYTES: Final = 8 * MAX_ENTRY_BYTES
"""Longer than any record written."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong.

    Attributes:
        kind: in what way.
        file: where; the directory when the chain as a whole is meant.
        line: of the file, from 1; 0 likewise.
        what: in words.
    """

    kind: FaultKind
    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{where}: {self.kind.value}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        files: looked at, up to the fault.
        head: the last record that is right.
        fault: what comes after it; None when nothing is wrong.
    """

    files: int
    head: Head
    fault: Fault | None = None


def chain_files(directory: Path) -> list[Path]:
    """Return the files of the chain in a directory, in order."""
    return sorted(path for path in directory.iterdir() if is_chain_file(path.name))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line; one that is longer than any record comes in pieces."""
    with path.open("rb") as file:
        number = 1
        while line := file.readline(_MAX_LINE_BYTES):
            yield number, line
            number += line.endswith(b"\n")


def verify(directory: Path, known: Head | None = None) -> Verified:
    """Check every record of a chain, in constant memory.

    Nothing inside a chain shows that its newest records were cut off; only a head kept elsewhere does.

    Args:
        directory: of the chain's files.
        known: an end that the chain had once.

    Raises:
        OSError: a file cannot be read.
    """
    head = Head()
    files = 0
    seen = known is None or known == head
    for path in chain_files(directory):
        files += 1
        for number, line in lines(path):
            try:
                record = _next(head, line)
            except ChainFault as fault:
                return Verified(files, head, Fault(fault.kind, path, number, str(fault)))
            head = head_of(record)
            if known is not None and record.seq == known.seq:
                seen = True
                if head != known:
                    what = f"record {known.seq} is another one than the head given names"
                    return Verified(files, head, Fault(FaultKind.BROKEN_LINK, path, number, what))
    if not seen and known is not None:
        what = f"the chain ends with record {head.seq}; record {known.seq} was there once"
        return Verified(files, head, Fault(FaultKind.CUT_OFF, directory, 0, what))
    return Verified(files, head)


def _next(head: Head, line: bytes) -> AuditRecord:
    if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
        raise ChainFault(FaultKind.TORN, f"the line after record {head.seq} is incomplete")
    return follow(head, line)


def read_records(directory: Path) -> Iterator[AuditRecord]:
    """Yield the records of a chain as they come, unchecked but each in itself; what is no record is left out.

    Raises:
        OSError: a file cannot be read.
    """
    for path in chain_files(directory):
        for _, line in lines(path):
            try:
                yield follow(None, line)
            except ChainFault:
                continue
