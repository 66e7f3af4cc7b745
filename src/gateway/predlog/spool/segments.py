"""Segment files of a spool: their names, their bounds, and how one is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.predlog.spool.record import HEADER_BYTES, decode_body, find_header, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.rows import Frame
    from gateway.predlog.spool.disk import SpoolDisk
    from gateway.predlog.spool.record import Header

_NAME: Final = re.compile(r"([0-9]{10})-([0-9]{20})\.seg")


@dataclass(slots=True)
class Segment:
    """One file of records.

    Attributes:
        number: consecutive; a missing one was dropped whole.
        base: position of its first record.
        end: position after its last one.
        size: bytes that hold records; what lies behind them is the rest of a failed write.
        first_ns: wall clock of its first record, 0 when nothing is in it.
        rows: rows in it that are neither released nor known to be lost.
    """

    number: int
    base: int
    end: int
    size: int = 0
    first_ns: int = 0
    rows: int = 0

    @property
    def name(self) -> str:
        """File name: number and base, so that neither needs the file's content."""
        return f"{self.number:010d}-{self.base:020d}.seg"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record begins, or where the next one will.

    Attributes:
        number: the segment's.
        offset: in bytes, within it.
        position: rows written to the spool before.
    """

    number: int = 0
    offset: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """What reading at a place gave.

    Attributes:
        frame: the frame; None when the segment has no further one.
        place: where the record began.
        after: where to read next.
        gaps: stretches of positions, start and end, on the way there that cannot be read.
    """

    frame: Frame | None
    place: Place
    after: Place
    gaps: tuple[tuple[int, int], ...] = ()


def parse_name(name: str) -> tuple[int, int] | None:
    """Return number and base of a segment's file name; None when it is none."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def list_segments(disk: SpoolDisk, directory: Path) -> list[Segment]:
    """Return the segments of a directory in order, their ends not yet known."""
    found = sorted(filter(None, map(parse_name, disk.names(directory))))
    return [Segment(number, base, base) for number, base in found]


class SegmentReader:
    """Reads one segment's records, in order or from any place; keeps its file open."""

    def __init__(self, disk: SpoolDisk, directory: Path, segment: Segment) -> None:
        self.segment = segment
        self._disk = disk
        self._descriptor = disk.open(directory / segment.name)

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._descriptor)

    def read(self, place: Place) -> Read:
        """Return the first sound record from a place on.

        Raises:
            OSError: the disk's.
        """
        number, offset, position = self.segment.number, place.offset, place.position
        gaps: list[tuple[int, int]] = []
        while (found := self._find(offset, position)) is not None:
            at, header = found
            if header.position > position:
                gaps.append((position, header.position))
            after = Place(number, at + header.record_bytes, header.end)
            frame = self._body(at, header)
            if frame is not None:
                return Read(frame, Place(number, at, header.position), after, tuple(gaps))
            if header.rows:
                gaps.append((header.position, header.end))
            offset, position = after.offset, after.position
        end = Place(number, self.segment.size, self.segment.end)
        if end.position > position:
            gaps.append((position, end.position))
        return Read(None, end, end, tuple(gaps))

    def _find(self, offset: int, position: int) -> tuple[int, Header] | None:
        """Return the first header from an offset on that can stand there: not what a failed write left."""
        size = self.segment.size
        while True:
            header = read_header(self._disk, self._descriptor, offset, size)
            if header is None:
                found = find_header(self._disk, self._descriptor, offset, size)
                if found is None:
                    return None
                offset, header = found
            if position <= header.position and header.end <= self.segment.end:
                return offset, header
            offset += 1

    def _body(self, at: int, header: Header) -> Frame | None:
        body = self._disk.read_at(self._descriptor, header.body_bytes, at + HEADER_BYTES)
        return decode_body(header, body)

    def measure(self, limit: int | None) -> int:
        """Find out where the segment ends, and when it began; return how many torn bytes follow.

        Args:
            limit: position of the next segment's first record, when nothing lies between: then only the
                first header is read. None: every record is.
        """
        segment, file_bytes = self.segment, self._disk.size(self._descriptor)
        found = find_header(self._disk, self._descriptor, 0, file_bytes)
        segment.first_ns = found[1].time_ns if found else 0
        if limit is not None:
            segment.size, segment.end = file_bytes, limit
            return 0
        while found is not None:
            at, header = found
            if header.position >= segment.end and self._body(at, header) is not None:
                segment.size, segment.end = at + header.record_bytes, header.end
            found = find_header(self._disk, self._descriptor, at + header.record_bytes, file_bytes)
        return file_bytes - segment.size

    def cut(self) -> None:
        """Cut off what follows the last record."""
        self._disk.truncate(self._descriptor, self.segment.size)
