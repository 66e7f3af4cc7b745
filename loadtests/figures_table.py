"""The figures of entries as a Markdown table, and whether their thresholds were met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.report import markdown, spread
from loadtests.thresholds import missed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Record = Mapping[str, Any]

_COLUMNS: Final = (
    ("requests/s", "requests_per_s", ",.0f"),
    ("rows/s", "rows_per_s", ",.0f"),
    ("p50 ms", "p50_ms", ".2f"),
    ("p99 ms", "p99_ms", ".2f"),
    ("CPU us/request", "cpu_us_per_request", ",.1f"),
    ("mean batch", "mean_batch", ".1f"),
    ("lag p99.9 ms", "loop_lag_p999_ms", ".1f"),
    ("peak RSS MiB", "peak_rss_mib", ",.0f"),
    ("of peak", "goodput_of_peak", ".1%"),
    ("goodput", "goodput_ratio", ".1%"),
)
_NO_ERRORS: Final = {"errors": "== 0"}


def medians(repeats: Sequence[Record]) -> dict[str, float]:
    """Return the median of every figure that all repeats have; of errors the most: none may hide."""
    names = set.intersection(*(set(record["figures"]) for record in repeats))
    found = {name: spread(record["figures"][name] for record in repeats).median for name in names}
    found["errors"] = max(record["figures"]["errors"] for record in repeats)
    return found


def table(entries: Mapping[str, Sequence[Record]]) -> str:
    """Return a line per entry: `median (least-most)`; a column that no entry has is left out."""
    columns = [
        column
        for column in _COLUMNS
        if any(column[1] in record["figures"] for repeats in entries.values() for record in repeats)
    ]
    lines = [["entry", "engine", *(title for title, _, _ in columns), "errors"]]
    for label, repeats in entries.items():
        measured = [record for record in repeats if "unavailable" not in record]
        figures = [_cell(measured, key, form) for _, key, form in columns]
        errors = "unavailable" if not measured else f"{medians(repeats)['errors']:.0f}"
        lines.append([label, repeats[0]["engine"], *figures, errors])
    return "\n".join(markdown(lines))


def _cell(repeats: Sequence[Record], key: str, form: str) -> str:
    values = [record["figures"][key] for record in repeats if key in record["figures"]]
    return spread(values).text(form) if values else "-"


def settings(entries: Mapping[str, Sequence[Record]]) -> str:
    """Return a line per entry: what the target is and what influences its figures."""
    lines = []
    for label, repeats in entries.items():
        known = next((record for record in repeats if "target" in record), None)
        if known is None:
            lines.append(f"- {label}: not measured: {repeats[0].get('unavailable', 'no run')}")
            continue
        said = "; ".join(f"{name}: {value}" for name, value in known["settings"].items() if value)
        tried = f"; connections: {known['connections']}" if "connections" in known else ""
        lines.append(f"- {label}: {known['target']}{' (' + said + tried + ')' if said or tried else ''}")
    return "\n".join(lines)


def verdicts(entries: Mapping[str, Sequence[Record]]) -> tuple[list[str], int]:
    """Return a sentence for each threshold missed by a median, and the exit status.

    Returns:
        Sentences; 0 if there are none, 1 if requests went wrong, else 3.
    """
    sentences, status = [], 0
    for label, repeats in entries.items():
        thresholds = _NO_ERRORS | repeats[0]["scenario"]["thresholds"]
        for sentence in missed(thresholds, medians(repeats)):
            sentences.append(f"{label}: {sentence}")
            status = 1 if sentence.startswith("errors") else status or 3
    return sentences, status
