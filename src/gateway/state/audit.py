"""The audit chain of one gateway: who did what, in an order and a wording that cannot be changed unseen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gateway.core.state import AuditEntry, AuditRecord, StateUnavailable
from gateway.state.audit_files import ChainFiles
from gateway.state.disk import Disk, LocalDisk
from gateway.state.errors import unavailable
from gateway.state.lock import DirectoryLock
from gateway.state.waiting_entries import WaitingEntries
from gateway.state.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from gateway.state.chain import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """Bounds and times of a chain.

    Attributes:
        max_file_bytes: a new file is begun when the newest is longer.
        tail_records: newest records kept in memory.
        max_waiting: entries of `append_later` kept in memory while the disk refuses them.
        retry_s: between attempts to write those.
        wall_s: seconds since the epoch.
        pause: waits so many seconds.
    """

    max_file_bytes: int = 1 << 20
    tail_records: int = 2000
    max_waiting: int = 1000
    retry_s: float = 1.0
    wall_s: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class AuditChain:
    """Hash-chained records in a directory; a `core.state.AuditLog`.

    Append-only files of one record per line, which `chain` describes and `verification` checks. `async with`
    opens and closes it.
    """

    def __init__(
        self, directory: Path, options: AuditOptions | None = None, disk: Disk | None = None
    ) -> None:
        self._directory = directory
        self._options = options = options or AuditOptions()
        self._disk = disk or LocalDisk()
        self._lock = DirectoryLock(directory)
        self._files = ChainFiles(
            directory, self._disk, max_file_bytes=options.max_file_bytes, tail_records=options.tail_records
        )
        self._worker = Worker("state-audit")
        self._tail: deque[AuditRecord] = deque(maxlen=options.tail_records)
        self._waiting = WaitingEntries(options.max_waiting)
        self._under_way = 0
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take the directory's lock and read the newest records; once, before anything else.

        Raises:
            StateUnavailable: another process appends to the chain, it cannot be read, or its newest file is
                damaged (StateDamaged).
        """
        try:
            await self._worker.run(self._open)
        except BaseException:
            await self._close()
            raise
        self._tail.extend(self._files.tail)
        self._flusher = asyncio.create_task(self._flush_whenever_needed(), name="audit-flusher")

    async def aclose(self) -> None:
        """Try once more to write what waits, and let go of the directory; harmless twice."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.cancel()
            await asyncio.wait([flusher])
            with suppress(StateUnavailable):
                await self._flush()
        await self._close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def head(self) -> Head:
        """The chain's end, for keeping elsewhere."""
        return self._files.head

    @property
    def waiting(self) -> int:
        """How many entries of `append_later` are not on the disk yet."""
        return len(self._waiting) + self._under_way

    def tail(self, count: int, rollout: str = "") -> list[AuditRecord]:
        """Return the newest records, oldest first, of one rollout when it is named; from memory, bounded."""
        chosen: list[AuditRecord] = []
        for record in reversed(self._tail):
            if len(chosen) >= count:
                break
            if rollout in {"", record.entry.rollout}:
                chosen.append(record)
        return chosen[::-1]

    async def append(self, *entries: AuditEntry) -> AuditRecord:
        """Append entries together; return the last one's record, durable on return.

        What waits goes before them. Cancelling waits until a write that has begun is over; it may have been
        done then.

        Raises:
            StateUnavailable: nothing was appended; or, as OutcomeUnknown, that is not known.
        """
        if not entries:
            raise ValueError("no entry to append")
        return (await self._append(entries))[-1]

    def append_later(self, entry: AuditEntry) -> None:
        """Append an entry as soon as the disk lets it; never waits and never fails. Event loop only.

        For what must not wait for a disk, aborts. An entry that could not be written at once has `late` and
        `happened_at`, in seconds since the epoch, in its detail. More entries than may wait are dropped, the
        newest first, and a record says how many.
        """
        self._waiting.add(entry, self._options.wall_s())
        self._wake.set()

    async def _append(self, entries: Sequence[AuditEntry]) -> Sequence[AuditRecord]:
        async with self._turn:
            batch = self._waiting.take()
            self._under_way = len(batch.waiting) + batch.dropped
            written = _Written()
            try:
                if batch or entries:
                    await self._worker.run(self._write, [*batch.entries(), *entries], written)
            except BaseException:
                if not written.records:
                    self._waiting.put_back(batch)
                    self._wake.set()
                raise
            finally:
                self._under_way = 0
                self._tail.extend(written.records)
        return written.records

    async def _flush(self) -> None:
        while self._waiting:
            await self._append(())

    async def _flush_whenever_needed(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
            except StateUnavailable:
                await self._options.pause(self._options.retry_s)

    async def _close(self) -> None:
        await self._worker.aclose()
        self._files.close()
        self._lock.release()

    # In the thread.

    def _open(self) -> None:
        try:
            self._disk.make_directory(self._directory)
            self._lock.take()
        except OSError as error:
            raise unavailable("the audit chain cannot be locked", error) from error
        self._files.open(self._options.wall_s)

    def _write(self, entries: Sequence[AuditEntry], written: _Written) -> None:
        written.records = self._files.append(entries, self._options.wall_s)


class _Written:
    """What a write appended, known even to a writer that was cancelled meanwhile."""

    records: Sequence[AuditRecord] = ()
