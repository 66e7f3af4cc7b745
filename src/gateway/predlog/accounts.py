"""What became of every row: the figures of the loss identity, for the producer and for each lane.

A row is offered by the request path, waits (in the ring or with the encoder), and ends in a frame or among
the dropped: offered = waiting + framed + sum(dropped). Every lane gets all frames, so that for each of them
framed = applied + in flight + spooled + sum(the lane's own drops); the lane knows the two in the middle.

`produced` is counted, by model, version and arm, before sampling, when rows leave the ring or were dropped in
front of it: sum(produced) = offered - those in the ring.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.predlog.rows import Accounting, Produced

MAX_STREAMS: Final = 4096
"""Models, versions and arms told apart; those beyond count as arm "" of version 0 of no model."""

OTHER: Final = ("", 0, "")


@dataclass(frozen=True, slots=True)
class Totals:
    """The producer's figures at one moment, in rows.

    Attributes:
        offered: by the request path.
        waiting: in the ring or with the encoder.
        framed: put into frames.
        dropped: before they came into a frame, by reason.
    """

    offered: int
    waiting: int
    framed: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LaneTotals:
    """One lane's figures at one moment, in rows.

    Attributes:
        applied: acknowledged as durable by the sink.
        dropped: of those framed, by reason.
    """

    applied: int
    dropped: Mapping[str, int]


class Accounts:
    """The producer's books since its start. Safe from any thread; every figure only grows.

    `offered` is written by the event loop alone, without a lock, so that the request path never waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered = 0
        self._framed = 0
        self._produced: dict[tuple[str, int, str], int] = {}
        self._dropped: dict[str, int] = {}
        self._lanes: dict[str, LaneAccounts] = {}

    def offered(self, rows: int) -> None:
        """Count rows that the request path has; event loop only."""
        self._offered += rows

    def produced(self, model: str, version: int, arm: str, rows: int) -> None:
        """Count rows of requests that were offered, sampled or not."""
        key = (model, version, arm)
        with self._lock:
            if key not in self._produced and len(self._produced) >= MAX_STREAMS:
                key = OTHER
            self._produced[key] = self._produced.get(key, 0) + rows

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows that come into no frame."""
        if rows:
            with self._lock:
                self._dropped[reason] = self._dropped.get(reason, 0) + rows

    def framed(self, rows: int) -> None:
        """Count rows of a frame that every lane now has."""
        with self._lock:
            self._framed += rows

    def lane(self, name: str) -> LaneAccounts:
        """Return the books of a lane, made at the first call."""
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = LaneAccounts(self, name)
            return self._lanes[name]

    def snapshot(self, at_ns: int) -> Accounting:
        """Return what frames say of the producer.

        Args:
            at_ns: wall clock, nanoseconds since the epoch, as read before.
        """
        with self._lock:
            produced = [Produced(*key, rows) for key, rows in self._produced.items()]
            return Accounting(tuple(produced), tuple(self._dropped.items()), at_ns)

    def totals(self) -> Totals:
        """Return the figures of this moment; their identity holds."""
        with self._lock:
            offered, framed, dropped = self._offered, self._framed, dict(self._dropped)
        return Totals(offered, offered - framed - sum(dropped.values()), framed, dropped)

    def by_stream(self) -> Mapping[tuple[str, int, str], int]:
        """Return the rows produced by (model, version, arm)."""
        with self._lock:
            return dict(self._produced)


class LaneAccounts:
    """The books of one lane. Safe from any thread; every figure only grows.

    Attributes:
        name: of the lane's sink.
    """

    def __init__(self, producer: Accounts, name: str) -> None:
        self.name = name
        self._producer = producer
        self._lock = threading.Lock()
        self._applied = 0
        self._dropped: dict[str, int] = {}

    def applied(self, rows: int) -> None:
        """Count rows that the sink acknowledged as durable."""
        with self._lock:
            self._applied += rows

    def dropped(self, reason: str, rows: int) -> None:
        """Count rows of frames that this lane could not keep."""
        if rows:
            with self._lock:
                self._dropped[reason] = self._dropped.get(reason, 0) + rows

    def snapshot(self, at_ns: int) -> Accounting:
        """Return the producer's accounting with this lane's drops among the others.

        Args:
            at_ns: wall clock, nanoseconds since the epoch, as read before.
        """
        accounting = self._producer.snapshot(at_ns)
        dropped = dict(accounting.dropped)
        for reason, rows in self.totals().dropped.items():
            dropped[reason] = dropped.get(reason, 0) + rows
        return Accounting(accounting.produced, tuple(dropped.items()), at_ns)

    def totals(self) -> LaneTotals:
        """Return the figures of this moment."""
        with self._lock:
            return LaneTotals(self._applied, dict(self._dropped))
