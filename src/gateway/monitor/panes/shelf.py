"""Where panes are kept: the newest in memory, all in the database, hours summed up once they are over."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from gateway.monitor.panes import layout as layouts
from gateway.monitor.panes import pane as panes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from gateway.monitor.panes.layout import Layout
    from gateway.monitor.panes.pane import Pane

Place = tuple[int, int, int]
"""Stream, layout and minute (or hour) since the epoch."""

HOUR: Final = 60
"""Minutes."""

HOT_MINUTES: Final = 70
"""Panes of so many minutes stay in memory: the 1 h window and what may come late."""

LATE_MINUTES: Final = 2
"""So long after its end an hour is summed up; it is summed up again when rows come later still."""

SLACK: Final = 1.25
"""Panes of all rows (no segments) may take this many times the memory allowed."""


class Shelf:
    """All panes by place. One thread; reads its own connection, writes within the caller's transactions.

    At most `memory` bytes of panes that are not yet in the database, 1.25 times that for streams without a
    segment; panes that are in it are kept in memory as long as there is room.

    Attributes:
        counters: `panes_refused`: panes not made for want of memory; `panes_damaged`: read and left out.
    """

    def __init__(self, memory: int) -> None:
        self.counters: Counter[str] = Counter()
        self.nbytes = 0
        self._memory = memory
        self._database: sqlite3.Connection
        self._layouts: dict[int, Layout] = {}
        self._numbers: dict[str, int] = {}
        self._minutes: dict[Place, Pane] = {}
        self._dirty: set[Place] = set()
        self._flushed: set[Place] = set()
        self._open_hours: set[Place] = set()
        self._summed: set[Place] = set()
        self._stored_until: dict[tuple[int, int], int] = {}
        self._newest = 0
        self._middles: dict[tuple[int, int], tuple[int, int, Pane]] = {}

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables where they do not exist."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_layouts (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)"
        )
        for table in ("panes_minutes", "panes_hours"):
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (stream INTEGER, layout INTEGER, at INTEGER, data BLOB,"
                " PRIMARY KEY (stream, layout, at))"
            )
            database.execute(f"CREATE INDEX IF NOT EXISTS {table}_at ON {table} (at)")

    def restore(self, database: sqlite3.Connection) -> None:
        """Read which panes there are; they themselves are read when asked for."""
        self._database = database
        for number, name, data in database.execute("SELECT id, name, data FROM panes_layouts"):
            try:
                self._layouts[number] = layouts.from_bytes(data)
            except ValueError:
                self.counters["panes_damaged"] += 1
                continue
            self._numbers[name] = number
        stored = database.execute("SELECT stream, layout, max(at) FROM panes_minutes GROUP BY stream, layout")
        self._stored_until = {(stream, layout): at for stream, layout, at in stored}
        self._newest = max(self._stored_until.values(), default=0)
        unsummed = database.execute(
            "SELECT DISTINCT stream, layout, at / 60 FROM panes_minutes"
            " EXCEPT SELECT stream, layout, at FROM panes_hours"
        )
        self._open_hours = set(unsummed)

    def number(self, layout: Layout) -> int:
        """Return the number of a layout in the database, giving it one."""
        number = self._numbers.get(layout.id)
        if number is None:
            number = self._numbers[layout.id] = max(self._layouts, default=0) + 1
            self._layouts[number] = layout
        return number

    def layout(self, number: int) -> Layout:
        """Return the layout of a number."""
        return self._layouts[number]

    def layouts_of(self, stream: int) -> list[int]:
        """Return the numbers of the layouts that a stream has or had panes of."""
        stored = self._database.execute("SELECT DISTINCT layout FROM panes_hours WHERE stream = ?", (stream,))
        return sorted({n for (n,) in stored} | {place[1] for place in self._open_hours if place[0] == stream})

    def newest_layout(self, streams: list[int]) -> Layout | None:
        """Return the layout that any of these streams had panes of last."""
        stored = [(at, layout) for (stream, layout), at in self._stored_until.items() if stream in streams]
        return self._layouts.get(max(stored)[1]) if stored else None

    def open(self, stream: int, layout: int, minute: int, *, spare: bool) -> Pane | None:
        """Return the pane of a place to be added to, reading or making it.

        Args:
            stream: its number.
            layout: its number.
            minute: since the epoch.
            spare: it is done without where memory is short.

        Returns:
            None where memory does not allow for it.
        """
        place = stream, layout, minute
        pane = self._minutes.get(place)
        if pane is None:
            size = _size(self._layouts[layout])
            if self.nbytes + size > self._memory * (1.0 if spare else SLACK) and not self._shed(
                size, spare=spare
            ):
                self.counters["panes_refused"] += 1
                return None
            pane = self._read(place) or panes.Pane(self._layouts[layout])
            self._minutes[place] = pane
            self.nbytes += size
        self._dirty.add(place)
        hour = stream, layout, minute // HOUR
        self._open_hours.add(hour)
        middle = self._middles.get((stream, layout))
        if middle is not None and middle[0] <= hour[2] < middle[1]:
            del self._middles[stream, layout]
        self._newest = max(self._newest, minute)
        return pane

    def _read(self, place: Place) -> Pane | None:
        stream, layout, minute = place
        if minute > self._stored_until.get((stream, layout), -1):
            return None
        row = self._database.execute(
            "SELECT data FROM panes_minutes WHERE stream = ? AND layout = ? AND at = ?", place
        ).fetchone()
        return None if row is None else self._decoded(layout, row[0])

    def _decoded(self, layout: int, data: bytes) -> Pane | None:
        try:
            return panes.from_bytes(self._layouts[layout], data)
        except (ValueError, KeyError):
            self.counters["panes_damaged"] += 1
            return None

    def _shed(self, size: int, *, spare: bool) -> bool:
        """Let the oldest panes go that are in the database already; return whether there is room now."""
        limit = self._memory * (1.0 if spare else SLACK)
        clean = sorted(self._minutes.keys() - self._dirty - self._flushed, key=lambda place: place[2])
        for place in clean:
            if self.nbytes + size <= limit * 0.9:
                break
            self._let_go(place)
        return self.nbytes + size <= limit

    def _let_go(self, place: Place) -> None:
        del self._minutes[place]
        stream, layout, minute = place
        self.nbytes -= _size(self._layouts[layout])
        self._stored_until[stream, layout] = max(minute, self._stored_until.get((stream, layout), -1))

    def minutes(self, stream: int, layout: int, first: int, end: int) -> Iterator[tuple[int, Pane]]:
        """Yield (minute, pane) of [first, end) in order; panes are not to be changed."""
        stored: dict[int, Pane] = {}
        if first <= self._stored_until.get((stream, layout), -1):
            held = {minute for minute in range(first, end) if (stream, layout, minute) in self._minutes}
            if len(held) < end - first:
                stored = {
                    at: p
                    for at, p in self._range("panes_minutes", stream, layout, first, end)
                    if at not in held
                }
        for minute in range(first, end):
            pane = self._minutes.get((stream, layout, minute)) or stored.get(minute)
            if pane is not None:
                yield minute, pane

    def _range(
        self, table: str, stream: int, layout: int, first: int, end: int
    ) -> Iterator[tuple[int, Pane]]:
        rows = self._database.execute(
            f"SELECT at, data FROM {table}"  # noqa: S608 - names of ours
            " WHERE stream = ? AND layout = ? AND at >= ? AND at < ? ORDER BY at",
            (stream, layout, first, end),
        )
        for at, data in rows:
            pane = self._decoded(layout, data)
            if pane is not None:
                yield at, pane

    def hours(self, stream: int, layout: int, first: int, end: int) -> Iterator[tuple[int, Pane]]:
        """Yield (hour, pane) of the hours in [first, end) in order, those still open summed up now."""
        stored = dict(self._range("panes_hours", stream, layout, first, end))
        for hour in range(first, end):
            if (stream, layout, hour) in self._open_hours:
                yield hour, self._sum(stream, layout, hour)
            elif hour in stored:
                yield hour, stored[hour]

    def _sum(self, stream: int, layout: int, hour: int) -> Pane:
        found = self.minutes(stream, layout, hour * HOUR, (hour + 1) * HOUR)
        return panes.merged(self._layouts[layout], (pane for _, pane in found))

    def window(self, stream: int, layout: int, first: int, end: int) -> Pane:
        """Return the sum of the minutes in [first, end): whole hours from their sums, the rest one by one."""
        total = panes.Pane(self._layouts[layout])
        first_hour, end_hour = -(-first // HOUR), end // HOUR
        if first_hour >= end_hour:
            first_hour = end_hour = end
            spans = [(first, end)]
        else:
            spans = [(first, first_hour * HOUR), (end_hour * HOUR, end)]
            total.merge(self._middle(stream, layout, first_hour, end_hour))
        for begin, stop in spans:
            for _, pane in self.minutes(stream, layout, begin, stop):
                total.merge(pane)
        return total

    def _middle(self, stream: int, layout: int, first: int, end: int) -> Pane:
        """Return the sum of whole hours, remembered for each stream until an hour of it changes."""
        held = self._middles.get((stream, layout))
        if held is not None and held[:2] == (first, end):
            return held[2]
        found = panes.merged(
            self._layouts[layout], (pane for _, pane in self.hours(stream, layout, first, end))
        )
        if end - first > 1:
            # One for each stream, an eighth of the memory at most: the longest window moves on once an hour.
            if len(self._middles) * _size(self._layouts[layout]) > self._memory // 8:
                self._middles.clear()
            self._middles[stream, layout] = first, end, found
        return found

    def flush(self, database: sqlite3.Connection) -> None:
        """Write the panes that have changed, and the sums of hours that are over."""
        database.executemany(
            "INSERT OR IGNORE INTO panes_layouts VALUES (?, ?, ?)",
            [(n, layout.id, layout.to_bytes()) for n, layout in self._layouts.items()],
        )
        database.executemany(
            "INSERT OR REPLACE INTO panes_minutes VALUES (?, ?, ?, ?)",
            [(*place, self._minutes[place].to_bytes()) for place in self._dirty],
        )
        over = (self._newest - LATE_MINUTES) // HOUR
        done = {place for place in self._open_hours if place[2] < over}
        database.executemany(
            "INSERT OR REPLACE INTO panes_hours VALUES (?, ?, ?, ?)",
            [(*place, self._sum(*place).to_bytes()) for place in sorted(done)],
        )
        self._flushed, self._dirty = self._dirty, set()
        self._summed = done
        self._open_hours -= done

    def committed(self) -> None:
        """The last flush is in the database: panes that have left the hot minutes may go."""
        self._flushed, self._summed = set(), set()
        for place in [p for p in self._minutes if p[2] < self._newest - HOT_MINUTES and p not in self._dirty]:
            self._let_go(place)
        if self.nbytes > self._memory:
            self._shed(0, spare=True)

    def rolled_back(self) -> None:
        """The last flush is not in the database."""
        self._dirty |= self._flushed
        self._open_hours |= self._summed
        self._flushed, self._summed = set(), set()

    def expire(self, database: sqlite3.Connection, minute: int, hour: int) -> None:
        """Delete panes before these."""
        self._middles.clear()
        database.execute("DELETE FROM panes_minutes WHERE at < ?", (minute,))
        database.execute("DELETE FROM panes_hours WHERE at < ?", (hour,))
        for place in [p for p in self._minutes if p[2] < minute]:
            self._dirty.discard(place)
            self._flushed.discard(place)
            self._let_go(place)
        self._open_hours = {p for p in self._open_hours if p[2] >= minute // HOUR}

    def forget(self, database: sqlite3.Connection, stream: int) -> None:
        """Delete what is left of a stream."""
        self._middles.clear()
        for table in ("panes_minutes", "panes_hours"):
            database.execute(f"DELETE FROM {table} WHERE stream = ?", (stream,))  # noqa: S608 - names of ours
        for place in [p for p in self._minutes if p[0] == stream]:
            self._dirty.discard(place)
            self._flushed.discard(place)
            self._let_go(place)
        self._open_hours = {p for p in self._open_hours if p[0] != stream}
        self._stored_until = {k: v for k, v in self._stored_until.items() if k[0] != stream}


def _size(layout: Layout) -> int:
    return 8 * (layout.size + 2 * len(layout.numeric)) + 1024
