"""Appends records to the newest segment, and flushes it as the policy says. Blocking."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.predlog.spool.disk import write_all
from gateway.predlog.spool.options import Fsync
from gateway.predlog.spool.record import HEADER_BYTES, encode_record

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.rows import Frame
    from gateway.predlog.spool.disk import SpoolDisk
    from gateway.predlog.spool.options import SpoolOptions
    from gateway.predlog.spool.segments import Segment

_log = logging.getLogger(__name__)


class SegmentWriter:
    """One open file at most, that of the newest segment; a file once closed is not appended to again.

    Attributes:
        sync_failures: flushes that failed.
    """

    def __init__(self, directory: Path, options: SpoolOptions, disk: SpoolDisk) -> None:
        self.sync_failures = 0
        self._directory = directory
        self._options = options
        self._disk = disk
        self._descriptor: int | None = None
        self._unsynced_bytes = 0
        self._unsynced_since_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to append to."""
        return self._descriptor is not None

    @staticmethod
    def record_bytes(frame: Frame) -> int:
        """Return how long a frame's record is."""
        return HEADER_BYTES + len(frame.producer.encode()) + len(frame.model.encode()) + len(frame.data)

    def begin(self, segment: Segment) -> None:
        """Make a new segment's file.

        Raises:
            OSError: the disk's; no file is open then.
        """
        descriptor = self._disk.open(self._directory / segment.name, create=True)
        try:
            self._disk.truncate(descriptor, 0)
            if self._options.fsync is not Fsync.OFF:
                self._disk.sync_directory(self._directory)
        except OSError:
            with suppress(OSError):
                self._disk.close(descriptor)
            raise
        self._descriptor = descriptor

    def write(
        self, segment: Segment, frame: Frame, now_s: float, time_ns: int, *, blank: bool = False
    ) -> None:
        """Append a frame to the segment begun last.

        Args:
            segment: it.
            frame: what to append.
            now_s: monotonic clock.
            time_ns: wall clock, nanoseconds since the epoch.
            blank: leave zeros in the frame's place: it is counted, and cannot be read.

        Raises:
            OSError: the disk's; the segment is as before.
        """
        assert self._descriptor is not None
        data = encode_record(frame, segment.end, time_ns)
        if blank:
            data = bytes(len(data))
        try:
            write_all(self._disk, self._descriptor, data, segment.size)
        except OSError:
            self._take_back(segment)
            raise
        segment.size += len(data)
        segment.end += frame.rows
        segment.rows += frame.rows
        segment.first_ns = segment.first_ns or time_ns
        self._flush_by_policy(len(data), now_s)

    def sync(self, now_s: float, *, force: bool = False) -> None:
        """Flush what is due by the policy, or all; a failure is counted and logged."""
        due = now_s - self._unsynced_since_s >= self._options.group_s
        if self._unsynced_bytes and (force or (due and self._options.fsync is Fsync.GROUP)):
            self._flush()

    def close(self) -> None:
        """Flush, unless the policy is to leave that to the kernel, and close; harmless twice."""
        if self._unsynced_bytes and self._options.fsync is not Fsync.OFF:
            self._flush()
        self._unsynced_bytes = 0
        self._close()

    def _take_back(self, segment: Segment) -> None:
        """Cut a failed write off; where that fails too, the next one goes to a new segment."""
        assert self._descriptor is not None
        try:
            self._disk.truncate(self._descriptor, segment.size)
        except OSError:
            self.close()

    def _flush_by_policy(self, more: int, now_s: float) -> None:
        if not self._unsynced_bytes:
            self._unsynced_since_s = now_s
        self._unsynced_bytes += more
        policy = self._options.fsync
        many = self._unsynced_bytes >= self._options.group_bytes
        if policy is Fsync.ALWAYS or (policy is Fsync.GROUP and many):
            self._flush()

    def _flush(self) -> None:
        """Flush; nothing more is written to a file of which a failure has left nothing known."""
        assert self._descriptor is not None
        self._unsynced_bytes = 0
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            self.sync_failures += 1
            _log.warning("prediction log: the spool cannot be flushed: %s", error)
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                self._disk.close(descriptor)
