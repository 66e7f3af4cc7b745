"""Training data as rows of a prediction log: Parquet and CSV files, read in chunks, any number of times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gateway.core.errors import ConfigError
from gateway.predlog.rows import Column, ColumnKind, Role, RowBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

CHUNK_ROWS: Final = 32_768
MAX_COLUMNS: Final = 4096
MAX_CATEGORY: Final = 256
"""Bytes of a category that are looked at."""


class DataError(ConfigError):
    """Training data that no profile can be made from; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """How columns of the data are called in the log.

    Attributes:
        names: column of the data -> signal; a column that is not in it keeps its name.
        outputs: signals that the model gives, and tensors, whose signals are `TENSOR[...]`.
        segments: signals that segments are made of.
        ignored: columns that are neither.
        label: column of the truth; empty: there is none.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    label: str = ""

    def role(self, signal: str) -> Role:
        """Return where a signal comes from."""
        if signal in self.segments:
            return Role.SEGMENT
        tensor = signal.partition("[")[0]
        return Role.OUTPUT if signal in self.outputs or tensor in self.outputs else Role.INPUT


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows in order.

    Attributes:
        rows: as the log would have them.
        labels: `[rows]`: float64 or bytes objects, None or NaN where unknown; None without a label column.
    """

    rows: RowBatch
    labels: npt.NDArray[Any] | None = None


class TableFile:
    """Rows of a Parquet or CSV file, or of all Parquet files below a directory, by name.

    Numbers and truth values become numeric signals, texts categories; a column of lists of one length the
    signals `NAME[0]`, `NAME[1]`, ...; times are left out.
    """

    def __init__(self, path: Path, mapped: Mapped, model: str = "") -> None:
        """Look at nothing yet.

        Raises:
            DataError: there is no such file.
        """
        if not path.exists():
            raise DataError(f"{path}: no such file")
        self._paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not self._paths:
            raise DataError(f"{path}: there is no .parquet file below it")
        self._mapped, self._model = mapped, model

    def __iter__(self) -> Iterator[Chunk]:
        """Give the rows in order.

        Raises:
            DataError: a file is not what its name says, or lacks a column that was named.
        """
        for path in self._paths:
            try:
                for batch in _batches(path):
                    self._check(path, batch.schema.names)
                    if batch.num_rows:
                        yield chunk_of(batch, self._mapped, self._model)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataError(f"{path}: {str(error).splitlines()[0][:300]}") from error

    def _check(self, path: Path, names: list[str]) -> None:
        mapped = self._mapped
        if len(names) > MAX_COLUMNS:
            raise DataError(f"{path}: {len(names)} columns, at most {MAX_COLUMNS} are looked at")
        signals = {mapped.names.get(name, name) for name in names}
        known = signals | {signal.partition("[")[0] for signal in signals}
        lost = {*mapped.names, *mapped.ignored, *((mapped.label,) if mapped.label else ())} - set(names)
        lost |= {
            s for s in mapped.outputs | mapped.segments if s not in known and s.partition("[")[0] not in known
        }
        if lost:
            raise DataError(f"{path}: no column {min(lost)!r}; it has {', '.join(names[:20])}")


def _batches(path: Path) -> Iterator[Any]:
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        with pacsv.open_csv(path, read_options=pacsv.ReadOptions(block_size=4 << 20)) as reader:
            yield from reader
    else:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(CHUNK_ROWS)


def chunk_of(batch: Any, mapped: Mapped, model: str = "") -> Chunk:
    """Return a pyarrow RecordBatch as rows of a log."""
    columns: list[Column] = []
    labels = None
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if name == mapped.label:
            labels = _labels(array)
        elif name not in mapped.ignored:
            columns += _columns(mapped.names.get(name, name), array, mapped)
    return Chunk(rows_of(columns, batch.num_rows, model), labels)


def rows_of(columns: list[Column], rows: int, model: str = "") -> RowBatch:
    """Return rows that have columns and nothing else to tell."""
    none = np.zeros(rows, np.uint32)
    times = np.zeros(rows, np.int64)
    codes = np.zeros(rows, np.uint8)
    return RowBatch(
        model=model,
        version=0,
        digest="",
        policy="",
        rows=rows,
        keys=(b"",) * rows,
        key_hashes=np.arange(rows, dtype=np.uint64),
        row_indexes=none,
        arrived_ns=times,
        done_ns=times,
        queue_us=none,
        infer_us=none,
        arms=("",),
        arm_codes=codes,
        statuses=("",),
        status_codes=codes,
        reasons=codes,
        weights=np.ones(rows, np.float32),
        columns=tuple(columns),
        subject_hashes=np.zeros(rows, np.uint64),
    )


def _columns(signal: str, array: Any, mapped: Mapped) -> list[Column]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode() if pa.types.is_nested(kind.value_type) else array
        return [_category(signal, array, mapped)]
    if pa.types.is_boolean(kind):
        array, kind = array.cast(pa.uint8()), pa.uint8()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return [Column(signal, mapped.role(signal), ColumnKind.NUMERIC, values.reshape(-1, 1))]
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return _wide(signal, array, mapped)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return [_category(signal, array, mapped)]
    return []


def _wide(signal: str, array: Any, mapped: Mapped) -> list[Column]:
    kind = array.type.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return []
    lengths = pc.unique(pc.list_value_length(array).drop_null()).to_pylist()
    if len(lengths) != 1 or array.null_count:
        raise DataError(f"column {signal!r} holds lists of different lengths")
    values = array.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    matrix = np.ascontiguousarray(values.reshape(len(array), lengths[0]))
    return [Column(signal, mapped.role(signal), ColumnKind.NUMERIC, matrix)]


def _category(signal: str, array: Any, mapped: Mapped) -> Column:
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    values = tuple(_bytes(value) for value in array.dictionary.to_pylist())
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) < len(values):
        place = {value: i for i, value in enumerate(distinct)}
        codes = np.array([*(place[v] for v in values), -1], np.int32)[codes]
    return Column(signal, mapped.role(signal), ColumnKind.CATEGORY, codes.reshape(-1, 1), distinct)


def _bytes(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    return bytes(data[:MAX_CATEGORY])


def _labels(array: Any) -> npt.NDArray[Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_boolean(kind):
        array, kind = array.cast(pa.uint8()), pa.uint8()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: npt.NDArray[Any] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers
    return np.array([None if v is None else _bytes(v) for v in array.to_pylist()], object)
