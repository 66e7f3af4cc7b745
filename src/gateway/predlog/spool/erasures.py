"""A spool without erased subjects: what is in it is rewritten in place, what comes is let in without them.

Who was erased is told by a file beside the segments, which `ask` writes and whoever has the spool looks at.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.predlog.spool.disk import LocalSpoolDisk, replace_file, write_all
from gateway.predlog.spool.erasing import without
from gateway.predlog.spool.record import HEADER_BYTES, decode_body, encode_record, find_header
from gateway.predlog.spool.tombstones import KEEP_S, Tombstones, loaded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.predlog.rows import Frame
    from gateway.predlog.spool.disk import SpoolDisk
    from gateway.predlog.spool.segments import Segment

_log = logging.getLogger(__name__)

ERASURES_FILE: Final = "erasures"
_WIPED_BYTES: Final = 1 << 20
_SEEN_NS: Final = 3_600 * 10**9


class Erasures:
    """Whom a spool is kept without. Blocking; the spool's one thread."""

    def __init__(self, directory: Path, disk: SpoolDisk) -> None:
        self._directory = directory
        self._disk = disk
        self._seen = b""
        self._erased = Tombstones()
        self._pending = False

    def apply(self, segments: Sequence[Segment]) -> None:
        """Go through all segments if somebody was erased since the last time; cheap where nobody was.

        Raises:
            OSError: the disk's; the next call begins again.
        """
        data = _read(self._disk, self._directory)
        if data != self._seen:
            self._seen = data
            try:
                self._erased = loaded(data) if data else Tombstones()
                self._pending = True
            except ValueError as error:
                _log.error("prediction log: %s: %s", self._directory / ERASURES_FILE, error)
        if self._pending:
            # What was begun later was let in without them already: that somebody asked is seen in a minute.
            until_ns = self._erased.latest_ns + _SEEN_NS
            changed = sum(self.purge(segment) for segment in segments if segment.first_ns <= until_ns)
            self._pending = False
            _log.info("prediction log: subjects erased from %d frames of a spool", changed)

    def kept(self, frame: Frame) -> Frame | None:
        """Return what may be written of a frame, as long as it is; None: nothing."""
        return without(frame, self._erased)

    def purge(self, segment: Segment) -> int:
        """Rewrite a segment's records in place; return how many were changed or wiped.

        Neither offsets nor positions change: rows of a record that was wiped are found to be unreadable when
        their place is read. What is no sound record already is wiped as well, for nobody knows what it is.

        Raises:
            OSError: the disk's; begin again.
        """
        descriptor = self._disk.open(self._directory / segment.name)
        try:
            changed, offset = 0, 0
            while (found := find_header(self._disk, descriptor, offset, segment.size)) is not None:
                at, header = found
                self._wipe(descriptor, offset, at)
                offset = min(at + header.record_bytes, segment.size)
                body = self._disk.read_at(descriptor, header.body_bytes, at + HEADER_BYTES)
                frame = decode_body(header, body)
                kept = None if frame is None else self.kept(frame)
                if kept is None:
                    self._wipe(descriptor, at, offset)
                elif kept is not frame:
                    data = encode_record(kept, header.position, header.time_ns)
                    write_all(self._disk, descriptor, data, at)
                changed += kept is None or kept is not frame
            self._wipe(descriptor, offset, segment.size)
            self._disk.truncate(descriptor, segment.size)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        return changed

    def _wipe(self, descriptor: int, start: int, end: int) -> None:
        for offset in range(start, end, _WIPED_BYTES):
            write_all(self._disk, descriptor, bytes(min(_WIPED_BYTES, end - offset)), offset)


def ask(directory: Path, subject_hashes: frozenset[int], now_ns: int) -> None:
    """Have a spool without these subjects' rows from now on, whoever has it now or will have it.

    Raises:
        OSError: the disk's.
    """
    disk = LocalSpoolDisk()
    disk.make_directory(directory)
    data = _read(disk, directory)
    try:
        erased = loaded(data) if data else Tombstones()
    except ValueError as error:
        _log.error("prediction log: %s: %s", directory / ERASURES_FILE, error)
        erased = Tombstones()
    erased.forget(now_ns - int(KEEP_S * 1e9))
    erased.add(subject_hashes, now_ns)
    replace_file(disk, directory / ERASURES_FILE, erased.to_bytes())


def _read(disk: SpoolDisk, directory: Path) -> bytes:
    if ERASURES_FILE not in disk.names(directory):
        return b""
    descriptor = disk.open(directory / ERASURES_FILE)
    try:
        return disk.read_at(descriptor, disk.size(descriptor), 0)
    finally:
        disk.close(descriptor)
