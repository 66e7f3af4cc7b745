"""How much of what was served has arrived, by minute: producers' accounts beside the rows applied.

Producers say, cumulatively, how many rows they were offered by model, version and arm, and how many they
dropped by reason, not by model. Of a producer's gap between offered and applied rows, what sampling left out
is no loss; the rest is lost or under way, and is laid to its models by how far their rows and their weights
fall short. Two accounts that lie on either side of a window's edge say nothing of where between them rows
belong: so many rows are not held against the window.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from gateway.monitor.values import PANE_S, Coverage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from gateway.predlog.rows import Accounting

MAX_STREAMS: Final = 8192
"""Producers, models, versions and arms told apart."""

MAX_REASONS: Final = 16

MAX_MEMO: Final = 4096

YOUNG_NS: Final = 3_600_000_000_000
"""Epochs are starts of processes: the first account of one younger than this is laid over its whole life."""

SAMPLED: Final = "sampled"
IN_FLIGHT: Final = "in_flight"
"""Neither applied nor dropped, as far as producers have said."""

_PRODUCED, _APPLIED, _WEIGHT = range(3)
_DROPPED: Final = "dropped:"
_STRADDLE: Final = "straddle"


class Source(NamedTuple):
    """Whose rows are counted."""

    producer: str
    model: str
    version: int
    arm: str


class Totals(NamedTuple):
    """Cumulative figures of one epoch of a producer, as of its last account."""

    epoch: int
    at_ns: int
    produced: dict[tuple[str, int, str], int]
    dropped: dict[str, int]


class Books:
    """Figures by minute; kept in the database, those changed since the last flush in memory too."""

    def __init__(self) -> None:
        self.refused = 0
        self._database: sqlite3.Connection
        self._rows: dict[tuple[Source, int], list[float]] = {}
        self._notes: dict[tuple[str, str, int], float] = {}
        self._sources: set[Source] = set()
        self._reasons: dict[str, set[str]] = defaultdict(set)
        self._last: dict[str, Totals] = {}
        self._memo: dict[tuple[str, int, str | None, int, int], Coverage] = {}
        self._changed: set[str] = set()
        self._flushed: tuple[
            dict[tuple[Source, int], list[float]], dict[tuple[str, str, int], float], set[str]
        ] = ({}, {}, set())

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables where they do not exist."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_rows (producer TEXT, model TEXT, version TEXT, arm TEXT,"
            " minute INTEGER, produced REAL,"
            " applied REAL, weight REAL, PRIMARY KEY (minute, producer, model, version, arm))"
            " WITHOUT ROWID"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_notes (producer TEXT, note TEXT, minute INTEGER, rows REAL,"
            " PRIMARY KEY (minute, producer, note)) WITHOUT ROWID"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_accounts (producer TEXT PRIMARY KEY, epoch INTEGER,"
            " at_ns INTEGER, data BLOB)"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the producers' last accounts."""
        self._database = database
        for producer, epoch, at_ns, data in database.execute("SELECT * FROM panes_accounts"):
            self._last[producer] = _unpacked(epoch, at_ns, data)
        found = database.execute("SELECT DISTINCT producer, model, version, arm FROM panes_rows")
        self._sources = {Source(p, m, int(v), a) for p, m, v, a in found}

    def applied(self, source: Source, minute: int, rows: float, weight: float) -> None:
        """Count rows that are in the panes."""
        self._memo.clear()
        figures = self._figures(source, minute)
        if figures is not None:
            figures[_APPLIED] += rows
            figures[_WEIGHT] += weight

    def _figures(self, source: Source, minute: int) -> list[float] | None:
        if source not in self._sources:
            if len(self._sources) >= MAX_STREAMS:
                self.refused += 1
                return None
            self._sources.add(source)
        return self._rows.setdefault((source, minute), [0.0, 0.0, 0.0])

    def account(self, producer: str, epoch: int, accounting: Accounting, now_s: float) -> None:
        """Take a producer's cumulative figures in; those seen before, or older, change nothing.

        Rows since the account before are laid evenly over the time between both; an account from the future
        is taken as of now.
        """
        self._memo.clear()
        if not accounting.at_ns or (len(self._last) >= MAX_STREAMS and producer not in self._last):
            return
        last = self._last.get(producer)
        at_ns = min(accounting.at_ns, int(now_s * 1e9))
        if last is not None and (epoch, at_ns) < (last.epoch, last.at_ns):
            return
        produced = {(p.model, p.version, p.arm): p.rows for p in accounting.produced}
        dropped = dict(accounting.dropped)
        before = last
        if before is None or epoch > before.epoch:
            young = 0 <= at_ns - epoch <= YOUNG_NS
            # What a producer did long before it was first heard of is nobody's to judge.
            known = (produced, dropped) if last is None and not young else ({}, {})
            before = Totals(epoch, epoch if young else at_ns, *known)
        shares = _shares(before.at_ns, at_ns)
        totals_produced, totals_dropped = dict(before.produced), dict(before.dropped)
        for key, rows in produced.items():
            more = rows - before.produced.get(key, 0)
            if more > 0:
                totals_produced[key] = rows
                self._spread(Source(producer, *key), more, shares)
        for reason, rows in dropped.items():
            more = rows - before.dropped.get(reason, 0)
            if more > 0:
                totals_dropped[reason] = rows
                self._note(producer, _DROPPED + self._known(producer, reason), more, shares)
        if len(shares) > 1:
            straddled = sum(produced.values()) - sum(before.produced.values())
            self._note(producer, _STRADDLE, max(0, straddled), [(minute, 1.0) for minute, _ in shares])
        self._last[producer] = Totals(epoch, at_ns, totals_produced, totals_dropped)
        self._changed.add(producer)

    def _known(self, producer: str, reason: str) -> str:
        reasons = self._reasons[producer]
        if len(reasons) >= MAX_REASONS and reason not in reasons and reason != SAMPLED:
            return "other"
        reasons.add(reason)
        return reason

    def _spread(self, source: Source, rows: float, shares: list[tuple[int, float]]) -> None:
        for minute, share in shares:
            figures = self._figures(source, minute)
            if figures is not None:
                figures[_PRODUCED] += rows * share

    def _note(self, producer: str, note: str, rows: float, shares: list[tuple[int, float]]) -> None:
        for minute, share in shares:
            key = producer, note, minute
            self._notes[key] = self._notes.get(key, 0.0) + rows * share

    def coverage(self, model: str, version: int, arm: str | None, start_s: float, end_s: float) -> Coverage:
        """Return the coverage of [start_s, end_s), widened to whole minutes; see Panes.coverage."""
        first, end = int(start_s // PANE_S), -int(-end_s // PANE_S)
        asked = model, version, arm, first, end
        found = self._memo.get(asked)
        if found is None:
            # Asked for again by every segment, between two batches.
            if len(self._memo) > MAX_MEMO:
                self._memo.clear()
            found = self._memo[asked] = self._coverage(*asked)
        return found

    def _coverage(self, model: str, version: int, arm: str | None, first: int, end: int) -> Coverage:
        by_source = self._between(first, end)
        wanted = {
            source.producer
            for source in by_source
            if (source.model, source.version) == (model, version) and arm in (None, source.arm)
        }
        produced = applied = 0.0
        dropped: dict[str, float] = defaultdict(float)
        for producer in sorted(wanted):
            theirs = {source: figures for source, figures in by_source.items() if source.producer == producer}
            gaps = _gaps(theirs, self._notes_between(producer, first, end), self._edges(producer, first, end))
            for source, figures in theirs.items():
                if (source.model, source.version) == (model, version) and arm in (None, source.arm):
                    produced += figures[_PRODUCED]
                    applied += figures[_APPLIED]
                    for reason, rows in gaps[source].items():
                        dropped[reason] += rows
        return Coverage(
            round(produced), round(applied), {r: round(n) for r, n in dropped.items() if n >= 0.5}
        )

    def _between(self, first: int, end: int) -> dict[Source, list[float]]:
        found: dict[Source, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        stored = self._database.execute(
            "SELECT producer, model, version, arm, sum(produced), sum(applied), sum(weight) FROM panes_rows"
            " WHERE minute >= ? AND minute < ? GROUP BY producer, model, version, arm",
            (first, end),
        )
        for producer, model, version, arm, *figures in stored:
            found[Source(producer, model, int(version), arm)] = figures
        for (source, minute), figures in self._rows.items():
            if first <= minute < end:
                found[source] = [a + b for a, b in zip(found[source], figures, strict=True)]
        return dict(found)

    def _notes_between(self, producer: str, first: int, end: int) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        stored = self._database.execute(
            "SELECT note, sum(rows) FROM panes_notes WHERE minute >= ? AND minute < ? AND producer = ?"
            " GROUP BY note",
            (first, end, producer),
        )
        found.update(dict(stored))
        for (name, note, minute), rows in self._notes.items():
            if name == producer and first <= minute < end:
                found[note] += rows
        return found

    def _edges(self, producer: str, first: int, end: int) -> float:
        """Return the rows of accounts that straddle either edge of a window."""
        return sum(self._notes_between(producer, m, m + 1).get(_STRADDLE, 0.0) for m in {first, end - 1})

    def committed(self) -> None:
        """The last flush is in the database."""
        self._flushed = {}, {}, set()

    def flush(self, database: sqlite3.Connection) -> None:
        """Add what was counted since the last flush."""
        database.executemany(
            "INSERT INTO panes_rows VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " produced = produced + excluded.produced, applied = applied + excluded.applied,"
            " weight = weight + excluded.weight",
            [
                (s.producer, s.model, str(s.version), s.arm, minute, *f)
                for (s, minute), f in self._rows.items()
            ],
        )
        database.executemany(
            "INSERT INTO panes_notes VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
            [(producer, note, minute, rows) for (producer, note, minute), rows in self._notes.items()],
        )
        database.executemany(
            "INSERT OR REPLACE INTO panes_accounts VALUES (?, ?, ?, ?)",
            [(p, t.epoch, t.at_ns, _packed(t)) for p in self._changed for t in (self._last[p],)],
        )
        self._flushed = self._rows, self._notes, self._changed
        self._rows, self._notes, self._changed = {}, {}, set()

    def rolled_back(self) -> None:
        """The last flush is not in the database."""
        rows, notes, changed = self._flushed
        for place, figures in self._rows.items():
            rows[place] = [a + b for a, b in zip(rows.get(place, [0.0] * 3), figures, strict=True)]
        for note, count in self._notes.items():
            notes[note] = notes.get(note, 0.0) + count
        self._rows, self._notes, self._changed = rows, notes, changed | self._changed
        self._flushed = {}, {}, set()

    def expire(self, database: sqlite3.Connection, minute: int) -> None:
        """Delete figures before a minute."""
        self._memo.clear()
        database.execute("DELETE FROM panes_rows WHERE minute < ?", (minute,))
        database.execute("DELETE FROM panes_notes WHERE minute < ?", (minute,))
        found = database.execute("SELECT DISTINCT producer, model, version, arm FROM panes_rows")
        self._sources = {Source(p, m, int(v), a) for p, m, v, a in found} | {
            source for source, _ in self._rows
        }


def _shares(from_ns: int, to_ns: int) -> list[tuple[int, float]]:
    """Return (minute, share of the time between) of two moments; at most an hour back."""
    pane_ns = PANE_S * 1_000_000_000
    first, last = from_ns // pane_ns, to_ns // pane_ns
    if first >= last or to_ns <= from_ns:
        return [(last, 1.0)]
    first = max(first, last - 60)
    from_ns = max(from_ns, first * pane_ns)
    shares = []
    for minute in range(first, last + 1):
        begin, end = max(from_ns, minute * pane_ns), min(to_ns, (minute + 1) * pane_ns)
        shares.append((minute, (end - begin) / (to_ns - from_ns)))
    return shares


def _gaps(
    figures: Mapping[Source, list[float]], notes: Mapping[str, float], slack: float
) -> dict[Source, dict[str, float]]:
    """Return, by source of one producer, its rows that are not in the panes, by what became of them."""
    gap = {source: max(0.0, f[_PRODUCED] - f[_APPLIED]) for source, f in figures.items()}
    sampled = notes.get(_DROPPED + SAMPLED, 0.0)
    reasons = {note.removeprefix(_DROPPED): rows for note, rows in notes.items() if note.startswith(_DROPPED)}
    reasons.pop(SAMPLED, None)
    lost = max(0.0, sum(gap.values()) - sampled)
    if lost <= slack and not sum(reasons.values()):
        return {source: {SAMPLED: rows} for source, rows in gap.items()}
    # By how much a source falls short even of what its weights stand for; of rows that nothing was sampled
    # from that is certain, of others an estimate.
    short = {source: max(0.0, f[_PRODUCED] - max(f[_APPLIED], f[_WEIGHT])) for source, f in figures.items()}
    whole = {source for source, f in figures.items() if 0 < f[_WEIGHT] <= f[_APPLIED]}
    certain = {source: rows if source in whole else 0.0 for source, rows in short.items()}
    lots = _lots(lost, certain, {**short, **{source: gap[source] for source in whole}})
    left = lost - sum(lots.values())
    if left > 0:
        room = {source: gap[source] - lots[source] for source in gap}
        space = sum(room.values()) or 1.0
        lots = {source: lot + left * room[source] / space for source, lot in lots.items()}
    known = sum(reasons.values())
    reasons[IN_FLIGHT] = max(0.0, lost - known)
    total = sum(reasons.values()) or 1.0
    return {
        source: {
            SAMPLED: gap[source] - lot,
            **{reason: lot * rows / total for reason, rows in reasons.items()},
        }
        for source, lot in lots.items()
    }


def _lots(lost: float, certain: Mapping[Source, float], short: Mapping[Source, float]) -> dict[Source, float]:
    """Lay at most `lost` rows to sources: what is certain first, then by how far they fall short."""
    lots = dict.fromkeys(short, 0.0)
    for bound in (certain, short):
        room = {source: max(0.0, bound[source] - lots[source]) for source in lots}
        total, left = sum(room.values()), lost - sum(lots.values())
        if total > 0:
            share = min(1.0, left / total)
            lots = {source: lot + share * room[source] for source, lot in lots.items()}
    return lots


def _packed(totals: Totals) -> bytes:
    return orjson.dumps([[[*key, rows] for key, rows in totals.produced.items()], totals.dropped])


def _unpacked(epoch: int, at_ns: int, data: bytes) -> Totals:
    produced, dropped = orjson.loads(data)
    return Totals(
        epoch, at_ns, {(model, version, arm): rows for model, version, arm, rows in produced}, dropped
    )


__all__ = ["Books", "Source"]
