"""Rows of Parquet and CSV files of labels: a file of any size and content costs bounded memory."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from io import TextIOBase
    from pathlib import Path

MAX_ROWS: Final = 50_000_000
MAX_LINE: Final = 64 << 10
"""Characters of a CSV line."""


def rows(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield a file's rows: of these columns, those that it has, by name. CSV gives texts.

    Args:
        path: `*.parquet`, or anything else as CSV in UTF-8 with a header.
        columns: names; others are not read.

    Raises:
        InvalidRequest: no such file, or a column of a type that no label has.
        PayloadTooLarge: more rows, longer lines or larger parts than are read.
    """
    if path.suffix == ".parquet":
        from gateway.monitor.labels import parquet  # noqa: PLC0415 - an extra: CSV needs none

        found = parquet.rows(path, columns)
    else:
        found = _csv(path, columns)
    for count, row in enumerate(found):
        if count >= MAX_ROWS:
            raise PayloadTooLarge(f"{path.name}: more than {MAX_ROWS} rows; split the file")
        yield row


def _csv(path: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(_lines(path, file), strict=True)
            places = {name: at for at, name in enumerate(next(reader, [])) if name in columns}
            for fields in reader:
                yield {name: fields[at] for name, at in places.items() if at < len(fields)}
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidRequest(f"{path.name}: no CSV file of labels: {str(exc)[:200]}") from exc


def _lines(path: Path, file: TextIOBase) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise PayloadTooLarge(f"{path.name}: a line of more than {MAX_LINE} characters")
        yield line
