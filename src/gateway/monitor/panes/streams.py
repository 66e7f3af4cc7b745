"""The versions and streams that panes are kept for: numbered, bounded, and known again after a restart."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.monitor.panes.reservoir import Reservoir
from gateway.monitor.panes.segments import Segmenting
from gateway.monitor.values import ALL, StreamKey

if TYPE_CHECKING:
    import sqlite3

    from gateway.config.monitor_ingest import PanesSettings
    from gateway.monitor.panes.layout import Layout

OTHER_ARM = "other"

VersionKey = tuple[str, int, str]


@dataclass(slots=True)
class Version:
    """One version that rows came of.

    Attributes:
        key: model, version, digest.
        layout: of the panes of all rows; None before the first rows.
        segment_layout: of the segments' panes.
        extra: columns that the profile makes segments of.
        segmenting: its segments.
        reservoir: rows kept while there is no profile.
        arms: that have streams.
        streams: how many.
        asked_minute: when its profile was last asked for.
        seen_s: when rows last came.
    """

    key: VersionKey
    segmenting: Segmenting
    reservoir: Reservoir
    layout: Layout | None = None
    segment_layout: Layout | None = None
    extra: tuple[str, ...] = ()
    arms: set[str] = field(default_factory=set)
    streams: int = 0
    asked_minute: int = -1
    seen_s: float = 0.0


class Streams:
    """All versions and their streams.

    Attributes:
        counters: `unwatched` rows of versions beyond the limit, `arms_coarsened`, `segments_refused`.
    """

    def __init__(self, settings: PanesSettings) -> None:
        self.counters: Counter[str] = Counter()
        self.versions: dict[VersionKey, Version] = {}
        self.numbers: dict[StreamKey, int] = {}
        self._settings = settings
        self._seen: dict[StreamKey, float] = {}
        self._changed: set[StreamKey] = set()
        self._flushed: set[StreamKey] = set()
        self._next = 1

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table where it does not exist."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_streams (id INTEGER PRIMARY KEY, model TEXT, version TEXT,"
            " digest TEXT, arm TEXT, segment TEXT, seen_s REAL)"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the streams of the last checkpoint."""
        for number, model, version, digest, arm, segment, seen_s in database.execute(
            "SELECT * FROM panes_streams"
        ):
            key = StreamKey(model, int(version), digest, arm, segment)
            self.numbers[key] = number
            self._seen[key] = seen_s
            self._next = max(self._next, number + 1)
            entry = self._entry(key[:3])
            entry.streams += 1
            entry.arms.add(arm)
            entry.seen_s = max(entry.seen_s, seen_s)
            if segment != ALL:
                entry.segmenting.restore(segment)

    def _entry(self, key: VersionKey) -> Version:
        entry = self.versions.get(key)
        if entry is None:
            settings = self._settings
            reservoir = Reservoir(settings.reservoir_rows)
            entry = self.versions[key] = Version(key, Segmenting(settings.segment_values), reservoir)
        return entry

    def version(self, key: VersionKey, rows: int, now_s: float) -> Version | None:
        """Return the entry of a version that `rows` came of; None (and counted) beyond the limit."""
        if key not in self.versions and len(self.versions) >= self._settings.models:
            self.counters["unwatched"] += rows
            return None
        entry = self._entry(key)
        entry.seen_s = now_s
        return entry

    def arm(self, version: Version, arm: str) -> str:
        """Return the arm that rows are counted under."""
        if arm in version.arms:
            return arm
        if len(version.arms) >= self._settings.arms:
            self.counters["arms_coarsened"] += 1
            arm = OTHER_ARM
        version.arms.add(arm)
        return arm

    def number(self, version: Version, arm: str, segment: str, now_s: float) -> int | None:
        """Return a stream's number, giving it one; None where there is no room for another segment."""
        key = StreamKey(*version.key, arm, segment)
        number = self.numbers.get(key)
        if number is None:
            limits = self._settings
            full = version.streams >= limits.streams_per_model or len(self.numbers) >= limits.streams
            if segment != ALL and full:
                self.counters["segments_refused"] += 1
                return None
            number = self.numbers[key] = self._next
            self._next += 1
            version.streams += 1
            self._changed.add(key)
        if now_s - self._seen.get(key, 0.0) > 60.0:
            self._seen[key] = now_s
            self._changed.add(key)
        return number

    def committed(self) -> None:
        """The last flush is in the database."""
        self._flushed = set()

    def flush(self, database: sqlite3.Connection) -> None:
        """Write the streams that are new or were seen again."""
        database.executemany(
            "INSERT OR REPLACE INTO panes_streams VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (self.numbers[k], k.model, str(k.version), k.digest, k.arm, k.segment, self._seen.get(k, 0.0))
                for k in self._changed
                if k in self.numbers
            ],
        )
        self._flushed, self._changed = self._changed, set()

    def rolled_back(self) -> None:
        """The last flush is not in the database."""
        self._changed |= self._flushed
        self._flushed = set()

    def expired(self, database: sqlite3.Connection, before_s: float) -> list[int]:
        """Forget streams that were not seen since; return their numbers."""
        gone = [key for key in self.numbers if self._seen.get(key, 0.0) < before_s]
        numbers = [self.numbers.pop(key) for key in gone]
        database.executemany("DELETE FROM panes_streams WHERE id = ?", [(number,) for number in numbers])
        for key in gone:
            self._seen.pop(key, None)
            entry = self.versions.get(key[:3])
            if entry is not None:
                entry.streams -= 1
                if not entry.streams:
                    del self.versions[key[:3]]
        return numbers
