"""Files of labels, also hostile ones: read row by row, or refused with a reason."""

from __future__ import annotations

import gzip
import resource
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.core.errors import InvalidRequest, PayloadTooLarge
from gateway.monitor.labels import files

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("key", "label", "row")


def parquet(path: Path, columns: dict[str, Any], **given: Any) -> Path:
    """Write a Parquet file."""
    pq.write_table(pa.table(columns), path, **given)
    return path


def test_both_kinds_of_file_give_their_rows(tmp_path: Path) -> None:
    """Wanted columns only; CSV as text, Parquet as it was written."""
    csv = tmp_path / "labels.csv"
    csv.write_text('label,key,note\nyes,"a,1",x\nno,b,y\n')
    assert list(files.rows(csv, COLUMNS)) == [{"label": "yes", "key": "a,1"}, {"label": "no", "key": "b"}]
    columns = {"key": ["a", None], "label": [1.5, 2.0], "row": [0, 1], "note": ["x", "y"]}
    made = parquet(tmp_path / "labels.parquet", columns)
    assert list(files.rows(made, COLUMNS)) == [
        {"key": "a", "label": 1.5, "row": 0},
        {"key": None, "label": 2.0, "row": 1},
    ]


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01" * 100, gzip.compress(b"0" * 100_000), b"PAR1" * 50])
def test_what_is_no_such_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Any bytes end in an error of ours."""
    path = tmp_path / name
    path.write_bytes(content)
    if name == "labels.csv" and content.startswith(b"PAR1"):
        assert list(files.rows(path, COLUMNS)) == []
        return
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        list(files.rows(path, COLUMNS))


def test_every_truncation_and_flip_of_a_file_is_survived(tmp_path: Path) -> None:
    """A damaged Parquet file gives rows or an error of ours, nothing else."""
    whole = parquet(tmp_path / "whole.parquet", {"key": ["a", "b"] * 50, "label": ["yes", "no"] * 50})
    data = whole.read_bytes()
    path = tmp_path / "hurt.parquet"
    for at in range(0, len(data), 23):
        for hurt in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            path.write_bytes(hurt)
            try:
                list(files.rows(path, COLUMNS))
            except (InvalidRequest, PayloadTooLarge):
                continue


def test_bombs_are_refused_before_they_go_off(tmp_path: Path) -> None:
    """A megabyte that all of 100,000 rows share, a group of gigabytes, an endless line, nested columns."""
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * (1 << 20)])
    keys = pa.array(["k"] * 100_000)
    bombs = [
        parquet(tmp_path / "shared.parquet", {"key": keys, "label": shared.cast(shared.type)}),
        parquet(tmp_path / "group.parquet", {"key": ["y" * 4000] * 20_000, "label": [1] * 20_000},
                use_dictionary=False),
        parquet(tmp_path / "nested.parquet", {"key": [["a"]], "label": [1]}),
    ]  # fmt: skip
    line = tmp_path / "line.csv"
    line.write_text("key,label\n" + "z" * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in (*bombs, line):
        with pytest.raises((InvalidRequest, PayloadTooLarge)):
            list(files.rows(bomb, COLUMNS))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_a_quoted_field_that_never_ends_is_bounded(tmp_path: Path) -> None:
    """The csv module's own bound on fields holds over many lines."""
    path = tmp_path / "quote.csv"
    path.write_text('key,label\n"' + "a\n" * 500_000)
    with pytest.raises(InvalidRequest, match="field larger"):
        list(files.rows(path, COLUMNS))


def test_more_rows_than_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on rows holds for either kind."""
    monkeypatch.setattr(files, "MAX_ROWS", 3)
    path = tmp_path / "rows.csv"
    path.write_text("key,label\n" + "a,1\n" * 4)
    with pytest.raises(PayloadTooLarge, match="more than 3 rows"):
        list(files.rows(path, COLUMNS))
