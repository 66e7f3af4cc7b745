"""A queue of frames on the disk: appended at one end, read and released at the other. Blocking, one thread.

Invariants. `rows` is what was recovered and appended less what was released, dropped or found corrupt; every
row leaves by exactly one of these. Positions count rows ever written, so that what cannot be read is known in
rows. A failed append leaves nothing: its bytes are cut off, or lie beyond the next segment's base.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.errors import GatewayError
from gateway.predlog.spool.erasures import Erasures
from gateway.predlog.spool.lost import LostRows
from gateway.predlog.spool.segments import Place, Segment, SegmentReader, list_segments
from gateway.predlog.spool.watermark import Watermark, read_watermark, write_watermark
from gateway.predlog.spool.writer import SegmentWriter

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.rows import Frame
    from gateway.predlog.spool.disk import SpoolDisk
    from gateway.predlog.spool.options import SpoolOptions

_log = logging.getLogger(__name__)


class SpoolFull(GatewayError):
    """The spool is as large as it may be, and all of it may have been sent."""


class Rows(NamedTuple):
    """Rows that left a spool: of earlier processes, and of this one.

    A segment is of one process: who opens a spool begins a new one.
    """

    earlier: int = 0
    own: int = 0

    def plus(self, rows: int, *, own: bool) -> Rows:
        """Return this with more rows."""
        return Rows(self.earlier, self.own + rows) if own else Rows(self.earlier + rows, self.own)


class Stored(NamedTuple):
    """Where a frame is.

    Attributes:
        place: of its record.
        after: of the record behind it.
    """

    place: Place
    after: Place


class Spool:
    """Frames in segments of a directory that this process has alone.

    Attributes:
        size_bytes: of all segments.
    """

    def __init__(self, directory: Path, options: SpoolOptions, disk: SpoolDisk) -> None:
        self.size_bytes = 0
        self._directory = directory
        self._options = options
        self._disk = disk
        self._segment_bytes = min(options.segment_bytes, options.max_bytes // 4)
        self._segments: list[Segment] = []
        self._writer = SegmentWriter(directory, options, disk)
        self._erasures = Erasures(directory, disk)
        self._reader: SegmentReader | None = None
        self._lock: int | None = None
        self._lost = LostRows()
        self._corrupt = Rows()
        self._next = Place()
        self._released = Place()
        self._begun = 0
        self._last_number = 0
        self._first_own = 1
        self._end = 0
        self._mark = Watermark()

    @property
    def rows(self) -> Rows:
        """Rows in the spool, neither released, dropped nor known to be corrupt."""
        own = sum(s.rows for s in self._segments if s.number >= self._first_own)
        return Rows(sum(s.rows for s in self._segments) - own, own)

    @property
    def sync_failures(self) -> int:
        """Flushes that failed; what they held would be lost if the power was."""
        return self._writer.sync_failures

    # Opening and closing.

    def open(self) -> None:
        """Take the directory and find out what is in it: `rows`, and what of it is lost, `take_corrupt`.

        Raises:
            OSError: the disk's; BlockingIOError when another process has the directory.
        """
        self._disk.make_directory(self._directory)
        self._lock = self._disk.lock(self._directory)
        try:
            self._recover()
            self._erasures.apply(self._segments)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Flush, write down how far it was released, and let go; harmless twice. Never raises."""
        self._writer.close()
        with suppress(OSError):
            self.checkpoint()
        self._close_reader()
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                self._disk.close(lock)

    def _recover(self) -> None:
        mark = read_watermark(self._disk, self._directory) or Watermark()
        segments = list_segments(self._disk, self._directory)
        for segment, following in zip_longest(segments, segments[1:]):
            adjacent = following is not None and following.number == segment.number + 1
            self._measure(segment, following.base if following is not None and adjacent else None)
        start = Place(mark.number, mark.offset, mark.position)
        for segment in segments:
            begin = start.position if segment.number == start.number else segment.base
            segment.rows = max(segment.end - begin, 0) if segment.number >= start.number else 0
        self._segments = segments
        self.size_bytes = sum(s.size for s in segments)
        self._last_number = max([mark.number, mark.begun, *(s.number for s in segments)])
        self._first_own = self._last_number + 1
        self._end = max([mark.position, *(s.end for s in segments)])
        self._mark, self._begun = mark, mark.begun
        self._next = self._released = start
        self._remove_released()

    def _measure(self, segment: Segment, limit: int | None) -> None:
        reader = SegmentReader(self._disk, self._directory, segment)
        try:
            torn = reader.measure(limit)
            if torn:
                _log.warning("prediction log: %d torn bytes at the end of %s dropped", torn, segment.name)
                with suppress(OSError):
                    reader.cut()
        finally:
            reader.close()

    # Appending.

    def make_room(self, frame: Frame) -> Rows:
        """Drop the oldest segments not sent from, until a frame fits; return what was lost.

        It may not fit then either: `append` says so.
        """
        dropped, more = Rows(), self._writer.record_bytes(frame)
        while self.size_bytes + more > self._options.max_bytes:
            oldest = next((s for s in self._segments[:-1] if s.number > self._begun), None)
            if oldest is None:
                break
            dropped = dropped.plus(self._drop(oldest), own=self._is_own(oldest))
        return dropped

    def append(
        self, frame: Frame, now_s: float, time_ns: int, *, sent: bool = False, begun: bool = False
    ) -> Stored:
        """Write a frame at the end. `make_room` first.

        Args:
            frame: what to keep.
            now_s: monotonic clock.
            time_ns: wall clock, nanoseconds since the epoch.
            sent: it is on its way, as is all before it: it is read again only after `rewind`.
            begun: it may have been sent once: it is never dropped to make room.

        Raises:
            SpoolFull: it has no room.
            OSError: the disk's; nothing of the frame is kept.
        """
        size = self._writer.record_bytes(frame)
        if self.size_bytes + size > self._options.max_bytes:
            raise SpoolFull("the prediction log's spool is full of frames that may have been sent")
        segment = self._active(size)
        place = Place(segment.number, segment.size, segment.end)
        kept = self._erasures.kept(frame)
        self._writer.write(segment, kept or frame, now_s, time_ns, blank=kept is None)
        self._end = segment.end
        self.size_bytes += size
        after = Place(segment.number, segment.size, segment.end)
        if sent:
            self._next = after
        if sent or begun:
            self._begin(segment.number)
        return Stored(place, after)

    def sync(self, now_s: float, *, force: bool = False) -> None:
        """Flush what is due by the policy, or all; a failure is counted and logged, never raised."""
        self._writer.sync(now_s, force=force)

    def _active(self, more: int) -> Segment:
        """Return the segment to append to; a new one where none is open or it would become too long."""
        if self._writer.is_open and self._segments[-1].size + more <= self._segment_bytes:
            return self._segments[-1]
        self._writer.close()
        segment = Segment(self._last_number + 1, self._end, self._end)
        self._writer.begin(segment)
        self._last_number = segment.number
        self._segments.append(segment)
        return segment

    # Dropping.

    def expire(self, time_ns: int) -> Rows:
        """Drop segments that are older than allowed, also those sent from; return what was lost.

        Rows of subjects that somebody had erased meanwhile are taken out, too.

        Args:
            time_ns: wall clock, nanoseconds since the epoch; one that was put back drops nothing.
        """
        oldest_ns = time_ns - int(self._options.max_age_s * 1e9)
        dropped = Rows()
        for segment in [s for s in self._segments if 0 < s.first_ns < oldest_ns]:
            dropped = dropped.plus(self._drop(segment), own=self._is_own(segment))
        try:
            self._erasures.apply(self._segments)
        except OSError as error:
            _log.warning("prediction log: subjects cannot be erased from the spool yet: %s", error)
        return dropped

    def take_corrupt(self) -> Rows:
        """Return the rows found unreadable since the last call; they have left `rows`."""
        corrupt, self._corrupt = self._corrupt, Rows()
        return corrupt

    def _is_own(self, segment: Segment) -> bool:
        return segment.number >= self._first_own

    def _drop(self, segment: Segment) -> int:
        rows, segment.rows = segment.rows, 0
        self._remove(segment)
        return rows

    def _remove(self, segment: Segment) -> None:
        if segment is self._segments[-1]:
            self._writer.close()
        if self._reader is not None and self._reader.segment is segment:
            self._close_reader()
        self._segments.remove(segment)
        self.size_bytes -= segment.size
        try:
            self._disk.remove(self._directory / segment.name)
        except OSError as error:
            _log.warning("prediction log: %s cannot be deleted: %s", segment.name, error)

    # Reading.

    def read(self) -> tuple[Stored, Frame] | None:
        """Return the next frame to send, and go on behind it; None when all were read.

        Rows that cannot be read on the way leave the spool: `take_corrupt`.

        Raises:
            OSError: the disk's; the next call tries the same place.
        """
        while (segment := self._segment_at(self._next.number)) is not None:
            if self._next.number != segment.number:
                self._next = Place(segment.number, 0, segment.base)
            read = self._reader_of(segment).read(self._next)
            for gap in read.gaps:
                self._lose(segment, gap)
            self._next = read.after
            if read.frame is not None:
                self._begin(segment.number)
                return Stored(read.place, read.after), read.frame
            if segment is self._segments[-1]:
                return None
            self._next = Place(segment.number + 1, 0, segment.end)
        return None

    def skip(self) -> None:
        """Give up what is left to read of the segment that is being read: its rows are corrupt."""
        segment = self._segment_at(self._next.number)
        if segment is None:
            return
        begun = segment.number == self._next.number
        self._lose(segment, (self._next.position if begun else segment.base, segment.end))
        self._next = Place(segment.number, segment.size, segment.end)
        if segment is self._segments[-1]:
            self._writer.close()

    def at_end(self) -> bool:
        """Return whether every frame was read."""
        number, offset = self._next.number, self._next.offset
        return not any(s.number >= number and s.size > offset * (s.number == number) for s in self._segments)

    def rewind(self, place: Place) -> None:
        """Read on from an earlier place."""
        self._next = place

    def _segment_at(self, number: int) -> Segment | None:
        return next((s for s in self._segments if s.number >= number), None)

    def _reader_of(self, segment: Segment) -> SegmentReader:
        if self._reader is None or self._reader.segment is not segment:
            self._close_reader()
            self._reader = SegmentReader(self._disk, self._directory, segment)
        return self._reader

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(OSError):
                reader.close()

    def _lose(self, segment: Segment, gap: tuple[int, int]) -> None:
        rows = self._lost.add(*gap)
        segment.rows -= rows
        self._corrupt = self._corrupt.plus(rows, own=self._is_own(segment))

    def _begin(self, number: int) -> None:
        """Remember, also beyond a crash, that frames of this segment may have been sent."""
        if number > self._begun:
            self._begun = number
            try:
                self.checkpoint()
            except OSError as error:
                _log.warning("prediction log: the spool's watermark cannot be written: %s", error)

    # Releasing.

    def release(self, stored: Stored, rows: int) -> int:
        """Forget a frame that was read, or appended as sent; in that order. Return how many rows left.

        They are fewer than `rows` when they were dropped meanwhile, or found to be corrupt.
        """
        segment = self._segment_at(stored.place.number)
        if segment is None or segment.number != stored.place.number:
            return 0
        rows -= self._lost.known(stored.place.position, stored.place.position + rows)
        segment.rows -= rows
        self._release_to(stored.after)
        return rows

    def discard(self, stored: Stored, rows: int) -> int:
        """Let a frame's rows leave though those before it are kept; return how many did."""
        segment = self._segment_at(stored.place.number)
        if segment is None or segment.number != stored.place.number:
            return 0
        rows = self._lost.add(stored.place.position, stored.place.position + rows)
        segment.rows -= rows
        return rows

    def release_read(self) -> None:
        """Forget all up to where the next read is; call it when nothing that was read is to be kept."""
        self._release_to(self._next)

    def checkpoint(self) -> None:
        """Write down how far it was released, if that has changed: nothing before is sent again.

        Raises:
            OSError: the disk's; more will be sent again than need be.
        """
        place = self._released
        mark = Watermark(place.number, place.offset, place.position, self._begun)
        if mark != self._mark and self._lock is not None:
            write_watermark(self._disk, self._directory, mark)
            self._mark = mark

    def _release_to(self, place: Place) -> None:
        if (place.number, place.offset) > (self._released.number, self._released.offset):
            self._released = place
            self._lost.forget(place.position)
            self._remove_released()

    def _remove_released(self) -> None:
        while self._segments and self._is_released(self._segments[0]):
            segment = self._segments[0]
            if segment.rows:
                # Its end cannot be read: the frames before it are all released.
                rows = self._drop(segment)
                self._corrupt = self._corrupt.plus(rows, own=self._is_own(segment))
            else:
                self._remove(segment)

    def _is_released(self, segment: Segment) -> bool:
        if segment is self._segments[-1] and self._writer.is_open:
            return False
        place = self._released
        return segment.number < place.number or (
            segment.number == place.number and place.offset >= segment.size
        )
