"""The table that the long counts end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MIB: Final = 1 << 20
_HEADINGS = ("check", "count", "result", "figure", "limit", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """One check.

    Attributes:
        check: what was checked.
        count: how often, or for how long.
        result: what happened.
        figure: what is held against the limit.
        limit: the most allowed.
        ok: whether it was kept.
        why: what went wrong, in words; printed below the table when it failed.
    """

    check: str
    count: str
    result: str
    figure: str
    limit: str
    ok: bool
    why: Sequence[str] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as printed."""
        verdict = "PASS" if self.ok else "FAIL"
        return (self.check, self.count, self.result, self.figure, self.limit, verdict)


def bytes_row(check: str, count: str, grown: int, limit: int) -> Row:
    """Return the row of a check that resident memory grew by no more than `limit` bytes."""
    figure, most = f"{grown / _MIB:+.1f} MiB", f"+{limit / _MIB:.0f} MiB"
    return Row(check, count, "resident memory", figure, most, ok=grown <= limit)


def table(rows: Sequence[Row]) -> str:
    """Return the rows aligned in columns, and below them why the failed ones failed."""
    grid = [_HEADINGS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in grid) for column in range(len(_HEADINGS))]
    lines = [_line(cells, widths) for cells in grid]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join([*lines, *_reasons(rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if not row.ok and row.why:
            yield f"\n{row.check}:"
            yield from (f"  {reason}" for reason in row.why)
