"""Blocks, labels and counters in SQLite: what changed is written, so that it holds what memory holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from gateway.monitor.labels.label import Label
from gateway.monitor.labels.waiting import Entry
from gateway.monitor.performance.block import LABEL, Block, row_dtype
from gateway.monitor.profile.reference import Task, TaskKind
from gateway.monitor.values import StreamKey

if TYPE_CHECKING:
    import sqlite3

    from gateway.monitor.labels.waiting import Waiting
    from gateway.monitor.performance.records import Records

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS performance_blocks
    (id INTEGER PRIMARY KEY, head BLOB NOT NULL, rows BLOB NOT NULL, keys BLOB NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS performance_labels (id INTEGER PRIMARY KEY, labels BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS performance_waiting (model TEXT, id BLOB, row INTEGER, body BLOB NOT NULL,
    since_s REAL NOT NULL, PRIMARY KEY (model, id, row)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS performance_meta (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
)


class Stored:
    """Knows what the database holds. Where a transaction failed, everything is written again."""

    def __init__(self) -> None:
        self._written: set[int] = set()
        self._flushes = 0

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables."""
        for statement in _TABLES:
            database.execute(statement)

    def restore(self, database: sqlite3.Connection, records: Records, waiting: Waiting) -> Counter[str]:
        """Read everything; return the counters."""
        labels = dict(database.execute("SELECT id, labels FROM performance_labels"))
        for number, head, rows, keys in database.execute(
            "SELECT id, head, rows, keys FROM performance_blocks ORDER BY id"
        ):
            records.adopt(_block(number, orjson.loads(head), (rows, keys), labels[number]))
        self._written = set(records.blocks)
        for model, key, row, body, since_s in database.execute(
            "SELECT model, id, row, body, since_s FROM performance_waiting ORDER BY since_s"
        ):
            waiting.put((model, bytes(key), row), _entry(bytes(key), row, orjson.loads(body), since_s))
        waiting.changed.clear()
        meta = {name: orjson.loads(body) for name, body in database.execute("SELECT * FROM performance_meta")}
        self._flushes = meta.get("flushes", 0)
        return Counter(meta.get("counts", {}))

    def flush(
        self, database: sqlite3.Connection, records: Records, waiting: Waiting, counts: Counter[str]
    ) -> None:
        """Write what has changed."""
        if self._lost(database):
            self.repeat(records, waiting)
            database.execute("DELETE FROM performance_waiting")
        self.delete(database, records, waiting)
        for block in records.blocks.values():
            _write(database, block)
        self._written = set(records.blocks)
        self._flushes += 1
        meta = {"flushes": self._flushes, "counts": dict(counts)}
        database.executemany(
            "INSERT OR REPLACE INTO performance_meta VALUES (?, ?)",
            [(name, orjson.dumps(body)) for name, body in meta.items()],
        )

    def delete(self, database: sqlite3.Connection, records: Records, waiting: Waiting) -> None:
        """Delete what memory no longer holds, and write what waits."""
        gone = [(number,) for number in self._written - records.blocks.keys()]
        database.executemany("DELETE FROM performance_blocks WHERE id = ?", gone)
        database.executemany("DELETE FROM performance_labels WHERE id = ?", gone)
        self._written &= records.blocks.keys()
        held = [(place, entry) for place in waiting.changed if (entry := waiting.get(place)) is not None]
        missing = [place for place in waiting.changed if waiting.get(place) is None]
        database.executemany(
            "DELETE FROM performance_waiting WHERE model = ? AND id = ? AND row = ?", missing
        )
        database.executemany(
            "INSERT OR REPLACE INTO performance_waiting VALUES (?, ?, ?, ?, ?)",
            [(*place, _body(entry), entry.since_s) for place, entry in held],
        )
        waiting.changed.clear()

    def repeat(self, records: Records, waiting: Waiting) -> None:
        """Have the next flush write everything: what the last one wrote is not there."""
        for block in records.blocks.values():
            block.rows_dirty = block.labels_dirty = True
        waiting.changed |= {place for place, _ in waiting.items()}

    def _lost(self, database: sqlite3.Connection) -> bool:
        found = database.execute("SELECT body FROM performance_meta WHERE name = 'flushes'").fetchone()
        held = orjson.loads(found[0]) if found else 0
        if held == self._flushes:
            return False
        self._written = {number for (number,) in database.execute("SELECT id FROM performance_blocks")}
        self._flushes = held
        return True


def _write(database: sqlite3.Connection, block: Block) -> None:
    if block.rows_dirty:
        rows = block.rows[: block.count].tobytes()
        keys = orjson.dumps([key.hex() for key in block.keys])
        database.execute(
            "INSERT OR REPLACE INTO performance_blocks VALUES (?, ?, ?, ?)",
            (block.id, orjson.dumps(_head(block)), rows, keys),
        )
    if block.labels_dirty:
        labels = block.labels[: block.count].tobytes()
        database.execute("INSERT OR REPLACE INTO performance_labels VALUES (?, ?)", (block.id, labels))
    block.rows_dirty = block.labels_dirty = False


def _head(block: Block) -> dict[str, Any]:
    task = block.task
    return {
        "key": list(block.key),
        "task": [task.kind.value, task.score, task.prediction, list(task.classes), task.threshold],
        "columns": list(block.columns),
        "values": block.values,
        "scores": block.rows["scores"].shape[1],
    }


def _block(number: int, head: dict[str, Any], parts: tuple[bytes, bytes], labels: bytes) -> Block:
    kind, score, prediction, names, threshold = head["task"]
    task = Task(
        kind=TaskKind(kind), score=score, prediction=prediction, classes=tuple(names), threshold=threshold
    )
    layout = row_dtype(head["scores"], len(head["columns"]))
    rows = np.frombuffer(parts[0], layout).copy()
    keys = [bytes.fromhex(key) for key in orjson.loads(parts[1])]
    block = Block(
        id=number,
        key=StreamKey(*head["key"]),
        task=task,
        columns=tuple(head["columns"]),
        rows=rows,
        labels=np.frombuffer(labels, LABEL).copy(),
        keys=keys,
        values=head["values"],
        count=len(keys),
        rows_dirty=False,
        labels_dirty=False,
    )
    block.low_ns, block.high_ns = int(rows["at_ns"].min()), int(rows["at_ns"].max())
    return block


def _body(entry: Entry) -> bytes:
    label = entry.label
    fields = [label.value, label.at_ns, label.source, label.revision, label.weight, entry.matched]
    return orjson.dumps(fields)


def _entry(key: bytes, row: int, body: list[Any], since_s: float) -> Entry:
    *fields, matched = body
    return Entry(Label(key, row, *fields), since_s, matched)
