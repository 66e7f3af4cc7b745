"""The panes of every stream as a part of the monitor: filled by rows, read by windows, bounded in memory.

Memory: `memory` of the settings bounds panes (1.25 times that in the worst case) and, a quarter of it,
sketches; `reservoir` what profiles are learned from. Beyond them segments are left out first, then sketches,
then old minutes are refused; all of it is counted, nothing is fatal. `counters` has the counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from gateway.monitor.panes import layout as layouts
from gateway.monitor.panes.coverage import Books, Source
from gateway.monitor.panes.filling import Filling, chunk_rows
from gateway.monitor.panes.hours import SketchedHours
from gateway.monitor.panes.layout import Layout
from gateway.monitor.panes.pane import Pane
from gateway.monitor.panes.reservoir import uniform
from gateway.monitor.panes.shelf import HOUR, Shelf
from gateway.monitor.panes.sketches import Sketches
from gateway.monitor.panes.streams import Streams
from gateway.monitor.values import ALL, PANE_S, Applied, Coverage, StreamKey
from gateway.predlog.rows import SHADOW_PREFIX

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from gateway.config.monitor_ingest import PanesSettings
    from gateway.monitor.panes.streams import Version, VersionKey
    from gateway.monitor.profile.reference import Profile
    from gateway.predlog.rows import Accounting, RowBatch

    Indexes = npt.NDArray[np.int64]

RARE: Final = 20
"""Rows of an hour below which a category could be somebody."""

_PANE_NS: Final = PANE_S * 1_000_000_000
_NOTHING: Final = Layout("bare:", (), (), ())


class ProfileSource(Protocol):
    """Where reference profiles are found."""

    def find(self, model: str, version: int, digest: str) -> Profile | None:
        """Return the profile in force, or None; cheap: asked once a minute for every version seen."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some rows of a batch on their way into panes.

    Attributes:
        applied: the batch.
        version: whose rows they are.
        rows: which of its rows.
        arms: the arms that the batch's are counted under.
        groups: (place in `arms`, minute) of each group.
        codes: `[rows]`, each row's group; -1: left out.
    """

    applied: Applied
    version: Version
    rows: slice
    arms: list[str]
    groups: list[tuple[int, int]]
    codes: Indexes


class Panes:
    """Owns the panes of all streams; see `seams.Part` for its life. Engine thread only, like every part.

    Rows belong to the minute of their `done_ns`. Rows from further ahead of their arrival than `future` are
    taken as of their arrival, rows older than `minutes` are left out. A profile that is replaced lays panes
    out anew from the next minute's first rows on; panes of the layout before are kept for `hours` to show.
    """

    name = "panes"

    def __init__(self, profiles: ProfileSource, settings: PanesSettings) -> None:
        self._profiles = profiles
        self._settings = settings
        self._streams = Streams(settings)
        self._shelf = Shelf(settings.memory)
        self._hours = SketchedHours(settings.memory // 4)
        self._books = Books()
        self._counters: Counter[str] = Counter()

    # The part.

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables; see Part."""
        for keeper in (self._streams, self._shelf, self._hours, self._books):
            keeper.create(database)

    def restore(self, database: sqlite3.Connection) -> None:
        """Know what there is; panes are read when asked for; see Part."""
        for keeper in (self._streams, self._shelf, self._hours, self._books):
            keeper.restore(database)
        for version in self._streams.versions.values():
            self._ask_for_profile(version)

    def apply(self, applied: Applied) -> None:
        """Add rows to their panes; see Part."""
        batch, now_s = applied.rows, applied.received_s
        key = (batch.model, batch.version, batch.digest)
        version = self._streams.version(key, batch.rows, now_s)
        if version is None:
            return
        minutes, kept = self._minutes_of(batch, now_s)
        self._ask_for_profile(version, int(now_s // PANE_S))
        if version.layout is None or (version.layout.bare and batch.columns and not version.layout.numeric):
            self._put_layout(version, layouts.bare(batch))
        self._learn(version, batch, kept)
        if version.layout is None:
            return
        arms = [self._streams.arm(version, arm) for arm in batch.arms]
        step = chunk_rows(version.layout)
        for start in range(0, batch.rows, step):
            rows = slice(start, min(start + step, batch.rows))
            groups, codes = _grouped(batch.arm_codes[rows], minutes[rows], kept[rows])
            self._fill(_Chunk(applied, version, rows, arms, groups, codes))

    def _minutes_of(self, batch: RowBatch, now_s: float) -> tuple[Indexes, npt.NDArray[np.bool_]]:
        """Return each row's minute, and whether it is not too late."""
        minutes = batch.done_ns // _PANE_NS
        ahead = batch.done_ns > int((now_s + self._settings.future) * 1e9)
        if ahead.any():
            self._counters["future"] += int(ahead.sum())
            minutes = np.where(ahead, int(now_s // PANE_S), minutes)
        kept = minutes >= int((now_s - self._settings.minutes) // PANE_S)
        self._counters["late"] += batch.rows - int(kept.sum())
        return minutes, kept

    def _fill(self, chunk: _Chunk) -> None:
        """Add some rows to the panes of all rows, to the sketches, and to the segments' panes."""
        version, batch, layout = chunk.version, chunk.applied.rows, chunk.version.layout
        if layout is None:
            return
        filling = Filling(layout, batch, chunk.rows, self._settings.embedding_rows)
        number = self._shelf.number(layout)
        panes: list[Pane | None] = []
        for group, (arm, minute) in enumerate(chunk.groups):
            stream = self._streams.number(version, chunk.arms[arm], ALL, chunk.applied.received_s)
            pane = None if stream is None else self._shelf.open(stream, number, minute, spare=False)
            panes.append(pane)
            inside = np.flatnonzero(chunk.codes == group)
            if pane is None or stream is None:
                self._counters["late"] += len(inside)
                continue
            source = Source(chunk.applied.producer, batch.model, batch.version, batch.arms[arm])
            self._books.applied(source, minute, len(inside), float(filling.weights[inside].sum()))
            self._sketch(chunk, filling, inside, (stream, minute // HOUR))
        filling.add(panes, chunk.codes)
        self._fill_segments(chunk, filling)

    def _sketch(self, chunk: _Chunk, filling: Filling, inside: Indexes, place: tuple[int, int]) -> None:
        batch = chunk.applied.rows
        if not batch.columns:
            return
        names = filling.signals
        sketches = self._hours.open(*place, len(names))
        if sketches is not None:
            sketches.add(filling, names, inside, uniform(batch)[chunk.rows][inside])
            sketches.add_novel(filling, inside)

    def _fill_segments(self, chunk: _Chunk, filling: Filling) -> None:
        version, codes = chunk.version, chunk.codes
        if version.segment_layout is None:
            return
        number = self._shelf.number(version.segment_layout)
        for names, places in version.segmenting.split(chunk.applied.rows, chunk.rows, version.extra):
            pairs, both = _grouped(codes, places, (codes >= 0) & (places >= 0))
            panes: list[Pane | None] = []
            for group, place in pairs:
                arm, minute = chunk.groups[group]
                now_s = chunk.applied.received_s
                stream = self._streams.number(version, chunk.arms[arm], names[place], now_s)
                panes.append(None if stream is None else self._shelf.open(stream, number, minute, spare=True))
            filling.add(panes, both)

    def _ask_for_profile(self, version: Version, minute: int = -1) -> None:
        """Lay the version's panes out by its profile, if there is one and it is not that already."""
        if minute == version.asked_minute and minute >= 0:
            return
        version.asked_minute = minute
        profile = self._profiles.find(*version.key)
        if profile is not None and (version.layout is None or version.layout.id != profile.id):
            self._put_layout(version, layouts.of_profile(profile))
            version.extra = profile.segments
            version.reservoir = type(version.reservoir)(0)
        elif version.layout is None and minute < 0:
            self._put_layout(version, self._shelf.newest_layout(self._number_of_all(version.key)))

    def _number_of_all(self, key: VersionKey) -> list[int]:
        return [n for k, n in self._streams.numbers.items() if k[:3] == key and k.segment == ALL]

    def _put_layout(self, version: Version, layout: Layout | None) -> None:
        version.layout = layout
        version.segment_layout = None if layout is None else layout.for_segment()

    def _learn(self, version: Version, batch: RowBatch, kept: npt.NDArray[np.bool_]) -> None:
        if version.layout is None or not version.layout.bare or not batch.columns:
            return
        held = sum(v.reservoir.nbytes for v in self._streams.versions.values() if v is not version)
        if held + version.reservoir.nbytes > self._settings.reservoir:
            self._counters["reservoirs_full"] += 1
            return
        plain = np.array([not arm.startswith(SHADOW_PREFIX) for arm in batch.arms])[batch.arm_codes]
        well = np.array([status == "" for status in batch.statuses])[batch.status_codes]
        version.reservoir.add(batch, np.flatnonzero(kept & plain & well))

    def account(self, producer: str, epoch: int, accounting: Accounting, received_s: float) -> None:
        """Take a producer's accounts in, for `coverage`."""
        self._books.account(producer, epoch, accounting, received_s)

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what has changed; see Part."""
        # All of them, before any writes: should one fail, those after it have nothing to take back.
        for keeper in (self._streams, self._shelf, self._hours, self._books):
            keeper.committed()
        for keeper in (self._streams, self._shelf, self._hours, self._books):
            keeper.flush(database)

    def rolled_back(self) -> None:
        """What `flush` wrote last is to be written again."""
        for keeper in (self._streams, self._shelf, self._hours, self._books):
            keeper.rolled_back()

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Delete what is beyond its retention; see Part."""
        minute, hours_s = int((now_s - self._settings.minutes) // PANE_S), now_s - self._settings.hours
        self._shelf.expire(database, minute, int(hours_s // (PANE_S * HOUR)))
        self._hours.expire(database, int(hours_s // (PANE_S * HOUR)))
        self._books.expire(database, minute)
        for stream in self._streams.expired(database, min(hours_s, now_s - self._settings.minutes)):
            self._shelf.forget(database, stream)
            self._hours.forget(database, stream)

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:
        """Let the subjects' rows go from the samples that profiles are learned from.

        Sums know nobody; of the categories beside them, the rare ones could be somebody's, and are forgotten.
        """
        self._hours.prune(database, RARE)
        return sum(version.reservoir.erase(subject_hashes) for version in self._streams.versions.values())

    # What others read.

    def keys(self) -> Iterable[StreamKey]:
        """Return every stream that has panes, segments included; ordered, a snapshot."""
        return sorted(self._streams.numbers)

    def layout(self, key: StreamKey) -> Layout | None:
        """Return the layout in force for a stream, None if unknown; it is `bare` without a profile."""
        version = self._streams.versions.get(key[:3])
        if version is None:
            return None
        return version.layout if key.segment == ALL else version.segment_layout

    def _place(self, key: StreamKey) -> tuple[int, int] | None:
        stream, layout = self._streams.numbers.get(key), self.layout(key)
        return None if stream is None or layout is None else (stream, self._shelf.number(layout))

    def window(self, key: StreamKey, start_s: float, end_s: float) -> Pane:
        """Return the sum of a stream's panes in [start_s, end_s), widened to whole minutes; yours to keep.

        Only panes of the layout in force are in it. An unknown stream, or a time without rows, gives a pane
        of zeros (`rows` 0).
        """
        place = self._place(key)
        if place is None:
            return Pane(self.layout(key) or _NOTHING)
        return self._shelf.window(*place, *_span(start_s, end_s))

    def minutes(self, key: StreamKey, start_s: float, end_s: float) -> list[tuple[float, Pane]]:
        """Return (begin of the minute, pane) in order, of the layout in force, minutes without rows left out.

        The panes are not to be changed.
        """
        place = self._place(key)
        if place is None:
            return []
        found = self._shelf.minutes(*place, *_span(start_s, end_s))
        return [(float(minute * PANE_S), pane) for minute, pane in found]

    def hours(self, key: StreamKey, start_s: float, end_s: float) -> list[tuple[float, Pane]]:
        """Return (begin of the hour, pane) likewise, of every layout there was: kept longer than minutes.

        Look at `pane.layout.id` before comparing; an hour may have a pane of each of two layouts.
        """
        stream = self._streams.numbers.get(key)
        if stream is None:
            return []
        length = PANE_S * HOUR
        first, end = int(start_s // length), -int(-end_s // length)
        found = [
            (float(hour * length), pane)
            for layout in self._shelf.layouts_of(stream)
            for hour, pane in self._shelf.hours(stream, layout, first, end)
        ]
        return sorted(found, key=lambda item: item[0])

    def sketches(self, key: StreamKey, start_s: float, end_s: float) -> Sketches:
        """Return the quantile sketches and novel categories of the hours that touch [start_s, end_s).

        Of segment ALL only; empty for other segments.
        """
        stream = self._streams.numbers.get(key)
        if stream is None:
            return Sketches()
        length = PANE_S * HOUR
        return self._hours.between(stream, int(start_s // length), -int(-end_s // length))

    def coverage(self, model: str, version: int, arm: str | None, start_s: float, end_s: float) -> Coverage:
        """Return how much of what was served in [start_s, end_s), widened to whole minutes, is in the panes.

        Args:
            model: public model name.
            version: number of the version.
            arm: as logged; None: all arms together.
            start_s: begin.
            end_s: end, exclusive.
        """
        return self._books.coverage(model, version, arm, start_s, end_s)

    def learned(self, model: str, version: int, digest: str) -> RowBatch | None:
        """Return a random sample of the version's rows (answered ones, no shadows), to learn a profile from.

        None once the version has a profile, or before there were rows. Rows that stand for many were taken
        more likely: each counts as one. At most `reservoir_rows`, in memory alone.
        """
        entry = self._streams.versions.get((model, version, digest))
        return None if entry is None else entry.reservoir.sample()

    def counters(self) -> Mapping[str, float]:
        """Return what was counted instead of kept since the start, and sizes (`*_bytes`), by name."""
        counted: Counter[str] = Counter()
        for part in (self._counters, self._streams.counters, self._shelf.counters, self._hours.counters):
            counted.update(part)
        return {
            **counted,
            "segments_coarsened": sum(v.segmenting.coarsened for v in self._streams.versions.values()),
            "coverage_refused": self._books.refused,
            "panes_bytes": self._shelf.nbytes,
            "sketches_bytes": self._hours.nbytes,
            "reservoir_bytes": sum(v.reservoir.nbytes for v in self._streams.versions.values()),
            "versions": len(self._streams.versions),
            "streams": len(self._streams.numbers),
        }


def _grouped(
    first: npt.NDArray[np.integer], second: npt.NDArray[np.integer], kept: npt.NDArray[np.bool_]
) -> tuple[list[tuple[int, int]], Indexes]:
    """Return the distinct pairs of two codes, and each row's place among them, -1 where it is not kept."""
    groups = np.full(len(kept), -1, np.int64)
    if not kept.any():
        return [], groups
    low = int(second[kept].min())
    span = int(second[kept].max()) - low + 1
    mixed = first[kept].astype(np.int64) * span + (second[kept] - low)
    distinct, groups[kept] = np.unique(mixed, return_inverse=True)
    return [(int(pair // span), int(pair % span) + low) for pair in distinct.tolist()], groups


def _span(start_s: float, end_s: float) -> tuple[int, int]:
    return int(start_s // PANE_S), -int(-end_s // PANE_S)


__all__ = ["Panes", "ProfileSource"]
