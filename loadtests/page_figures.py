"""What the records of a report say, by entry: undisturbed runs, beside the yardstick taken before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtests.report import Spread, spread
from loadtests.session import kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Record = Mapping[str, Any]

DIRECT_ROWS: Final = 32
"""The batch that shares of the direct rows per second are of."""
_FP32: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a report.

    Attributes:
        label: `SERVER, PROTOCOL: POINT`.
        runs: undisturbed ones, or the least disturbed; none if it could not be had.
        unavailable: why not.
    """

    label: str
    runs: Sequence[Record]
    unavailable: str = ""

    @property
    def curve(self) -> str:
        """What it is a point of."""
        return self.label.partition(": ")[0]

    @property
    def point(self) -> str:
        """Which one, if there are several."""
        return self.label.partition(": ")[2]

    @property
    def scenario(self) -> Mapping[str, Any]:
        """What was asked, as recorded."""
        scenario: Mapping[str, Any] = self.runs[0]["scenario"]
        return scenario

    def has(self, figure: str) -> bool:
        """Return whether every run has a figure."""
        return bool(self.runs) and all(figure in run["figures"] for run in self.runs)

    def figure(self, name: str) -> Spread:
        """Return a figure of all runs."""
        return spread(run["figures"][name] for run in self.runs)

    def text(self, name: str, form: str) -> str:
        """Return a figure as tables show it, `-` if it was not measured."""
        return shown(self.figure(name), form) if self.has(name) else "-"


def shown(value: Spread, form: str) -> str:
    """Return `median (least-most)`, or the one value if there is no spread to show."""
    return f"{value.median:{form}}" if value.least == value.most else value.text(form)


def entries(records: Sequence[Record]) -> list[Entry]:
    """Return every entry, in the order of first appearance."""
    loads = [record for record in _beside_yardsticks(records) if record["kind"] == "load"]
    found = kept([record for record in loads if "unavailable" not in record])
    reasons = {record["entry"]: record["unavailable"] for record in loads if "unavailable" in record}
    labels = dict.fromkeys(record["entry"] for record in loads)
    return [Entry(label, found.get(label, ()), reasons.get(label, "")) for label in labels]


def yardsticks(records: Sequence[Record], kind: str, key: str, figure: str) -> dict[Any, Spread]:
    """Return the value of `key` -> a figure of the yardsticks of a kind, `direct` or `copy`."""
    grouped: dict[Any, list[float]] = {}
    for record in records:
        if record["kind"] == kind:
            grouped.setdefault(record[key], []).append(record[figure])
    return {value: spread(found) for value, found in grouped.items()}


def _beside_yardsticks(records: Sequence[Record]) -> Iterator[Record]:
    """Add to each run what it is compared with: `of_direct`, `mb_per_s` and `of_copy`."""
    direct_rows_per_s: dict[str, float] = {}
    copied_mb_per_s: dict[int, float] = {}
    for record in records:
        if record["kind"] == "direct" and record["rows"] == DIRECT_ROWS:
            direct_rows_per_s[record["model"]] = record["rows_per_s"]
        elif record["kind"] == "copy":
            copied_mb_per_s[record["bytes"]] = record["mb_per_s"]
        if record["kind"] != "load" or "requests_per_s" not in record["figures"]:
            yield record
            continue
        figures = dict(record["figures"])
        if (beside := direct_rows_per_s.get(_name(record))) is not None:
            figures["of_direct"] = figures["rows_per_s"] / beside
        if (ceiling := copied_mb_per_s.get(size := request_bytes(record["scenario"]))) is not None:
            figures["mb_per_s"] = figures["requests_per_s"] * size / 1e6
            figures["of_copy"] = figures["mb_per_s"] / ceiling
        yield {**record, "figures": figures}


def _name(record: Record) -> str:
    model = record["scenario"]["model"]
    return model if isinstance(model, str) else str(model["name"])


def request_bytes(scenario: Mapping[str, Any]) -> int:
    """Return the size of a request's tensor, 0 where the model is one of the project's own."""
    model = scenario["model"]
    return 0 if isinstance(model, str) else scenario["rows"] * model["features"] * _FP32
