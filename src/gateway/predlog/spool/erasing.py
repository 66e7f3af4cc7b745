"""Takes rows of erased subjects out of batches, and out of frames whose length stays as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.predlog.rows import Column, ColumnKind
from gateway.predlog.wire import Codec, MalformedFrame, Payload, Producer, decode_frame, encode, frame_bytes
from gateway.predlog.wire_fields import tag

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.predlog.rows import Frame, RowBatch
    from gateway.predlog.spool.tombstones import Tombstones

_PADDING_FIELD: Final = 15
"""Of LogFrame, which has none of that number: readers pass over it."""
_LENGTH_BYTES: Final = 4


def chosen(batch: RowBatch, rows: npt.NDArray[np.int64]) -> RowBatch:
    """Return some of a batch's rows, copied; of dictionaries what these rows name, and nothing else.

    Args:
        batch: the batch.
        rows: indexes, in the order wanted.
    """
    arrays: dict[str, Any] = {
        field.name: value[rows]
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), np.ndarray)
    }
    return replace(
        batch,
        rows=len(rows),
        keys=tuple([batch.keys[i] for i in rows.tolist()]),
        columns=tuple([_chosen(column, rows) for column in batch.columns]),
        **arrays,
    )


def _chosen(column: Column, rows: npt.NDArray[np.int64]) -> Column:
    values = np.ascontiguousarray(column.values[rows])
    if column.kind is not ColumnKind.CATEGORY:
        return replace(column, values=values)
    used = np.unique(values[values >= 0])
    codes = np.full(len(column.dictionary) + 1, -1, np.int32)
    codes[used] = np.arange(len(used), dtype=np.int32)
    return replace(
        column, values=codes[values], dictionary=tuple([column.dictionary[i] for i in used.tolist()])
    )


def without(frame: Frame, erased: Tombstones) -> Frame | None:
    """Return a frame without rows of erased subjects, as long as it was; None where nothing is left of it.

    What it counts (`Frame.rows`) stays: by that it is known from where it was put to where it is delivered.
    A frame that cannot be decoded is returned as it is: its sink refuses it.
    """
    if not len(erased) or not frame.rows:
        return frame
    try:
        found = decode_frame(frame.data)
        batch = found.batch()
    except MalformedFrame:
        return frame
    if batch is None:
        return frame
    gone = erased.refused(batch.subject_hashes, batch.done_ns)
    if not gone.any():
        return frame
    if gone.all():
        return None
    kept = chosen(batch, np.flatnonzero(~gone))
    codec = Codec(found.codec)
    payload = Payload(kept.rows, encode(kept, codec), codec)
    data = frame_bytes(Producer(found.producer, found.epoch), found.sequence, payload, found.accounting)
    padded = _padded(data, len(frame.data))
    return None if padded is None else replace(frame, data=padded)


def _padded(data: bytes, size: int) -> bytes | None:
    """Return a LogFrame with a field of zeros that makes it so long; None where it is too long for that."""
    head = tag(_PADDING_FIELD)
    zeros = size - len(data) - len(head) - _LENGTH_BYTES
    if zeros < 0:
        return None
    # A varint of fixed length, which may be longer than it needs to be: so any gap can be filled.
    length = [zeros >> shift & 0x7F | 0x80 for shift in range(0, 7 * _LENGTH_BYTES, 7)]
    length[-1] &= 0x7F
    return b"".join((data, head, bytes(length), bytes(zeros)))
