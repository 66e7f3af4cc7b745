"""What a lane has not yet seen acknowledged: one sequence of frames, its older part on disk. Blocking.

    released | on disk: sent ... not sent | in memory: sent ... not sent
                                                       (sent in memory only when all on disk is sent)

Frames enter at the end and leave at the front. `spill` moves the border between disk and memory, `next` the
one between sent and not sent, `rewind` puts that back to the front: so order holds whatever the sink and
the disk do, and a frame is in exactly one place. Not safe from threads; the lane has a lock around it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.predlog.lane_books import CORRUPT, CREDIT, SHUTDOWN, SPOOL_FULL
from gateway.predlog.spool.spool import Rows, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.predlog.lane_books import LaneBooks
    from gateway.predlog.rows import Frame
    from gateway.predlog.spool.spool import Spool, Stored


@dataclass(slots=True)
class _Sent:
    """A frame on its way; on disk when `stored` is set, else among the first of those in memory."""

    epoch: int
    sequence: int
    rows: int
    stored: Stored | None


class FrameLog:
    """Frames of a lane, from where they are put until they are acknowledged or dropped.

    Attributes:
        memory_bytes: of the frames in memory.
        memory_rows: likewise.
        acknowledged: highest sequence by epoch that the sink made durable.
    """

    def __init__(self, max_memory_bytes: int, books: LaneBooks) -> None:
        self.memory_bytes = 0
        self.memory_rows = 0
        self.acknowledged: dict[int, int] = {}
        self._max_memory_bytes = max_memory_bytes
        self._books = books
        self._spool: Spool | None = None
        self._memory: deque[Frame] = deque()
        self._sent_in_memory = 0
        self._sent: deque[_Sent] = deque()
        self._may_be_sent = (0, 0)

    @property
    def spool(self) -> Spool | None:
        """Where frames are kept that do not fit."""
        return self._spool

    @property
    def in_flight_rows(self) -> int:
        """Rows sent, in memory or on disk, and not acknowledged."""
        return sum(sent.rows for sent in self._sent)

    def attach(self, spool: Spool) -> None:
        """Put an opened spool before what is in memory; nothing may be in flight: rewind first."""
        assert not self._sent
        self._spool = spool
        corrupt = spool.take_corrupt()
        self._books.recovered += spool.rows.earlier + corrupt.earlier
        self._books.dropped_from_spool(CORRUPT, corrupt)

    def take(self, frame: Frame) -> None:
        """Put a frame at the end, in memory."""
        last = self._memory[-1] if len(self._memory) > self._sent_in_memory else None
        if frame.rows == 0 and last is not None and last.rows == 0 and last.epoch == frame.epoch:
            # Accounting is cumulative: the newer one says all.
            self.memory_bytes -= len(self._memory.pop().data)
        self._memory.append(frame)
        self.memory_bytes += len(frame.data)
        self.memory_rows += frame.rows

    # Sending.

    def next(self) -> Frame | None:
        """Return the next frame to send, and count it as sent; None when there is none now.

        Frames that are known to be acknowledged are passed over.

        Raises:
            OSError: the spool's; nothing was changed.
        """
        self._settle()
        while True:
            found = self._next_on_disk() or self._next_in_memory()
            if found is None:
                self._release_if_idle()
                return None
            frame, stored = found
            self._sent.append(_Sent(frame.epoch, frame.sequence, frame.rows, stored))
            if frame.rows and frame.sequence <= self.acknowledged.get(frame.epoch, 0):
                self._settle()
                continue
            self._may_be_sent = max(self._may_be_sent, (frame.epoch, frame.sequence))
            return frame

    def rewind(self) -> None:
        """Count nothing as sent: the connection is lost, and all that is not acknowledged goes again."""
        first = next((sent.stored for sent in self._sent if sent.stored is not None), None)
        if first is not None and self._spool is not None:
            self._spool.rewind(first.place)
        self._sent.clear()
        self._sent_in_memory = 0

    def settle(self, acknowledged: Mapping[int, int]) -> None:
        """Forget what the sink says is durable.

        Args:
            acknowledged: highest sequence by epoch.
        """
        for epoch, sequence in acknowledged.items():
            self.acknowledged[epoch] = max(sequence, self.acknowledged.get(epoch, 0))
        self._settle()

    def refuse(self, frame: Frame, reason: str) -> None:
        """Drop the frame that `next` returned last: the sink will never take it."""
        if not self._sent or (self._sent[-1].epoch, self._sent[-1].sequence) != (frame.epoch, frame.sequence):
            return
        sent = self._sent.pop()
        rows = frame.rows
        if sent.stored is None:
            self._sent_in_memory -= 1
            self._forget(self._sent_in_memory)
        elif self._spool is not None:
            rows = self._spool.discard(sent.stored, frame.rows)
        self._books.dropped(frame.epoch, reason, rows)

    def _next_on_disk(self) -> tuple[Frame, Stored] | None:
        if self._spool is None or self._sent_in_memory or self._spool.at_end():
            return None
        found = self._spool.read()
        self._count_corrupt(self._spool)
        return None if found is None else (found[1], found[0])

    def _next_in_memory(self) -> tuple[Frame, None] | None:
        if self._sent_in_memory == len(self._memory):
            return None
        frame = self._memory[self._sent_in_memory]
        self._sent_in_memory += 1
        return frame, None

    def _settle(self) -> None:
        while self._sent:
            sent = self._sent[0]
            if sent.sequence > self.acknowledged.get(sent.epoch, 0):
                return
            self._sent.popleft()
            rows = sent.rows
            if sent.stored is None:
                self._sent_in_memory -= 1
                self._forget(0)
            elif self._spool is not None:
                rows = self._spool.release(sent.stored, sent.rows)
                self._count_corrupt(self._spool)
            self._books.applied(sent.epoch, rows)

    def _release_if_idle(self) -> None:
        if self._spool is not None and not self._sent and self._spool.at_end():
            self._spool.release_read()
            self._count_corrupt(self._spool)

    def _forget(self, index: int) -> None:
        frame = self._memory[index]
        del self._memory[index]
        self.memory_bytes -= len(frame.data)
        self.memory_rows -= frame.rows

    def skip(self) -> None:
        """Give up the rest of a segment that the disk does not let read; its rows count as corrupt."""
        if self._spool is not None:
            self._spool.skip()
            self._count_corrupt(self._spool)

    def is_all_sent(self) -> bool:
        """Return whether nothing waits to be sent."""
        return self._sent_in_memory == len(self._memory) and (self._spool is None or self._spool.at_end())

    # Spilling and dropping.

    def is_over(self) -> bool:
        """Return whether more is in memory than should be."""
        return self.memory_bytes > self._max_memory_bytes

    def spill(self, now_s: float, time_ns: int, *, everything: bool) -> None:
        """Move the oldest frames from memory to disk: all, or down to half of what memory may hold.

        Args:
            now_s: monotonic clock.
            time_ns: wall clock, nanoseconds since the epoch.
            everything: also while memory has room.

        Raises:
            OSError: the disk's; what is not on disk is in memory still.
        """
        enough = 0 if everything else self._max_memory_bytes // 2
        while self._spool is not None and self._memory and (everything or self.memory_bytes > enough):
            if not self._spill_one(self._spool, now_s, time_ns):
                return

    def _spill_one(self, spool: Spool, now_s: float, time_ns: int) -> bool:
        frame = self._memory[0]
        sent = next((s for s in self._sent if s.stored is None), None)
        self._books.dropped_from_spool(SPOOL_FULL, spool.make_room(frame))
        may_be_sent = sent is not None or (frame.epoch, frame.sequence) <= self._may_be_sent
        try:
            stored = spool.append(frame, now_s, time_ns, sent=sent is not None, begun=may_be_sent)
        except SpoolFull:
            return False
        self._forget(0)
        if sent is not None:
            sent.stored = stored
            self._sent_in_memory -= 1
        return True

    def shed(self) -> None:
        """Drop from memory what is too much: the oldest frames that were never sent.

        Frames that may have been sent are kept, for the sink may have counted them; credit bounds them.
        """
        reason = CREDIT if self._spool is None else SPOOL_FULL
        while self.is_over():
            unsent = (i for i, f in enumerate(self._memory) if (f.epoch, f.sequence) > self._may_be_sent)
            index = next(unsent, None)
            if index is None:
                return
            frame = self._memory[index]
            self._forget(index)
            self._books.dropped(frame.epoch, reason, frame.rows)

    def expire(self, time_ns: int) -> None:
        """Drop what is in the spool for too long."""
        if self._spool is not None:
            self._books.dropped_from_spool(SPOOL_FULL, self._spool.expire(time_ns))

    def abandon(self) -> None:
        """Drop what is in memory: the process ends and it could not be written to disk."""
        while self._memory:
            frame = self._memory[0]
            self._forget(0)
            self._books.dropped(frame.epoch, SHUTDOWN, frame.rows)
        self._sent_in_memory = 0

    def spooled(self) -> Rows:
        """Return the rows on disk."""
        return self._spool.rows if self._spool is not None else Rows()

    def _count_corrupt(self, spool: Spool) -> None:
        self._books.dropped_from_spool(CORRUPT, spool.take_corrupt())
