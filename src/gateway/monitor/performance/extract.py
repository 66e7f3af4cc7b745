"""Takes out of a batch what performance needs of its rows: score, prediction, segments, key and time."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.answers import UNKNOWN, class_index, classes
from gateway.monitor.performance.block import MAX_VALUES, OTHER, Extract, row_dtype
from gateway.monitor.profile.reference import TaskKind
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.types import Array
    from gateway.monitor.profile.reference import Task
    from gateway.predlog.rows import Column, RowBatch

MAX_SCORES: Final = 64
MAX_COLUMNS: Final = 8
"""Segment columns that are kept with a prediction."""
MAX_KEY_BYTES: Final = 256
"""A longer key is no key: a label's id is not longer either."""
MAX_NAME: Final = 64
AHEAD_S: Final = 3600.0
"""A gateway's clock may be so far ahead."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PART: Final = re.compile(r"(.+)\[([^\[\]]+)\]")


@dataclass(slots=True)
class Extracted:
    """Rows by arm, and how many were left out, by why."""

    arms: list[tuple[str, Extract]]
    skipped: Counter[str]


def extract(rows: RowBatch, task: Task, segments: Sequence[str], after_ns: int = 1 << 62) -> Extracted:
    """Return the rows that performance can be told of: answered well, with a finite score.

    Args:
        rows: as logged.
        task: what they predict.
        segments: columns, beside those of role SEGMENT, that segments are made of.
        after_ns: rows from later are from a clock that is wrong, and would outlive their retention.
    """
    skipped: Counter[str] = Counter()
    scores = _scores(rows, task)
    predicted = _predicted(rows, task, scores)
    if scores is None:
        scores = np.full((rows.rows, 1), np.nan)
    kept = _answered(rows, skipped)
    usable = np.isfinite(scores).all(axis=1) if task.kind in _NEED_SCORES else predicted != UNKNOWN
    skipped["no_score"] += int((kept & ~usable).sum())
    kept &= usable
    known = rows.done_ns <= after_ns
    skipped["future"] += int((kept & ~known).sum())
    kept &= known
    columns = _segments(rows, segments)
    made = _rows(rows, scores, predicted, [codes for _, codes, _ in columns])
    arms = [
        (rows.arms[code], _part(rows, made, kept & (rows.arm_codes == code), columns))
        for code in np.unique(rows.arm_codes[kept]).tolist()
        if code < len(rows.arms)
    ]
    return Extracted(arms, skipped)


_NEED_SCORES: Final = frozenset({TaskKind.REGRESSION, TaskKind.RANKING})


def _rows(rows: RowBatch, scores: Array, predicted: Array, segments: Sequence[Array]) -> Array:
    made = np.zeros(rows.rows, row_dtype(scores.shape[1], len(segments)))
    made["at_ns"], made["subject"], made["row"] = rows.done_ns, rows.subject_hashes, rows.row_indexes
    made["weight"], made["prediction"], made["scores"] = rows.weights, predicted, scores
    for at, codes in enumerate(segments):
        made["segments"][:, at] = codes
    return made


def _part(
    rows: RowBatch, made: Array, mask: Array, columns: Sequence[tuple[str, Array, tuple[str, ...]]]
) -> Extract:
    chosen = np.flatnonzero(mask)
    keys = [key if len(key := rows.keys[i]) <= MAX_KEY_BYTES else b"" for i in chosen.tolist()]
    return Extract(made[chosen], keys, tuple(n for n, _, _ in columns), tuple(v for _, _, v in columns))


def _answered(rows: RowBatch, skipped: Counter[str]) -> Array:
    good = np.array([status == "" for status in rows.statuses] or [True], np.bool_)
    kept: Array = good[np.minimum(rows.status_codes, len(good) - 1)] & (rows.weights > 0)
    kept &= np.isfinite(rows.weights)
    skipped["failed"] += rows.rows - int(kept.sum())
    return kept


def column_of(rows: RowBatch, signal: str) -> tuple[Column, int | None] | None:
    """Return the column that a signal is in, outputs first, and its place there; None: the whole column."""
    ordered = sorted(rows.columns, key=lambda column: column.role is not Role.OUTPUT)
    for column in ordered:
        if column.name == signal:
            return column, None
    match = _PART.fullmatch(signal)
    for column in ordered if match is not None else ():
        if match is not None and column.name == match[1]:
            at = _place(column, match[2])
            if at is not None:
                return column, at
    return None


def _place(column: Column, name: str) -> int | None:
    if name in column.labels:
        return column.labels.index(name)
    if name.isascii() and name.isdigit() and int(name) < column.values.shape[1]:
        return int(name)
    return None


def _scores(rows: RowBatch, task: Task) -> Array | None:
    found = column_of(rows, task.score) if task.score else None
    if found is None or found[0].kind is ColumnKind.CATEGORY:
        return None
    column, at = found
    values = column.values if at is None else column.values[:, at : at + 1]
    expected = len(task.classes) or values.shape[1] if task.kind is TaskKind.MULTICLASS else 1
    if values.shape[1] != expected or not 0 < expected <= MAX_SCORES:
        return None
    scores: Array = values.astype(np.float64)
    return scores


def _predicted(rows: RowBatch, task: Task, scores: Array | None) -> Array:
    if task.kind in _NEED_SCORES:
        return np.full(rows.rows, UNKNOWN, np.int32)
    found = column_of(rows, task.prediction) if task.prediction else None
    if found is not None:
        return _named(found[0], found[1], classes(task))
    if scores is None:
        return np.full(rows.rows, UNKNOWN, np.int32)
    known = np.isfinite(scores).all(axis=1)
    if task.kind is TaskKind.BINARY:
        by_score = (scores[:, 0] >= task.threshold).astype(np.int32)
    else:
        by_score = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1).astype(np.int32)
    predicted: Array = np.where(known, by_score, UNKNOWN)
    return predicted


def _named(column: Column, at: int | None, names: tuple[str, ...]) -> Array:
    values = column.values[:, at or 0]
    if column.kind is ColumnKind.CATEGORY:
        wanted = {name.encode(): i for i, name in enumerate(names)}
        table = [wanted.get(bytes(word), UNKNOWN) for word in column.dictionary]
        named: Array = np.array([*table, UNKNOWN], np.int32)[np.clip(values, -1, len(table))]
        return named
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) > 4 * MAX_SCORES:
        return np.full(len(values), UNKNOWN, np.int32)
    table = [class_index(names, float(v)) if np.isfinite(v) else UNKNOWN for v in distinct.tolist()]
    return np.array(table, np.int32)[inverse]


def _segments(rows: RowBatch, named: Sequence[str]) -> list[tuple[str, Array, tuple[str, ...]]]:
    chosen = [c for c in rows.columns if c.role is Role.SEGMENT or c.name in named]
    unique = {_name(column.name): column for column in chosen if column.values.shape[1] == 1}
    made = [(name, *coded) for name, column in unique.items() if (coded := _coded(column)) is not None]
    return sorted(made, key=lambda each: each[0])[:MAX_COLUMNS]


def _coded(column: Column) -> tuple[Array, tuple[str, ...]] | None:
    values = column.values[:, 0]
    if column.kind is ColumnKind.CATEGORY:
        return _bounded(values, [_text(word) for word in column.dictionary])
    if column.kind is not ColumnKind.NUMERIC:
        return None
    present = np.isfinite(values)
    distinct, inverse = np.unique(values[present], return_inverse=True)
    if len(distinct) > MAX_VALUES:
        return None
    codes = np.full(len(values), -1, np.int64)
    codes[present] = inverse
    return codes, tuple(f"{float(v):g}" for v in distinct.tolist())


def _bounded(codes: Array, names: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Keep the names that occur, the most frequent MAX_VALUES - 1 of them; the others are one."""
    valid = (codes >= 0) & (codes < len(names))
    counts = np.bincount(codes[valid], minlength=len(names))
    order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]
    table = np.full(len(names) + 1, -1, np.int64)
    kept: dict[str, int] = {}
    for i in order:
        name = names[i] if len(kept) < MAX_VALUES - 1 or names[i] in kept else OTHER
        table[i] = kept.setdefault(name, len(kept))
    return table[np.where(valid, codes, len(names))], tuple(kept)


def _text(word: bytes) -> str:
    text = _CONTROL.sub(" ", bytes(word[: 4 * MAX_NAME]).decode("utf-8", "replace"))[:MAX_NAME]
    return text if text != OTHER else "other (value)"


def _name(column: str) -> str:
    """Return a column's name as panes write it in segments."""
    return _CONTROL.sub(" ", column)[:MAX_NAME].replace("=", "_")
