"""Between the event loop and the encoder: what was served, or copies of it, bounded, never waited for."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.predlog.copies import COPY_BYTES, COPY_ROWS, Copied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.errors import GatewayError
    from gateway.core.events import CompletedBatch
    from gateway.core.types import InferRequest, VersionId
    from gateway.predlog.copies import CopyPlan

HURRY_ROWS: Final = 512
"""The reader is woken early for so many rows that are held by reference: what the request path has just made
is still in the caches, and memory that is given back soon is used again."""

HURRY_COPIED_ROWS: Final = 8 * COPY_ROWS
"""Likewise for copied ones, which wait as well as any bytes do."""

SLICE_ROWS: Final = 256
SLICE_BYTES: Final = 1 << 20
"""Entries are read in slices of about so much."""

EASY_PARTS: Final = 8
"""One in so many parts of the ring may be full while its reader takes its time."""

ENTRY_BYTES: Final = 1024
"""What an entry is charged beyond its buffers, for its objects."""


class Ran:
    """A batch that ended.

    Attributes:
        batch: the batch; nothing of it changes any more.
        done_ns: wall clock, nanoseconds since the epoch.
        done_s: the same moment by the monotonic clock.
        rows: of its members.
        nbytes: what it is charged.
    """

    __slots__ = ("batch", "done_ns", "done_s", "nbytes", "rows")

    def __init__(self, batch: CompletedBatch, done_ns: int, done_s: float, rows: int, nbytes: int) -> None:
        self.batch = batch
        self.done_ns = done_ns
        self.done_s = done_s
        self.rows = rows
        self.nbytes = nbytes


class Rejected:
    """A request that never formed a batch.

    Attributes:
        version: that it was for.
        request: the request.
        error: why.
        done_ns: wall clock, nanoseconds since the epoch.
        done_s: the same moment by the monotonic clock.
        nbytes: what it is charged.
        rows: one: how many rows it would have been is nobody's business any more.
    """

    __slots__ = ("done_ns", "done_s", "error", "nbytes", "request", "rows", "version")

    def __init__(  # noqa: PLR0913, PLR0917 - a record's fields
        self,
        version: VersionId,
        request: InferRequest,
        error: GatewayError,
        done_ns: int,
        done_s: float,
        nbytes: int,
    ) -> None:
        self.version = version
        self.request = request
        self.error = error
        self.done_ns = done_ns
        self.done_s = done_s
        self.nbytes = nbytes
        self.rows = 1


Entry: TypeAlias = Ran | Rejected | Copied


class Ring:
    """Entries in the order of their completion; written by the event loop, read by the encoder alone.

    Copied runs of one plan share an entry, which is as late as its last run.

    Bounds: at most `max_rows` rows and `max_bytes` bytes, whole buffers that entries keep alive included; an
    entry larger than that is taken when there is no other.

    Args:
        max_rows: of all entries.
        max_bytes: of all entries.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._most_copied_bytes = max_bytes - COPY_BYTES
        self._hurry_rows = min(HURRY_ROWS, max_rows // 2)
        self._hurry_copied_rows = min(HURRY_COPIED_ROWS, max_rows // 2)
        self._entries: deque[Entry] = deque()
        self._copying: dict[CopyPlan, Copied] = {}
        # Held by the event loop while it copies, which does not wait for it, and by the reader for a moment.
        self._copies = threading.Lock()
        # Since the reader was told last.
        self._held_rows = self._copied_rows = 0
        # One writer for each, so that no lock is needed: what is in the ring is their difference.
        self._rows_in = self._bytes_in = 0
        self._rows_out = self._bytes_out = 0
        self._filled = threading.Event()
        self._hurry = threading.Event()
        # Whether the reader was told, so that an entry costs a look at a flag and no lock.
        self._noticed = self._hurried = False

    @property
    def rows(self) -> int:
        """Rows in the ring, about."""
        return max(0, self._rows_in - self._rows_out)

    @property
    def nbytes(self) -> int:
        """Bytes in the ring, about."""
        return max(0, self._bytes_in - self._bytes_out)

    @property
    def is_filling(self) -> bool:
        """Whether the reader should not take its time."""
        return self.rows * EASY_PARTS > self._max_rows or self.nbytes * EASY_PARTS > self._max_bytes

    def offer(self, entry: Ran | Rejected) -> bool:
        """Append, or return False where it is full; event loop only, never waits."""
        rows = self._rows_in - self._rows_out + entry.rows
        nbytes = self._bytes_in - self._bytes_out + entry.nbytes
        if (rows > self._max_rows or nbytes > self._max_bytes) and (self._entries or self._copying):
            return False
        self._entries.append(entry)
        self._held_rows += entry.rows
        self._rows_in += entry.rows
        self._bytes_in += entry.nbytes
        self._tell(hurry=self._held_rows >= self._hurry_rows)
        return True

    def copy(self, plan: CopyPlan, batch: CompletedBatch, done_ns: int, done_s: float) -> int:
        """Copy a run's rows; return how many, or 0 where it is to be offered; event loop only, never waits.

        Args:
            plan: of its version.
            batch: that ran, with members.
            done_ns: wall clock, nanoseconds since the epoch.
            done_s: the same moment by the monotonic clock.
        """
        if (
            self._rows_in - self._rows_out + batch.rows > self._max_rows
            or self._bytes_in - self._bytes_out > self._most_copied_bytes
            or not self._copies.acquire(False)
        ):
            return 0
        try:
            copied = self._copying.get(plan)
            if copied is None:
                copied = self._copying[plan] = Copied(plan)
            before = copied.nbytes
            rows = copied.add(batch, done_ns, done_s)
            nbytes = copied.nbytes - before
            is_full = copied.rows >= COPY_ROWS or copied.nbytes >= COPY_BYTES
            if is_full:
                del self._copying[plan]
                self._entries.append(copied)
        finally:
            self._copies.release()
        if rows:
            self._copied_rows += rows
            self._rows_in += rows
            self._bytes_in += nbytes
            if is_full or not self._noticed:
                self._tell(hurry=self._copied_rows >= self._hurry_copied_rows)
        return rows

    def _tell(self, *, hurry: bool) -> None:
        """Let the reader know of what came in."""
        if not self._noticed:
            self._noticed = True
            self._filled.set()
        if not self._hurried and (hurry or (self._bytes_in - self._bytes_out) * 2 > self._max_bytes):
            self._hurried = True
            self._hurry.set()

    def wake(self) -> None:
        """Have the reader look, whatever there is; from any thread."""
        self._filled.set()
        self._hurry.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something; False where there is nothing for so long."""
        return self._filled.wait(timeout_s)

    def linger(self, timeout_s: float) -> None:
        """Wait for more, until it is worth a look, so long at most, or until `wake`."""
        if timeout_s > 0:
            self._hurry.wait(timeout_s)
        # What comes meanwhile without a signal is in the ring before it is drained, which follows.
        self._filled.clear()
        self._noticed = False
        self._hurry.clear()
        self._held_rows = self._copied_rows = 0
        self._hurried = False

    def drain(self, *, everything: bool) -> Iterator[list[Entry]]:
        """Take out what is in it now, in slices; one counts until the next is asked for.

        Args:
            everything: also copies that others may still be added to.
        """
        if everything:
            with self._copies:
                copying, self._copying = self._copying, {}
            self._entries.extend(copying.values())
        left = len(self._entries)
        while left:
            taken: list[Entry] = []
            rows = nbytes = 0
            while left and rows < SLICE_ROWS and nbytes < SLICE_BYTES:
                if taken and isinstance(self._entries[0], Copied):
                    break
                entry = self._entries.popleft()
                taken.append(entry)
                rows += entry.rows
                nbytes += entry.nbytes
                left -= 1
            try:
                yield taken
            finally:
                self._rows_out += rows
                self._bytes_out += nbytes
