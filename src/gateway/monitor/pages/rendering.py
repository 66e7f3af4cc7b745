"""Pages as JSON for the browser: blocks in order, charts as BokehJS takes them."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from gateway.monitor.pages.blocks import Badge, Chart, Choice, Controls, Link, Search, Table
from gateway.monitor.pages.jsontext import json_bytes

if TYPE_CHECKING:
    from gateway.monitor.pages.blocks import Block, Cell, Page
    from gateway.monitor.pages.drawing import Drawing


def digest_of(page: Page, theme: str) -> str:
    """Return what tells this page from another one, without drawing it."""
    return blake2b(theme.encode() + json_bytes(page), digest_size=12).hexdigest()


def page_json(page: Page, theme: str, drawing: Drawing) -> bytes:
    """Return the page with its charts drawn, as JSON; on the drawing's thread."""
    document = {
        "title": page.title,
        "badges": [asdict(badge) for badge in page.badges],
        "trail": [asdict(link) for link in page.trail],
        "tabs": [asdict(link) for link in page.tabs],
        "here": page.here,
        "blocks": [
            _block(block, theme, drawing, f"chart-{index}") for index, block in enumerate(page.blocks)
        ],
    }
    return json_bytes(document)


def _block(block: Block, theme: str, drawing: Drawing, target: str) -> dict[str, Any]:
    kind = type(block).__name__.lower()
    if isinstance(block, Chart):
        return {
            "kind": kind,
            "key": block.key,
            "title": block.title,
            "about": block.about,
            "target": target,
            "item": drawing.chart(block, theme, target),
        }
    if isinstance(block, Table):
        return {
            "kind": kind,
            "caption": block.caption,
            "columns": block.columns,
            "rows": [[cell(value) for value in row] for row in block.rows],
            "empty": block.empty,
        }
    if isinstance(block, Controls):
        return {"kind": kind, "fields": [_field(field) for field in block.fields]}
    document = asdict(block) | {"kind": kind}
    if "items" in document:
        document["items"] = [[name, cell(value)] for name, value in getattr(block, "items")]  # noqa: B009
    return document


def cell(value: Cell) -> dict[str, str]:
    """Return a cell with what it is told by: `href`, `tone` or neither."""
    if isinstance(value, Link | Badge):
        return asdict(value)
    return {"text": value}


def _field(field: Choice | Search) -> dict[str, Any]:
    return asdict(field) | {"kind": type(field).__name__.lower()}
