"""Puts tables of what was measured into docs/triton-measurements.md, each between its marks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE: Final = "triton-measurements.md"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def put_table(docs: Path, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the table of this name on the page.

    Raises:
        ValueError: the page has no marks for it.
    """
    page = docs / PAGE
    text = page.read_text()
    begin, end = f"<!-- {name}: made by loadtests -->", f"<!-- end of {name} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(text):
        raise ValueError(f"{page} has no marks {begin!r} and {end!r}")
    table = f"{begin}\n\n{markdown(headings, rows)}\n\n{end}"
    page.write_text(found.sub(lambda _: table, text))
