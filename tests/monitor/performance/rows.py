"""Batches, profiles and parts made for the tests of performance."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.config.monitor_labels import LabelSettings, PerformanceSettings
from gateway.monitor.labels.label import Label, Parsed, checked
from gateway.monitor.performance.part import Performance
from gateway.monitor.profile.reference import Profile, Task, TaskKind
from gateway.monitor.values import Applied, StreamKey
from gateway.predlog.rows import Column, ColumnKind, Role, RowBatch

if TYPE_CHECKING:
    from gateway.monitor.labels.label import LabelReply

START_S = 1_760_054_400.0
"""Begin of a day."""

BINARY = Task(kind=TaskKind.BINARY, score="probabilities[1]", classes=("no", "yes"))
KEY = StreamKey("loan", 1, "d1")


def profile(task: Task | None = BINARY, **given: Any) -> Profile:
    """Return a profile that knows the task and little else."""
    fields: dict[str, Any] = {
        "id": "p", "model": "loan", "version": 1, "created_s": 0.0, "source": "test", "rows": 1000,
        "numeric": (), "categories": (), "embeddings": (), "task": task,
    }  # fmt: skip
    return Profile(**{**fields, **given})


@dataclass
class Catalog:
    """Profiles by model."""

    profiles: dict[str, Profile] = field(default_factory=dict)

    def find(self, model: str, version: int, digest: str = "") -> Profile | None:
        return self.profiles.get(model)


def category(name: str, values: list[str], role: Role = Role.SEGMENT) -> Column:
    """Return a CATEGORY column."""
    words = sorted(set(values))
    codes = np.array([[words.index(value)] for value in values], np.int32)
    return Column(name, role, ColumnKind.CATEGORY, codes, tuple(word.encode() for word in words))


def scores(values: Any, name: str = "probabilities") -> Column:
    """Return the output that tasks here score by: both probabilities, or the columns as given."""
    array = np.asarray(values, np.float64)
    if array.ndim == 1:
        array = np.stack([1 - array, array], axis=1)
    return Column(name, Role.OUTPUT, ColumnKind.NUMERIC, np.ascontiguousarray(array))


def number(values: Any, name: str = "price") -> Column:
    """Return an output of one number per row."""
    return Column(name, Role.OUTPUT, ColumnKind.NUMERIC, np.asarray(values, np.float64).reshape(-1, 1))


def batch(*columns: Column, **given: Any) -> RowBatch:
    """Return rows with the keys `k0`, `k1`, ... from `first` on; per-row fields as one value or many."""
    rows = len(columns[0].values)
    first = given.pop("first", 0)
    at_ns = (np.asarray(given.pop("at_s", START_S), np.float64) * 1e9).astype(np.int64)

    def per_row(name: str, default: Any, dtype: Any) -> Any:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(given.pop(name, default), dtype), (rows,)))

    times = np.ascontiguousarray(np.broadcast_to(at_ns, (rows,)))
    return RowBatch(
        model=given.pop("model", "loan"), version=1, digest="d1", policy="", rows=rows,
        keys=given.pop("keys", tuple(b"k%d" % i for i in range(first, first + rows))),
        key_hashes=per_row("key_hashes", 0, np.uint64), row_indexes=per_row("row_indexes", 0, np.uint32),
        arrived_ns=times, done_ns=times,
        queue_us=per_row("queue_us", 0, np.uint32), infer_us=per_row("infer_us", 0, np.uint32),
        arms=given.pop("arms", ("",)), arm_codes=per_row("arm_codes", 0, np.uint8),
        statuses=given.pop("statuses", ("",)), status_codes=per_row("status_codes", 0, np.uint8),
        reasons=per_row("reasons", 0, np.uint8), weights=per_row("weights", 1, np.float32),
        columns=columns, subject_hashes=per_row("subject_hashes", 0, np.uint64), **given,
    )  # fmt: skip


class Monitor:
    """A performance part with its database, checkpointed and restarted as the engine does."""

    def __init__(
        self, made: Profile | None = None, labels: dict[str, Any] | None = None, **given: Any
    ) -> None:
        made = made or profile()
        self.catalog = Catalog({made.model: made})
        self.settings = PerformanceSettings(**given)
        self.label_settings = LabelSettings(**(labels or {}))
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.execute("PRAGMA secure_delete = ON")
        self.now_s = START_S + 100
        self.restart()

    def restart(self) -> None:
        """Forget all memory, as a crash does."""
        self.part = Performance(self.catalog, self.settings, self.label_settings)
        self.part.create(self.database)
        self.part.restore(self.database)

    def apply(self, rows: RowBatch) -> None:
        """Take rows in that came when the last of them was done, or now."""
        self.part.apply(Applied("gateway", rows, max(self.now_s, float(rows.done_ns.max()) / 1e9)))

    def checkpoint(self, *, expire_s: float | None = None) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        self.part.flush(self.database)
        if expire_s is not None:
            self.part.expire(self.database, expire_s)
        self.database.execute("COMMIT")

    def post(self, *labels: Label, model: str = "loan") -> LabelReply:
        assert [checked(label) for label in labels] == [None] * len(labels)
        return self.part.post(Parsed(model, tuple(enumerate(labels))), self.now_s)

    def truth(self, values: Any, first: int = 0, **given: Any) -> LabelReply:
        """Post labels of `k0`, `k1`, ..., or those from `first` on."""
        return self.post(*(Label(b"k%d" % i, 0, value, **given) for i, value in enumerate(values, first)))

    def metrics(self, key: StreamKey = KEY, end_s: float = START_S + 86_400) -> dict[str, float]:
        found = self.part.results(key, START_S, end_s)
        return {} if found is None else {name: metric.value for name, metric in found.metrics.items()}

    def bytes(self) -> bytes:
        """Return the whole database, free pages too."""
        return self.database.serialize()
