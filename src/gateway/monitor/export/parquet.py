"""The scores of a report as a Parquet table, the rest of it in the file's metadata as JSON."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.monitor.pages.jsontext import json_bytes

if TYPE_CHECKING:
    from gateway.monitor.export.values import Report

REPORT_KEY: Final = b"model_gateway.report"
"""Metadata key of the report without its scores."""

_SCHEMA: Final = (
    ("model", pa.string()), ("version", pa.int64()), ("digest", pa.string()), ("arm", pa.string()),
    ("segment", pa.string()), ("signal", pa.string()), ("window", pa.string()),
    ("start", pa.timestamp("ms", "UTC")), ("end", pa.timestamp("ms", "UTC")), ("statistic", pa.string()),
    ("value", pa.float64()), ("threshold", pa.float64()), ("p_value", pa.float64()), ("rows", pa.float64()),
    ("reference_rows", pa.float64()), ("finding", pa.string()), ("coverage", pa.float64()),
)  # fmt: skip


def parquet_report(report: Report) -> bytes:
    """Return a Parquet file with one row per score."""
    rest = {f.name: getattr(report, f.name) for f in fields(report) if f.name != "scores"}
    schema = pa.schema(_SCHEMA, metadata={REPORT_KEY: json_bytes(rest)})
    rows = [_row(score) for score in report.scores]
    table = pa.Table.from_pylist(rows, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _row(score: Any) -> dict[str, Any]:
    return {
        **score.key._asdict(),
        "signal": score.signal,
        "window": score.window,
        "start": int(score.start_s * 1000),
        "end": int(score.end_s * 1000),
        "statistic": score.statistic,
        "value": score.value,
        "threshold": score.threshold,
        "p_value": score.p_value,
        "rows": score.rows,
        "reference_rows": score.reference_rows,
        "finding": score.finding.value,
        "coverage": score.coverage,
    }
