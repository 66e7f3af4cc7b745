"""What came from which gateway, how late, and which versions were seen when."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from gateway.monitor.values import PANE_S, Marker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from gateway.monitor.values import Applied
    from gateway.predlog.rows import Accounting

MAX_PRODUCERS: Final = 1024
MAX_VERSIONS: Final = 4096
MAX_MARKERS: Final = 1000
MINUTES: Final = 360
"""Of the course that is kept: six hours."""

VersionKey = tuple[str, int, str]


@dataclass(slots=True)
class Producer:
    """One gateway's log, of its latest process.

    Attributes:
        epoch: of that process.
        produced: rows it says it had.
        dropped: rows it says it dropped, by reason.
        applied: rows of it in the monitor's state.
        lag_s: age of the newest row of the last batch when it came.
        last_s: when that was.
        epochs: processes seen.
    """

    epoch: int = 0
    produced: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    applied: int = 0
    lag_s: float = float("nan")
    last_s: float = float("nan")
    epochs: int = 0


@dataclass(slots=True)
class Minute:
    """One minute of the course.

    Attributes:
        start_s: begin of the minute.
        applied: rows.
        dropped: rows, by reason.
        lags_s: of each batch.
    """

    start_s: float
    applied: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    lags_s: list[float] = field(default_factory=list)

    def lag_p99_s(self) -> float:
        """Return the 99th percentile of the batches' lags; NaN where nothing came."""
        return float(np.quantile(self.lags_s, 0.99)) if self.lags_s else float("nan")


class Pipeline:
    """A `Part` that feeds on every batch and account. Bounded by the constants above; engine thread only.

    Attributes:
        producers: by name, the one that was heard of longest ago first.
        versions: (model, version, digest) -> (first, last) time of its rows.
        rows: (model, version, arm) -> rows applied since the start of the monitor.
        course: the last minutes.
    """

    name = "pipeline"

    def __init__(self) -> None:
        self.producers: OrderedDict[str, Producer] = OrderedDict()
        self.versions: OrderedDict[VersionKey, tuple[float, float]] = OrderedDict()
        self.rows: dict[tuple[str, int, str], int] = {}
        self.course: deque[Minute] = deque(maxlen=MINUTES)
        self._profiles: dict[VersionKey, str] = {}
        self._markers: deque[Marker] = deque(maxlen=MAX_MARKERS)

    def apply(self, applied: Applied) -> None:
        """Take a batch in."""
        rows = applied.rows
        producer = self._producer(applied.producer)
        newest_s = float(rows.done_ns.max()) / 1e9 if rows.rows else applied.received_s
        producer.applied += rows.rows
        producer.lag_s = max(0.0, applied.received_s - newest_s)
        producer.last_s = applied.received_s
        minute = self._minute(applied.received_s)
        minute.applied += rows.rows
        minute.lags_s.append(producer.lag_s)
        self._seen((rows.model, rows.version, rows.digest), newest_s)
        counts = np.bincount(rows.arm_codes, minlength=len(rows.arms))
        for arm, count in zip(rows.arms, counts.tolist(), strict=False):
            key = (rows.model, rows.version, arm)
            if key in self.rows or len(self.rows) < MAX_VERSIONS:
                self.rows[key] = self.rows.get(key, 0) + count

    def account(self, producer: str, epoch: int, accounting: Accounting, received_s: float) -> None:
        """Take a producer's figures in; cumulative within an epoch."""
        known = self._producer(producer)
        if epoch < known.epoch:
            return
        if epoch > known.epoch:
            known.applied = known.applied if not known.epochs else 0
            known.epochs += 1
            known.epoch, known.produced, known.dropped = epoch, 0, {}
        minute = self._minute(received_s)
        for reason, rows in accounting.dropped:
            more = rows - known.dropped.get(reason, 0)
            if more > 0:
                known.dropped[reason] = rows
                minute.dropped[reason] = minute.dropped.get(reason, 0) + more
        known.produced = max(known.produced, sum(one.rows for one in accounting.produced))
        known.last_s = received_s

    def profile(self, key: VersionKey, profile_id: str, now_s: float) -> None:
        """Note which profile a version is compared with; a change is marked."""
        before = self._profiles.get(key)
        if before != profile_id:
            self._profiles[key] = profile_id
            if before is not None:
                self._markers.append(Marker(now_s, key[0], f"version {key[1]}: profile replaced"))

    def markers(self, model: str, start_s: float, end_s: float) -> list[Marker]:
        """Return what happened to a model in a period."""
        appeared = (
            Marker(first_s, name, f"version {number} appeared")
            for (name, number, _), (first_s, _) in self.versions.items()
        )
        found = [m for m in (*appeared, *self._markers) if m.model == model and start_s <= m.at_s < end_s]
        return sorted(found, key=lambda marker: marker.at_s)

    def _producer(self, name: str) -> Producer:
        known = self.producers.setdefault(name, Producer())
        self.producers.move_to_end(name)
        while len(self.producers) > MAX_PRODUCERS:
            self.producers.popitem(last=False)
        return known

    def _seen(self, key: VersionKey, at_s: float) -> None:
        first_s, last_s = self.versions.get(key, (at_s, at_s))
        self.versions[key] = (min(first_s, at_s), max(last_s, at_s))
        self.versions.move_to_end(key)
        while len(self.versions) > MAX_VERSIONS:
            self.versions.popitem(last=False)

    def _minute(self, at_s: float) -> Minute:
        start_s = at_s // PANE_S * PANE_S
        if not self.course or self.course[-1].start_s != start_s:
            self.course.append(Minute(start_s))
        return self.course[-1]

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS pipeline_state (name TEXT PRIMARY KEY, body BLOB NOT NULL)"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read producers, versions and markers."""
        row = database.execute("SELECT body FROM pipeline_state WHERE name = 'state'").fetchone()
        if row is None:
            return
        state: dict[str, Any] = orjson.loads(row[0])
        for name, epoch, produced, dropped, applied, epochs in state["producers"]:
            self.producers[name] = Producer(epoch, produced, dropped, applied, epochs=epochs)
        self.versions.update({(m, v, d): (first, last) for m, v, d, first, last in state["versions"]})
        self._profiles = {(m, v, d): profile for m, v, d, profile in state["profiles"]}
        self._markers.extend(Marker(*marker) for marker in state["markers"])

    def flush(self, database: sqlite3.Connection) -> None:
        """Write them, whole: some hundred bytes each."""
        state = {
            "producers": [
                [name, p.epoch, p.produced, p.dropped, p.applied, p.epochs]
                for name, p in self.producers.items()
            ],
            "versions": [[*key, *times] for key, times in self.versions.items()],
            "profiles": [[*key, profile] for key, profile in self._profiles.items()],
            "markers": [[m.at_s, m.model, m.text] for m in self._markers],
        }
        database.execute("INSERT OR REPLACE INTO pipeline_state VALUES ('state', ?)", (orjson.dumps(state),))

    def rolled_back(self) -> None:
        """Nothing is to be noted: every flush writes the whole."""

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Keep what is bounded anyway."""

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:  # noqa: ARG002
        """Delete nothing: there are counts alone."""
        return 0


def producers_by_name(producers: Iterable[tuple[str, Producer]], most: int) -> list[tuple[str, Producer]]:
    """Return the producers heard of latest, by name."""
    return sorted(list(producers)[-most:])
