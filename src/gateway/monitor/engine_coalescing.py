"""Small batches of one version made into larger ones: the cost of a batch is paid once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.predlog.rows import Column, ColumnKind, RowBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MAX_ROWS: Final = 16_384
"""A batch is not made larger than this."""

MAX_CODES: Final = 256
"""Arms and statuses of a batch: their codes are bytes."""

Item = tuple[str, RowBatch, float]


def coalesced(items: Sequence[Item]) -> list[Item]:
    """Join (producer, batch, received_s) of one producer, version and set of columns, in order."""
    if len(items) < 2:
        return list(items)
    groups: dict[Any, list[list[Item]]] = {}
    for item in items:
        producer, batch, _ = item
        runs = groups.setdefault((producer, *_shape(batch)), [[]])
        if sum(one.rows for _, one, _ in runs[-1]) + batch.rows > MAX_ROWS and runs[-1]:
            runs.append([])
        runs[-1].append(item)
    return [item for runs in groups.values() for run in runs for item in _joined(run)]


def _joined(run: list[Item]) -> list[Item]:
    if len(run) == 1:
        return run
    try:
        return [(run[0][0], concatenated([batch for _, batch, _ in run]), run[-1][2])]
    except ValueError:
        return run


def _shape(batch: RowBatch) -> tuple[Any, ...]:
    columns = tuple(
        (c.name, c.role, c.kind, c.values.dtype, c.values.shape[1], c.labels) for c in batch.columns
    )
    return batch.model, batch.version, batch.digest, batch.policy, columns


def concatenated(batches: Sequence[RowBatch]) -> RowBatch:
    """Return the rows of several batches of one version with the same columns, in order.

    Raises:
        ValueError: they have more than MAX_CODES arms or statuses together.
    """
    first = batches[0]
    arms, arm_codes = _recoded([b.arms for b in batches], [b.arm_codes for b in batches])
    statuses, status_codes = _recoded([b.statuses for b in batches], [b.status_codes for b in batches])
    if max(len(arms), len(statuses)) > MAX_CODES:
        raise ValueError("too many arms or statuses for one batch")
    per_row = (
        "key_hashes",
        "row_indexes",
        "arrived_ns",
        "done_ns",
        "queue_us",
        "infer_us",
        "reasons",
        "weights",
    )
    return RowBatch(
        model=first.model,
        version=first.version,
        digest=first.digest,
        policy=first.policy,
        rows=sum(b.rows for b in batches),
        keys=tuple(key for b in batches for key in b.keys),
        arms=arms,
        arm_codes=arm_codes.astype(np.uint8),
        statuses=statuses,
        status_codes=status_codes.astype(np.uint8),
        columns=tuple(_column([b.columns[i] for b in batches]) for i in range(len(first.columns))),
        subject_hashes=np.concatenate([b.subject_hashes for b in batches]),
        **{name: np.concatenate([getattr(b, name) for b in batches]) for name in per_row},
    )


def _column(columns: list[Column]) -> Column:
    first = columns[0]
    if first.kind is not ColumnKind.CATEGORY:
        return Column(
            first.name, first.role, first.kind, np.concatenate([c.values for c in columns]), (), first.labels
        )
    dictionary, codes = _recoded([c.dictionary for c in columns], [c.values for c in columns])
    return Column(first.name, first.role, first.kind, codes.astype(np.int32), dictionary, first.labels)


def _recoded(
    names: list[tuple[Any, ...]], codes: list[npt.NDArray[Any]]
) -> tuple[tuple[Any, ...], npt.NDArray[Any]]:
    """Return the union of the names and all codes as indexes into it; code -1 stays."""
    if all(one == names[0] for one in names):
        return names[0], np.concatenate(codes)
    places: dict[Any, int] = {}
    moved = []
    for ours, theirs in zip(names, codes, strict=True):
        table = np.array([*(places.setdefault(name, len(places)) for name in ours), -1], np.int64)
        moved.append(table[theirs])
    return tuple(places), np.concatenate(moved)


def taken(batch: RowBatch, rows: npt.NDArray[np.int64]) -> RowBatch:
    """Return some of a batch's rows, copied; dictionaries and names are kept whole.

    Args:
        batch: the batch.
        rows: indexes, in the order wanted.
    """
    per_row = ("key_hashes", "row_indexes", "arrived_ns", "done_ns", "queue_us", "infer_us")
    codes = ("arm_codes", "status_codes", "reasons", "weights", "subject_hashes")
    return RowBatch(
        model=batch.model,
        version=batch.version,
        digest=batch.digest,
        policy=batch.policy,
        rows=len(rows),
        keys=tuple(batch.keys[i] for i in rows.tolist()),
        arms=batch.arms,
        statuses=batch.statuses,
        columns=tuple(
            Column(c.name, c.role, c.kind, c.values[rows], c.dictionary, c.labels) for c in batch.columns
        ),
        **{name: getattr(batch, name)[rows] for name in (*per_row, *codes)},
    )
