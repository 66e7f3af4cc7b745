"""How far each producer's log is applied: what tells a new frame from one that was sent again."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    import sqlite3

MAX_PRODUCERS: Final = 1024
"""Producers known at a time; further ones are refused while none has been silent for FORGET_S."""

MAX_EPOCHS: Final = 64
"""Epochs known of a producer; frames of those before are refused."""

MAX_GAPS: Final = 1024
"""Gaps kept of an epoch; frames in those before are taken for sent again."""

MAX_AHEAD: Final = 1 << 40
"""A frame further ahead than this has no true sequence."""

MAX_EPOCH: Final = (1 << 63) - 1
"""A later one is no time in nanoseconds."""

FORGET_S: Final = 7 * 86_400.0
"""A producer silent for so long may be forgotten."""


class Standing(enum.Enum):
    """What a frame's sequence says about it."""

    NEW = "new"
    AGAIN = "again"
    EPOCH = "epoch"
    """Of an epoch that was forgotten."""
    PRODUCERS = "producers"
    """Of a producer beyond MAX_PRODUCERS."""
    SEQUENCE = "sequence"
    """0, or impossibly far ahead; or such an epoch."""


@dataclass(slots=True)
class Position:
    """One epoch of one producer.

    Attributes:
        high: the highest sequence applied or refused.
        gaps: ranges below it that never came, both ends inclusive, ascending and disjoint.
        durable: `high` as of the last checkpoint.
        seen_s: when its last frame came, wall clock.
        changed: since the last checkpoint.
    """

    high: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    durable: int = 0
    seen_s: float = 0.0
    changed: bool = False

    def new(self, sequence: int) -> bool:
        """Return whether the frame was not applied yet."""
        return sequence > self.high or any(first <= sequence <= last for first, last in self.gaps)

    def mark(self, sequence: int) -> int:
        """Take a new frame as applied; return how many gaps had to be forgotten for it."""
        self.changed = True
        if sequence > self.high:
            if sequence > self.high + 1:
                self.gaps.append((self.high + 1, sequence - 1))
            self.high = sequence
        else:
            self.gaps = [piece for gap in self.gaps for piece in _without(gap, sequence)]
        forgotten = len(self.gaps) - MAX_GAPS
        if forgotten > 0:
            del self.gaps[:forgotten]
        return max(0, forgotten)


def _without(gap: tuple[int, int], sequence: int) -> list[tuple[int, int]]:
    first, last = gap
    if not first <= sequence <= last:
        return [gap]
    return [(a, b) for a, b in ((first, sequence - 1), (sequence + 1, last)) if a <= b]


class Positions:
    """The positions of all producers, bounded; durable in the engine's checkpoints.

    A frame is applied exactly once as long as a producer's frames come out of order by fewer than MAX_GAPS
    ranges; beyond that frames are lost (counted), never applied twice.
    """

    def __init__(self) -> None:
        self._positions: dict[str, dict[int, Position]] = {}
        self._floors: dict[str, int] = {}
        self._gone: list[tuple[str, int]] = []
        self.forgotten_gaps = 0

    def find(self, producer: str) -> dict[int, tuple[int, int]]:
        """Return epoch -> (applied, durable) of a producer."""
        return {epoch: (p.high, p.durable) for epoch, p in self._positions.get(producer, {}).items()}

    def at(self, producer: str, epoch: int) -> tuple[int, int]:
        """Return (applied, durable) of an epoch; zeros where it is unknown."""
        position = self._positions.get(producer, {}).get(epoch)
        return (position.high, position.durable) if position else (0, 0)

    def standing(self, producer: str, epoch: int, sequence: int, now_s: float) -> Standing:
        """Say whether a frame is to be applied; changes nothing that is durable."""
        if epoch > MAX_EPOCH:
            return Standing.SEQUENCE
        epochs = self._positions.get(producer)
        if epochs is None:
            if len(self._positions) >= MAX_PRODUCERS and not self._forget_silent(now_s):
                return Standing.PRODUCERS
        elif epoch not in epochs and epoch <= self._floors.get(producer, -1):
            return Standing.EPOCH
        position = epochs.get(epoch) if epochs else None
        if not 0 < sequence <= (position.high if position else 0) + MAX_AHEAD:
            return Standing.SEQUENCE
        return Standing.NEW if position is None or position.new(sequence) else Standing.AGAIN

    def mark(self, producer: str, epoch: int, sequence: int, now_s: float) -> None:
        """Take a frame whose standing was NEW as applied."""
        epochs = self._positions.setdefault(producer, {})
        position = epochs.setdefault(epoch, Position())
        self.forgotten_gaps += position.mark(sequence)
        position.seen_s = now_s
        while len(epochs) > MAX_EPOCHS:
            oldest = min(epochs)
            del epochs[oldest]
            self._floors[producer] = max(oldest, self._floors.get(producer, -1))
            self._gone.append((producer, oldest))

    def _forget_silent(self, now_s: float) -> bool:
        def last(name: str) -> float:
            return max(p.seen_s for p in self._positions[name].values())

        silent = min(self._positions, key=last)
        if now_s - last(silent) < FORGET_S:
            return False
        self._gone.extend((silent, epoch) for epoch in self._positions.pop(silent))
        self._floors.pop(silent, None)
        return True

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables where they do not exist."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS engine_positions (producer TEXT, epoch INTEGER, high INTEGER,"
            " gaps BLOB, seen_s REAL, floor INTEGER, PRIMARY KEY (producer, epoch)) WITHOUT ROWID"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the positions of the last checkpoint."""
        rows = database.execute("SELECT producer, epoch, high, gaps, seen_s, floor FROM engine_positions")
        for producer, epoch, high, gaps, seen_s, floor in rows:
            ranges = [(first, last) for first, last in orjson.loads(gaps)]
            self._positions.setdefault(producer, {})[epoch] = Position(high, ranges, high, seen_s)
            if floor is not None:
                self._floors[producer] = max(floor, self._floors.get(producer, -1))

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what has changed; the transaction is the caller's, who calls `committed` after it."""
        database.executemany(
            "DELETE FROM engine_positions WHERE producer = ? AND epoch = ?", [(p, e) for p, e in self._gone]
        )
        database.executemany(
            "INSERT OR REPLACE INTO engine_positions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (name, epoch, p.high, orjson.dumps(p.gaps), p.seen_s, self._floors.get(name))
                for name, epochs in self._positions.items()
                for epoch, p in epochs.items()
                if p.changed
            ],
        )

    def committed(self) -> None:
        """What `flush` wrote is durable."""
        self._gone.clear()
        for epochs in self._positions.values():
            for position in epochs.values():
                position.durable = position.high
                position.changed = False
