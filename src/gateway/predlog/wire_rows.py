"""A RowBatch to and from the message of protos/prediction_log.proto, everything that is read checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway._proto import prediction_log_pb2 as pb
from gateway.predlog.rows import Column, ColumnKind, Reason, Role, RowBatch
from gateway.predlog.wire_fields import MalformedFrame, Refused, bytes_field, tag, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MAX_ROWS: Final = 1 << 18
"""Rows of one batch; the smallest ones of so many fill a frame."""

MAX_COLUMNS: Final = 4096
"""Columns of one batch."""

MAX_WIDTH: Final = 4096
"""Values per row of one column."""

MAX_DICTIONARY: Final = 65_536
"""Categories of one column of one batch."""

MAX_NAMES: Final = 256
"""Arms, and statuses, of one batch: their codes are bytes."""

MAX_NAME: Final = 1024
"""Characters of a name."""

_COLUMNS_FIELD: Final = 20
_DATA_FIELD: Final = 6

_PER_ROW: Final = (
    (8, "key_hashes", "<u8"),
    (9, "row_indexes", "<u4"),
    (10, "arrived_ns", "<i8"),
    (11, "done_ns", "<i8"),
    (12, "queue_us", "<u4"),
    (13, "infer_us", "<u4"),
    (15, "arm_codes", "u1"),
    (17, "status_codes", "u1"),
    (18, "reasons", "u1"),
    (19, "weights", "<f4"),
    (21, "subject_hashes", "<u8"),
)
"""Field number, name in the message and in RowBatch, and type of what has one element per row."""

_NUMERIC: Final = {
    "|b1": np.dtype("?"),
    **{name: np.dtype(name) for name in ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8")},
    **{name: np.dtype(name) for name in ("<f2", "<f4", "<f8")},
}
"""What a NUMERIC column may be made of."""

_ROLES: Final = {role.value: role for role in Role}
_KINDS: Final = {int(kind): kind for kind in ColumnKind}


def row_parts(batch: RowBatch) -> list[bytes | memoryview]:
    """Return the message in parts to be joined; views over the batch's arrays."""
    head = pb.RowBatch(
        model=batch.model,
        version=batch.version,
        digest=batch.digest,
        policy=batch.policy,
        rows=batch.rows,
        arms=batch.arms,
        statuses=batch.statuses,
    )
    ends = np.cumsum([len(key) for key in batch.keys], dtype="<u4")
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    parts += bytes_field(6, _raw(ends, "<u4"))
    parts += bytes_field(7, b"".join(batch.keys))
    for field, name, dtype in _PER_ROW:
        parts += bytes_field(field, _raw(getattr(batch, name), dtype))
    for column in batch.columns:
        parts += _column_parts(column)
    return parts


def _column_parts(column: Column) -> list[bytes | memoryview]:
    values = column.values
    head = pb.Column(
        name=column.name,
        role=column.role.value,
        kind=column.kind.name,
        dtype=values.dtype.str,
        width=values.shape[1],
        dictionary=column.dictionary,
        labels=column.labels,
    ).SerializeToString()
    data = bytes_field(_DATA_FIELD, _raw(values, values.dtype.str))
    size = len(head) + sum([len(part) for part in data])
    return [tag(_COLUMNS_FIELD), varint(size), head, *data]


def _raw(array: npt.NDArray[Any], dtype: str) -> bytes | memoryview:
    """Return an array's elements as little-endian bytes, a view where it has them already."""
    if not array.size:
        return b""
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def decode_rows(message: pb.RowBatch) -> RowBatch:
    """Check a message and return it as a batch, whose arrays are read-only views.

    Raises:
        MalformedFrame: it does not hold what it says, or is beyond a limit.
    """
    rows = message.rows
    if rows > MAX_ROWS or len(message.columns) > MAX_COLUMNS:
        raise MalformedFrame(Refused.TOO_LARGE, f"{rows} rows of {len(message.columns)} columns")
    _check(rows > 0, "a batch without rows")
    _check(0 < len(message.model) <= MAX_NAME, "the model's name is missing or too long")
    _check(
        len(message.digest) <= MAX_NAME and len(message.policy) <= MAX_NAME, "digest or policy is too long"
    )
    arrays = {name: _per_row(getattr(message, name), dtype, rows, name) for _, name, dtype in _PER_ROW}
    weights = arrays["weights"]
    # NaN fails both comparisons.
    _check(bool((weights >= 1).all() and (weights < np.inf).all()), "a weight below 1, or no number")
    _check(int(arrays["reasons"].max()) <= max(Reason), "an unknown reason")
    return RowBatch(
        model=message.model,
        version=message.version,
        digest=message.digest,
        policy=message.policy,
        rows=rows,
        keys=_keys(message, rows),
        arms=_names(message.arms, arrays["arm_codes"], "arms"),
        statuses=_names(message.statuses, arrays["status_codes"], "statuses"),
        columns=_columns(message, rows),
        **arrays,
    )


def _check(fine: bool, complaint: str) -> None:
    if not fine:
        raise MalformedFrame(Refused.MALFORMED, complaint)


def _per_row(data: bytes, dtype: str, rows: int, name: str) -> npt.NDArray[Any]:
    array_type = np.dtype(dtype)
    _check(len(data) == rows * array_type.itemsize, f"{name}: {len(data)} bytes for {rows} rows")
    return np.frombuffer(data, array_type)


def _keys(message: pb.RowBatch, rows: int) -> tuple[bytes, ...]:
    ends, data = _per_row(message.key_ends, "<u4", rows, "key_ends"), message.key_bytes
    _check(int(ends[-1]) == len(data) and bool((ends[1:] >= ends[:-1]).all()), "key_ends do not ascend")
    bounds = ends.tolist()
    return tuple([data[start:end] for start, end in zip([0, *bounds[:-1]], bounds, strict=True)])


def _names(names: Sequence[str], codes: npt.NDArray[Any], what: str) -> tuple[str, ...]:
    _check(len(names) <= MAX_NAMES and all(len(name) <= MAX_NAME for name in names), f"{what}: beyond limits")
    _check(int(codes.max()) < len(names), f"{what}: a code without a name")
    return tuple(names)


def _columns(message: pb.RowBatch, rows: int) -> tuple[Column, ...]:
    columns = tuple([_column(column, rows) for column in message.columns])
    _check(len({(c.role, c.name) for c in columns}) == len(columns), "two columns of one name")
    return columns


def _column(message: pb.Column, rows: int) -> Column:
    name, width = message.name, message.width
    role = _ROLES.get(message.role)
    kind = _KINDS.get(int(message.kind))
    if role is None or kind is None or not 0 < len(name) <= MAX_NAME:
        raise MalformedFrame(Refused.MALFORMED, "a column of unknown role or kind, or a name out of bounds")
    if width > MAX_WIDTH or len(message.dictionary) > MAX_DICTIONARY:
        raise MalformedFrame(Refused.TOO_LARGE, f"a column of width {width}")
    dtype = _column_type(kind, message.dtype)
    _check(width > 0 and len(message.data) == rows * width * dtype.itemsize, "a column's data do not fit")
    values = np.frombuffer(message.data, dtype).reshape(rows, width)
    dictionary, labels = tuple(message.dictionary), tuple(message.labels)
    _check(not labels or len(labels) == width, "labels do not fit the width")
    _check(all(len(label) <= MAX_NAME for label in labels), "a label is too long")
    if kind is ColumnKind.CATEGORY:
        _check(len(set(dictionary)) == len(dictionary), "a category named twice")
        _check(int(values.min()) >= -1 and int(values.max()) < len(dictionary), "a code without a category")
    else:
        _check(not dictionary, "numbers with a dictionary")
    if dtype.kind == "b":
        _check(int(values.view(np.uint8).max()) <= 1, "a bool that is neither 0 nor 1")
    return Column(name, role, kind, values, dictionary, labels)


def _column_type(kind: ColumnKind, dtype: str) -> np.dtype[Any]:
    if kind is ColumnKind.NUMERIC:
        found = _NUMERIC.get(dtype)
    else:
        wanted = "<i4" if kind is ColumnKind.CATEGORY else "<f4"
        found = np.dtype(wanted) if dtype == wanted else None
    if found is None:
        raise MalformedFrame(Refused.MALFORMED, f"a column of {kind.name} cannot be made of {dtype[:16]!r}")
    return found
