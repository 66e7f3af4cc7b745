"""Reads the columns of a Parquet file row by row, in bounded memory whatever the file says and holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.core.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MAX_GROUP_ROWS: Final = 50_000_000
MAX_TEXT_BYTES: Final = 4096
MAX_GROUP_BYTES: Final = 64 << 20
"""Of a Parquet row group's wanted columns, decompressed: a bomb is refused by what its footer says."""


def rows(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield rows by column name.

    Args:
        path: the file.
        columns: names; those that the file has are read.

    Raises:
        InvalidRequest: no such file, or a column of a type that no label has.
        PayloadTooLarge: row groups or texts are larger than is read.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in columns]
            _check_types(path, file.schema_arrow, names)
        # Texts are read as codes and a dictionary: a long one that all rows share is seen, and held, once.
        with pq.ParquetFile(path, read_dictionary=names) as file:
            for group in range(file.num_row_groups):
                _check_group(path, file, group, names)
                for batch in file.iter_batches(4096, [group], columns=names, use_threads=False):
                    _check_texts(path, batch)
                    yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as exc:
        raise InvalidRequest(f"{path.name}: no Parquet file of labels: {str(exc)[:200]}") from exc


def _check_group(path: Path, file: pq.ParquetFile, group: int, names: list[str]) -> None:
    about = file.metadata.row_group(group)
    columns = [about.column(i) for i in range(about.num_columns)]
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in names)
    if size > MAX_GROUP_BYTES or about.num_rows > MAX_GROUP_ROWS:
        raise PayloadTooLarge(
            f"{path.name}: row group {group} holds {size} bytes and {about.num_rows} rows of labels, at most "
            f"{MAX_GROUP_BYTES} and {MAX_GROUP_ROWS} are read; write smaller ones"
        )


def _check_types(path: Path, schema: pa.Schema, names: list[str]) -> None:
    for name in names:
        if pa.types.is_nested(schema.field(name).type):
            raise InvalidRequest(f"{path.name}: column `{name}` is {str(schema.field(name).type)[:100]}")


def _check_texts(path: Path, batch: pa.RecordBatch) -> None:
    for column in batch.columns:
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string(texts.type) or pa.types.is_binary(texts.type):
            longest = pc.max(pc.binary_length(texts)).as_py() or 0
            if longest > MAX_TEXT_BYTES:
                raise PayloadTooLarge(
                    f"{path.name}: a text of {longest} bytes, at most {MAX_TEXT_BYTES} are read"
                )
        elif pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type):
            raise InvalidRequest(f"{path.name}: write texts as string, not {texts.type}")
