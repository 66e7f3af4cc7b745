"""Mirrored rows beside the rows that they copy: differences of each with itself, by minute."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import orjson

from gateway.monitor.panes.layout import MAX_WIDTH, signal_names
from gateway.monitor.values import PANE_S
from gateway.predlog.rows import SHADOW_PREFIX, ColumnKind, Role

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from gateway.predlog.rows import RowBatch

    Floats = npt.NDArray[np.float64]

MAX_SIGNALS: Final = 64
MAX_STREAMS: Final = 256
"""Pairs of versions and arms that are compared."""
MIRRORED_S: Final = 3600
"""A model without a mirrored row for so long is no longer looked at."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class PairKey(NamedTuple):
    """Who is compared with whom."""

    model: str
    candidate: int
    candidate_arm: str
    baseline: int
    baseline_arm: str


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of pairs, candidate less baseline, of one signal.

    Attributes:
        rows: effective ones.
        mean: of the differences.
        variance: of a difference.
        spread: standard deviation of the baseline's values.
    """

    rows: float
    mean: float
    variance: float
    spread: float


class _Waiting(NamedTuple):
    version: int
    arm: str
    minute: int
    weight: float
    subject: int
    names: tuple[str, ...]
    values: Floats


class Pairs:
    """Joins rows by the hash of their key and their place in the request; bounded.

    Attributes:
        dropped: rows that made room before their other half came.
        joined: pairs.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self.joined = 0
        self._limit = limit
        self._waiting: OrderedDict[tuple[str, bool, int], _Waiting] = OrderedDict()
        self._mirrored: dict[str, float] = {}
        self._sums: dict[PairKey, dict[int, tuple[tuple[str, ...], Floats]]] = {}
        self._changed: set[tuple[PairKey, int]] = set()
        self._written: set[tuple[PairKey, int]] = set()

    def add(self, batch: RowBatch, received_s: float) -> None:
        """Take the answered rows of a model that is mirrored now."""
        shadows = [arm.startswith(SHADOW_PREFIX) for arm in batch.arms]
        if any(shadows):
            self._mirrored[batch.model] = received_s
        if not self._limit or received_s - self._mirrored.get(batch.model, -np.inf) > MIRRORED_S:
            return
        names, values = _outputs(batch)
        if not names:
            return
        well = np.array([status == "" for status in batch.statuses], bool)[batch.status_codes]
        whole = well & np.isfinite(values).all(axis=1)
        hashes = batch.key_hashes ^ (batch.row_indexes.astype(np.uint64) * _MIX)
        minutes = batch.done_ns // (PANE_S * 1_000_000_000)
        for row in np.flatnonzero(whole).tolist():
            code = int(batch.arm_codes[row])
            found = _Waiting(
                batch.version,
                batch.arms[code],
                int(minutes[row]),
                float(batch.weights[row]),
                int(batch.subject_hashes[row]),
                names,
                values[row],
            )
            self._join(batch.model, int(hashes[row]), found, shadow=shadows[code])

    def paired(self, keys: Iterable[PairKey], start_s: float, end_s: float) -> dict[str, Paired]:
        """Return the differences by signal, of pairs whose baseline was served in [start_s, end_s)."""
        total: dict[str, Floats] = {}
        for key in keys:
            for minute, (names, sums) in self._sums.get(key, {}).items():
                if start_s <= minute * PANE_S < end_s:
                    for name, row in zip(names, sums, strict=True):
                        total[name] = total.get(name, np.zeros(6)) + row
        return {name: _paired(row) for name, row in total.items() if row[0] > 0}

    def keys(self) -> tuple[PairKey, ...]:
        """Return who was compared with whom."""
        return tuple(self._sums)

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS arms_pairs (pair TEXT NOT NULL, minute INTEGER NOT NULL, "
            "names TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (pair, minute)) WITHOUT ROWID"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS arms_waiting (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB)"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read sums, and rows that wait."""
        for pair, minute, names, body in database.execute("SELECT * FROM arms_pairs").fetchall():
            sums = np.frombuffer(body, np.float64).reshape(-1, 6).copy()
            self._sums.setdefault(PairKey(*orjson.loads(pair)), {})[minute] = (
                tuple(orjson.loads(names)),
                sums,
            )
        found = database.execute("SELECT body FROM arms_waiting").fetchone()
        state: dict[str, Any] = orjson.loads(found[0]) if found else {"mirrored": {}, "waiting": []}
        self._mirrored.update(state["mirrored"])
        for (model, shadow, number), w in state["waiting"]:
            row = _Waiting(w[0], w[1], w[2], w[3], w[4], tuple(w[5]), np.array(w[6]))
            self._waiting[model, shadow, number] = row

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what changed."""
        database.executemany(
            "INSERT OR REPLACE INTO arms_pairs VALUES (?, ?, ?, ?)",
            [
                (orjson.dumps(list(key)).decode(), minute, orjson.dumps(names).decode(), sums.tobytes())
                for key, minute in self._changed
                for names, sums in (self._sums[key][minute],)
            ],
        )
        self._written, self._changed = self._changed, set()
        waiting = [(list(place), list(w)) for place, w in self._waiting.items()]
        body = orjson.dumps(
            {"mirrored": self._mirrored, "waiting": waiting}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        database.execute("INSERT OR REPLACE INTO arms_waiting VALUES (1, ?)", (body,))

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again, as far as it is still held."""
        held = {(key, minute) for key, minute in self._written if minute in self._sums.get(key, {})}
        self._changed |= held
        self._written = set()

    def expire(self, database: sqlite3.Connection, before_s: float) -> None:
        """Forget minutes before."""
        before = int(before_s // PANE_S)
        for key, minutes in list(self._sums.items()):
            for minute in [m for m in minutes if m < before]:
                del minutes[minute]
                self._changed.discard((key, minute))
            if not minutes:
                del self._sums[key]
        for place in [p for p, w in self._waiting.items() if w.minute < before]:
            del self._waiting[place]
        database.execute("DELETE FROM arms_pairs WHERE minute < ?", (before,))

    def erase(self, subject_hashes: frozenset[int]) -> int:
        """Forget rows that wait, of these subjects; return how many."""
        gone = [place for place, w in self._waiting.items() if w.subject in subject_hashes]
        for place in gone:
            del self._waiting[place]
        return len(gone)

    def _join(self, model: str, number: int, row: _Waiting, *, shadow: bool) -> None:
        other = self._waiting.pop((model, not shadow, number), None)
        if other is None or other.names != row.names:
            self._waiting[model, shadow, number] = row
            if len(self._waiting) > self._limit:
                self._waiting.popitem(last=False)
                self.dropped += 1
            return
        candidate, baseline = (row, other) if shadow else (other, row)
        key = PairKey(model, candidate.version, candidate.arm, baseline.version, baseline.arm)
        if key not in self._sums and len(self._sums) >= MAX_STREAMS:
            self.dropped += 1
            return
        minutes = self._sums.setdefault(key, {})
        names, sums = minutes.setdefault(baseline.minute, (row.names, np.zeros((len(row.names), 6))))
        if names != row.names:
            self.dropped += 1
            return
        w, d, b = baseline.weight, candidate.values - baseline.values, baseline.values
        sums += np.stack(np.broadcast_arrays(w, w * w, w * d, w * d * d, w * b, w * b * b), axis=1)
        self._changed.add((key, baseline.minute))
        self.joined += 1


def _outputs(batch: RowBatch) -> tuple[tuple[str, ...], Floats]:
    names: list[str] = []
    columns: list[Floats] = []
    for column in batch.columns:
        if (
            column.role is Role.OUTPUT
            and column.kind is ColumnKind.NUMERIC
            and column.values.shape[1] <= MAX_WIDTH
        ):
            names += signal_names(column)
            columns.append(column.values.astype(np.float64))
    if not names:
        return (), np.empty((batch.rows, 0))
    return tuple(names[:MAX_SIGNALS]), np.concatenate(columns, axis=1)[:, :MAX_SIGNALS]


def _paired(sums: Floats) -> Paired:
    w, w2, wd, wd2, wb, wb2 = sums.tolist()
    mean, middle = wd / w, wb / w
    return Paired(w * w / w2, mean, max(wd2 / w - mean**2, 0.0), max(wb2 / w - middle**2, 0.0) ** 0.5)


def matching(keys: Iterable[PairKey], model: str, arms: Mapping[str, str]) -> list[PairKey]:
    """Return the pairs of a model whose halves are the arms or version numbers asked for."""
    return [
        key
        for key in keys
        if key.model == model
        and arms["candidate"] in (key.candidate_arm, str(key.candidate))
        and arms["baseline"] in (key.baseline_arm, str(key.baseline))
    ]
