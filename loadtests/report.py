"""Puts repeated measurements together: leaves out disturbed ones, gives median and spread, as tables."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_CELL: Final = ("model", "protocol", "rows", "concurrency")
_DISTURBED: Final = 0.10
_COLUMNS: Final = (
    ("requests/s", "requests_per_s", ",.0f"),
    ("rows/s", "rows_per_s", ",.0f"),
    ("p50 ms", "p50_ms", ".2f"),
    ("p99 ms", "p99_ms", ".2f"),
    ("CPU us/request", "cpu_us", ",.0f"),
    ("mean batch", "mean_batch", ".1f"),
    ("of direct batch-32", "ratio", ".1%"),
    ("by CPU", "cpu_ratio", ".1%"),
)


class Spread(NamedTuple):
    """The middle, least and greatest of repeated values."""

    median: float
    least: float
    most: float

    def text(self, form: str) -> str:
        """Return `median (least-most)`."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of at least one value."""
    found = list(values)
    return Spread(median(found), min(found), max(found))


def disturbed(record: Mapping[str, Any]) -> bool:
    """Return whether others, or the host, took more than a tenth of the server's core during a run."""
    taken: float = record["foreign"] + record["steal"]
    return taken > _DISTURBED


def quiet(
    records: Sequence[Mapping[str, Any]],
    keys: Sequence[str] = _CELL,
    is_disturbed: Callable[[Mapping[str, Any]], bool] = disturbed,
) -> list[Mapping[str, Any]]:
    """Leave out disturbed runs; of a cell without others the least disturbed stays, and errors always do."""
    grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault(tuple(record[key] for key in keys), []).append(record)
    return [
        record
        for repeats in grouped.values()
        for record in (
            [r for r in repeats if r["errors"] or not is_disturbed(r)]
            or [min(repeats, key=lambda r: r["foreign"] + r["steal"])]
        )
    ]


def comparison_disturbed(record: Mapping[str, Any]) -> bool:
    """Return whether a run, or the direct calls it is compared with, was disturbed."""
    return disturbed(record) or record["direct_share"] < 1 - _DISTURBED


def cells(records: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Return the repeats of each cell, in the order of first appearance."""
    grouped: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault(tuple(record[key] for key in _CELL), []).append(record)
    return grouped


def load_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the gateway's figures as a Markdown table: `median (least-most)` of the repeats."""
    head = [
        *("model", "protocol", "rows/request", "in flight"),
        *(title for title, _, _ in _COLUMNS),
        "errors",
    ]
    lines = []
    for cell, repeats in cells(records).items():
        figures = [spread(r[key] for r in repeats).text(form) for _, key, form in _COLUMNS]
        errors = sum(len(r["errors"]) for r in repeats)
        lines.append([*map(str, cell), *figures, str(errors)])
    return "\n".join(markdown([head, *lines]))


def direct_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the direct figures as a Markdown table."""
    grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault((record["model"], record["rows"]), []).append(record)
    lines = [["model", "batch", "rows/s", "call us", "CPU us/row"]]
    for (model, rows), repeats in grouped.items():
        rate = spread(r["rows_per_s"] for r in repeats).text(",.0f")
        times = (spread(r[key] for r in repeats).text(",.1f") for key in ("call_us", "row_cpu_us"))
        lines.append([model, str(rows), rate, *times])
    return "\n".join(markdown(lines))


def markdown(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, its columns aligned; the first row is its head."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for index, row in enumerate(table):
        yield "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        if index == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
