"""A batch's rows as Arrow tables, and the places of their files. Pure.

Columns: `key`, `key_hash`, `row`, `arrived_ns`, `done_ns`, `queue_us`, `infer_us`, `arm`, `status`, `reason`,
`weight`, `subject_hash`, `version`, `digest`, `policy`, then `input.NAME`, `output.NAME`, `segment.NAME`: a
number, a list of `width` numbers, or a category as a dictionary of binary.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.predlog.rows import ColumnKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.predlog.rows import Column, RowBatch

_HOUR_NS: Final = 3_600 * 10**9
_PARTITION: Final = re.compile(r"(?:^|/)date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/")
_FILE: Final = re.compile(r"([^/]+)-(\d+)-(\d+)-(\d+)-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows that share a file.

    Attributes:
        folder: `model=NAME/date=YYYY-MM-DD/hour=HH`, hours in UTC of the rows' arrival.
        shape: digest of version and schema, since one file has one schema.
    """

    folder: str
    shape: str


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name says: it holds these of the producer's frames, as far as they fall to its folder.

    Attributes:
        producer: percent-encoded.
        epoch: of the frames.
        first: sequence of the first.
        last: and of the last.
        shape: as of `Partition`.
    """

    producer: str
    epoch: int
    first: int
    last: int
    shape: str

    def text(self) -> str:
        """Return the name."""
        return f"{self.producer}-{self.epoch}-{self.first}-{self.last}-{self.shape}.parquet"


def parse_file_name(path: str) -> tuple[str, FileName] | None:
    """Return the folder and what the name says; None for a file that is none of ours."""
    folder, _, name = path.rpartition("/")
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    return folder, FileName(match[1], int(match[2]), int(match[3]), int(match[4]), match[5])


def hour_end_s(path: str) -> float | None:
    """Return when a file's hour ended, seconds since the epoch; None where its folder has none."""
    match = _PARTITION.search(path)
    if match is None:
        return None
    try:
        start = datetime.fromisoformat(f"{match[1]}T{match[2]}:00:00+00:00")
    except ValueError:
        return None
    return start.timestamp() + 3_600.0


def tables(batch: RowBatch) -> list[tuple[Partition, pa.Table]]:
    """Return a batch's rows by partition; most batches have one."""
    hours = batch.arrived_ns // _HOUR_NS
    whole = _table(batch)
    shape = _shape(batch, whole.schema)
    found = []
    for hour in np.unique(hours).tolist():
        part = whole if hours[0] == hours[-1] == hour and len(set(hours.tolist())) == 1 else None
        if part is None:
            part = whole.filter(pa.array(hours == hour))
        found.append((Partition(_folder(batch.model, hour), shape), part))
    return found


def parquet(table: pa.Table, compression: str = "zstd") -> bytes:
    """Return a table as a Parquet file."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression=compression)
    return bytes(out.getvalue())


def unpacked(data: bytes) -> bytes:
    """Return a Parquet file as one without compression; empty where it is none, or half of one."""
    try:
        return parquet(pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False), "none")
    except pa.ArrowException:
        return b""


def _folder(model: str, hour: int) -> str:
    when = datetime.fromtimestamp(hour * 3_600, UTC)
    return f"model={quote(model, safe='')}/date={when:%Y-%m-%d}/hour={when:%H}"


def _shape(batch: RowBatch, schema: pa.Schema) -> str:
    text = f"{batch.version}\n{schema.to_string(show_schema_metadata=False)}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _table(batch: RowBatch) -> pa.Table:
    rows = batch.rows
    columns: dict[str, pa.Array] = {
        "key": pa.array(batch.keys, pa.binary()),
        "key_hash": pa.array(batch.key_hashes),
        "row": pa.array(batch.row_indexes),
        "arrived_ns": pa.array(batch.arrived_ns),
        "done_ns": pa.array(batch.done_ns),
        "queue_us": pa.array(batch.queue_us),
        "infer_us": pa.array(batch.infer_us),
        "arm": _coded(batch.arm_codes, batch.arms),
        "status": _coded(batch.status_codes, batch.statuses),
        "reason": pa.array(batch.reasons),
        "weight": pa.array(batch.weights),
        "subject_hash": pa.array(batch.subject_hashes),
        "version": pa.repeat(pa.scalar(batch.version, pa.int64()), rows),
        "digest": _coded(np.zeros(rows, np.uint8), (batch.digest,)),
        "policy": _coded(np.zeros(rows, np.uint8), (batch.policy,)),
    }
    for column in batch.columns:
        columns[f"{column.role.value}.{column.name}"] = _values(column)
    return pa.table(columns)


def _coded(codes: npt.NDArray[np.uint8], names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names, pa.string()))


def _values(column: Column) -> pa.Array:
    flat = np.ascontiguousarray(column.values).reshape(-1)
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    if column.kind is ColumnKind.CATEGORY:
        values = pa.DictionaryArray.from_arrays(
            pa.array(native, mask=native < 0), pa.array(column.dictionary, pa.binary())
        )
    else:
        values = pa.array(native)
    width = column.values.shape[1] if column.values.ndim > 1 else 1
    return values if width == 1 else pa.FixedSizeListArray.from_arrays(values, width)
