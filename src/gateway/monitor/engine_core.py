"""What the engine's thread does, without the thread: frames in, parts fed, state made durable.

Exactly once: a frame's sequence is marked and its rows are applied between two checkpoints, and a checkpoint
writes positions and parts in one transaction. After a crash both are as of the last one, and producers send
again what was not durable.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np

from gateway.monitor.engine_coalescing import coalesced
from gateway.monitor.store.erasures import Erasures
from gateway.monitor.store.errors import StoreError
from gateway.monitor.store.positions import Positions, Standing
from gateway.monitor.values import Applied
from gateway.predlog.rows import SCHEMA_VERSION
from gateway.predlog.spool.erasing import chosen
from gateway.predlog.wire import MalformedFrame, decode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.monitor.seams import Part
    from gateway.predlog.rows import Accounting, RowBatch
    from gateway.predlog.wire import DecodedFrame

MAX_SKIP: Final = 1 << 16
"""A refused frame further ahead than this is not believed its sequence."""


@runtime_checkable
class Accountant(Protocol):
    """A part that is told what producers say became of their rows."""

    def account(self, producer: str, epoch: int, accounting: Accounting, received_s: float) -> None:
        """Take a producer's figures in; they are cumulative, may come twice and out of order."""


@runtime_checkable
class Repeatable(Protocol):
    """A part that can flush again after a transaction that failed; see `Core.checkpoint`."""

    def rolled_back(self) -> None:
        """What the last `flush` wrote is not in the database: the next flush writes it again."""


@runtime_checkable
class KeyKeeper(Protocol):
    """A part that keeps something by the join keys of rows that may not have come yet."""

    def forget_keys(self, model: str, keys: frozenset[bytes]) -> None:
        """Rows of a subject who was erased came, with these keys: what waits for them is its, too."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one frame.

    Attributes:
        producer: of the frame; empty where it could not be read.
        epoch: of the frame.
        sequence: of the frame.
        refused: reason (`crc`, `schema`, `malformed`, `too_large`, or a value of Standing); empty: applied.
        generation: the frame is durable once `Core.generation` is as high as this.
    """

    producer: str
    epoch: int
    sequence: int
    refused: str
    generation: int


@dataclass(frozen=True, slots=True)
class Offered:
    """A frame as it came.

    Attributes:
        data: a serialized LogFrame.
        received_s: wall clock.
        done: told what became of it, on the engine's thread; must neither block nor raise.
    """

    data: bytes
    received_s: float
    done: Callable[[Receipt], None] | None = None


class Core:
    """The monitor's state and its way to disk. Any one thread, the engine's.

    Attributes:
        positions: how far each producer is applied.
        generation: checkpoints made since the start; see Receipt.
        counters: frames and rows by what became of them, since the start; cumulative, bounded names.
        stuck: why no checkpoint can be made until a restart; empty: they can.
    """

    def __init__(
        self, parts: Sequence[Part], database: sqlite3.Connection, erasures: Erasures | None = None
    ) -> None:
        self._erasures = erasures or Erasures()
        self.positions = Positions()
        self.generation = 0
        self.counters: Counter[str] = Counter()
        self.stuck = ""
        self._parts = tuple(parts)
        self._database = database
        self._deleted = False

    def restore(self) -> None:
        """Create the tables and read the state of the last checkpoint; once, before all else.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self.positions.create(self._database)
            self._erasures.create(self._database)
            for part in self._parts:
                part.create(self._database)
            self._database.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        self.positions.restore(self._database)
        self._erasures.restore(self._database)
        for part in self._parts:
            part.restore(self._database)

    def take(self, offered: Sequence[Offered]) -> None:
        """Apply frames that are new, refuse what cannot be used, and tell each one's `done`."""
        receipts: list[tuple[Offered, Receipt]] = []
        fresh: list[tuple[str, RowBatch, float]] = []
        for one in offered:
            receipt, batch = self._judged(one)
            receipts.append((one, receipt))
            if batch is not None and (left := self._without_erased(batch)) is not None:
                fresh.append((receipt.producer, left, one.received_s))
        for producer, batch, received_s in coalesced(fresh):
            self._apply(Applied(producer, batch, received_s))
        for one, receipt in receipts:
            if one.done is not None:
                one.done(receipt)

    def _judged(self, one: Offered) -> tuple[Receipt, RowBatch | None]:
        """Decode a frame, mark its sequence; return its rows if they are to be applied."""
        self.counters["frames"] += 1
        self.counters["bytes"] += len(one.data)
        try:
            frame = decode_frame(one.data)
        except MalformedFrame as exc:
            return self._refused("", 0, 0, exc.reason.value), None
        if frame.schema_version == SCHEMA_VERSION:
            self._account(frame, one.received_s)
        if not frame.payload and not frame.rows:
            return self._receipt(frame), None
        who = frame.producer, frame.epoch, frame.sequence
        standing = self.positions.standing(*who, one.received_s)
        if standing is Standing.AGAIN:
            self.counters["frames_again"] += 1
            return self._receipt(frame), None
        if standing is not Standing.NEW:
            return self._refused(*who, standing.value), None
        try:
            batch = frame.batch()
        except MalformedFrame as exc:
            if frame.sequence <= self.positions.at(frame.producer, frame.epoch)[0] + MAX_SKIP:
                self.positions.mark(*who, one.received_s)
            return self._refused(*who, exc.reason.value), None
        self.positions.mark(*who, one.received_s)
        if batch is None:
            return self._refused(*who, "malformed"), None
        self.counters["rows"] += batch.rows
        return self._receipt(frame), batch

    def _without_erased(self, batch: RowBatch) -> RowBatch | None:
        """Return a batch without late rows of erased subjects; None where nothing is left."""
        gone = self._erasures.tombstones.refused(batch.subject_hashes, batch.done_ns)
        if not gone.any():
            return batch
        self.counters["rows_erased_late"] += int(gone.sum())
        keys = frozenset(batch.keys[i] for i in np.flatnonzero(gone).tolist() if batch.keys[i])
        for part in self._parts:
            if isinstance(part, KeyKeeper):
                part.forget_keys(batch.model, keys)
                self._deleted = True
        return None if gone.all() else chosen(batch, np.flatnonzero(~gone))

    def _receipt(self, frame: DecodedFrame) -> Receipt:
        return Receipt(frame.producer, frame.epoch, frame.sequence, "", self.generation + 1)

    def _refused(self, producer: str, epoch: int, sequence: int, reason: str) -> Receipt:
        self.counters[f"refused_{reason}"] += 1
        return Receipt(producer, epoch, sequence, reason, self.generation + 1)

    def _account(self, frame: DecodedFrame, received_s: float) -> None:
        for part in self._parts:
            if isinstance(part, Accountant):
                try:
                    part.account(frame.producer, frame.epoch, frame.accounting, received_s)
                except Exception:  # noqa: BLE001 - one part's fault must not stop the others
                    self.counters[f"part_failed_{part.name}"] += 1

    def _apply(self, applied: Applied) -> None:
        for part in self._parts:
            try:
                part.apply(applied)
            except Exception:  # noqa: BLE001 - likewise; its state is as far as it came
                self.counters[f"part_failed_{part.name}"] += 1

    def checkpoint(self, *, expire_s: float | None = None) -> None:
        """Make everything that was applied durable, in one transaction.

        Where that fails, parts that are Repeatable flush again at the next checkpoint. If a part that had
        flushed cannot, no further checkpoint is made (`stuck`): memory serves on, nothing more is said to be
        durable, and after a restart producers send it again.

        Args:
            expire_s: delete what is beyond its retention at this wall clock; None: delete nothing.

        Raises:
            StoreError: the database is full, locked or broken; the message says which.
        """
        if self.stuck:
            raise StoreError(self.stuck)
        flushed: list[Part] = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for part in self._parts:
                flushed.append(part)
                part.flush(self._database)
                if expire_s is not None:
                    part.expire(self._database, expire_s)
            if expire_s is not None:
                self._erasures.forget(expire_s)
            self._erasures.flush(self._database)
            self.positions.flush(self._database)
            self._database.execute("COMMIT")
        except Exception as exc:
            self._rollback()
            self._erasures.rolled_back()
            self._repeat(flushed)
            self.counters["checkpoints_failed"] += 1
            raise StoreError(f"the monitor's state could not be written: {_said(exc)}") from exc
        self.positions.committed()
        self.generation += 1
        self.counters["checkpoints"] += 1
        if self._deleted or expire_s is not None:
            with contextlib.suppress(sqlite3.Error):
                self._empty_log()

    def _repeat(self, flushed: list[Part]) -> None:
        for part in flushed:
            if isinstance(part, Repeatable):
                part.rolled_back()
            else:
                self.stuck = f"part {part.name} cannot repeat what it wrote: restart the monitor"

    def _rollback(self) -> None:
        # A full disk may have ended the transaction already.
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")

    def erase(self, subject_hashes: frozenset[int], now_s: float) -> int:
        """Delete every record of these subjects, from memory and disk; return how many.

        Rows of theirs that were done by `now_s` (wall clock) and come later are refused, after restarts too.

        Raises:
            StoreError: nothing was deleted on disk; try again.
        """
        self.checkpoint()
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._erasures.tombstones.add(subject_hashes, int(now_s * 1e9))
            erased = sum(part.erase(self._database, subject_hashes) for part in self._parts)
            self._erasures.flush(self._database)
            self._database.execute("COMMIT")
            self.checkpoint()
            self._empty_log()
        except Exception as exc:
            self._rollback()
            self._erasures.rolled_back()
            raise StoreError(f"records could not be erased: {_said(exc)}") from exc
        return erased

    def _empty_log(self) -> None:
        """Empty the log of past writes: until then it holds what was deleted."""
        (busy, *_) = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._deleted = bool(busy)


def _said(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    advice = {
        "SQLITE_FULL": "the disk is full: make room, nothing is lost meanwhile",
        "SQLITE_BUSY": "another program holds a lock on it",
        "SQLITE_READONLY": "it is read-only",
        "SQLITE_CORRUPT": "it is damaged: restart the monitor, which sets it aside",
    }
    return next((f"{text} ({error})" for start, text in advice.items() if name.startswith(start)), str(error))
