"""The files of an audit chain, and appending to them. Blocking, for one thread at a time."""

from __future__ import annotations

import logging
import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.core.state import AuditEntry, AuditRecord, StateUnavailable
from gateway.state.append_file import AppendFile, is_unwritten
from gateway.state.chain import NO_RECORD, ChainFault, Head, follow, head_of, seal
from gateway.state.errors import StateDamaged, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from gateway.state.disk import Disk

_log = logging.getLogger(__name__)
_WHAT: Final = "the audit chain cannot be written"
_NAME: Final = re.compile(r"audit-\d{12}\.jsonl")


def is_chain_file(name: str) -> bool:
    """Return whether a file of that name is part of a chain; their order is that of their names."""
    return _NAME.fullmatch(name) is not None


class ChainFiles:
    """The chain of a directory; `head` is its end on the disk, as far as it is known."""

    def __init__(self, directory: Path, disk: Disk, *, max_file_bytes: int, tail_records: int) -> None:
        self.head = Head()
        self.tail: deque[AuditRecord] = deque(maxlen=tail_records)
        self._directory = directory
        self._disk = disk
        self._max_file_bytes = max_file_bytes
        self._file: AppendFile | None = None
        self._recovery: AuditEntry | None = None

    def open(self, now_s: Callable[[], float]) -> None:
        """Read the newest files; an incomplete last line is cut off, and a record says so.

        Raises:
            StateDamaged: the newest file holds something else than a chain.
            StateUnavailable: the directory cannot be read, or not be made.
        """
        try:
            self._disk.make_directory(self._directory)
            files = self._files()
        except OSError as error:
            raise unavailable("the audit chain cannot be read", error) from error
        if not files:
            return
        if len(files) > 1:
            self._walk(*files[-2])
        path, content = files[-1]
        sound = self._walk(path, content, may_be_torn=True)
        self._file = AppendFile(self._disk, path, sound)
        if (dropped := len(content) - len(sound)) > 0:
            _log.warning("an incomplete record of %d bytes at the end of the audit chain dropped", dropped)
            detail = {"file": path.name, "dropped_bytes": dropped}
            self._recovery = AuditEntry(kind="audit", what="recovered", who="gateway", detail=detail)
        try:
            self._file.mend()
            if self._recovery is not None:
                self.append((), now_s)
        except StateUnavailable as error:
            _log.warning("%s", error)
        except OSError as error:
            _log.warning("%s", unavailable(_WHAT, error))

    def close(self) -> None:
        """Close the file; harmless twice."""
        if self._file is not None:
            self._file.close()

    def append(self, entries: Iterable[AuditEntry], now_s: Callable[[], float]) -> Sequence[AuditRecord]:
        """Append entries, all of them or none; durable on return.

        Raises:
            StateUnavailable: none was appended; or, as OutcomeUnknown, that is not known.
        """
        try:
            file = self._ready()
        except OSError as error:
            raise unavailable(_WHAT, error) from error
        size, head = file.size, self.head
        sealed = []
        for entry in entries if self._recovery is None else [self._recovery, *entries]:
            sealed.append(seal(head, now_s(), entry))
            head = head_of(sealed[-1][0])
        for _, line in sealed:
            try:
                # Each on the disk before the next: only the last line of a file may ever be incomplete.
                file.append(line)
            except OSError as error:
                if file.sound:
                    file.take_back(size)
                file.size = size
                raise unavailable(_WHAT, error, undone=file.sound) from error
        records = [record for record, _ in sealed]
        self.head = head
        self.tail.extend(records)
        self._recovery = None
        return records

    def _ready(self) -> AppendFile:
        """Return the file to append to; a failure of an earlier time is mended first."""
        if self._file is not None and not self._file.sound:
            self._file.mend()
        if self._file is None:
            self._file = self._begun()
        elif self._file.size >= self._max_file_bytes:
            self._rotate(self._file)
        return self._file

    def _rotate(self, full: AppendFile) -> None:
        try:
            self._file = self._begun()
        except OSError as error:
            _log.warning("%s", unavailable("a new file of the audit chain cannot be begun", error))
        else:
            full.close()

    def _begun(self) -> AppendFile:
        """Return a new file, empty and on the disk."""
        path = self._directory / f"audit-{self.head.seq + 1:012}.jsonl"
        self._disk.close(self._disk.open(path, create=True))
        file = AppendFile(self._disk, path, b"")
        try:
            self._disk.sync_directory(self._directory)
            file.mend()
        except OSError:
            file.close()
            with suppress(OSError):
                self._disk.remove(path)
            raise
        return file

    # Reading.

    def _files(self) -> list[tuple[Path, bytes]]:
        """Return the newest two files that are not empty; empty ones after them are removed."""
        found: list[tuple[Path, bytes]] = []
        for name in sorted(filter(is_chain_file, self._disk.names(self._directory)), reverse=True):
            path = self._directory / name
            if content := self._disk.read(path):
                found.append((path, content))
            elif not found:
                with suppress(OSError):
                    self._disk.remove(path)
            if len(found) == 2:
                break
        return found[::-1]

    def _walk(self, path: Path, content: bytes, *, may_be_torn: bool = False) -> bytes:
        """Take over the records of a file; return the part of it that is sound."""
        sound = bytearray()
        start, number = 0, 1
        while start < len(content):
            end = content.find(b"\n", start) + 1 or len(content)
            line = content[start:end]
            is_last = may_be_torn and end == len(content)
            if is_last and line[-2:-1] == b"}" and line[-1:] != b"\n":
                line = line[:-1]  # only the end of the line is wrong, if the rest is a record
            try:
                record = follow(None if self.head.hash == NO_RECORD else self.head, line)
            except ChainFault as fault:
                if is_last and (not content.endswith(b"\n") or is_unwritten(line, start)):
                    break
                raise self._damaged(path, number, fault) from fault
            self.head = head_of(record)
            self.tail.append(record)
            sound += line if line.endswith(b"\n") else line + b"\n"
            start, number = end, number + 1
        return bytes(sound)

    def _damaged(self, path: Path, number: int, fault: ChainFault) -> StateDamaged:
        return StateDamaged(
            f"{path}:{number}: the audit chain is damaged ({fault.kind.value}): {fault}; nothing was "
            "changed. Keep the directory as evidence, under another name, and start anew: a new chain begins"
        )
