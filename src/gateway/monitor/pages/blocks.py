"""What a page is made of: blocks that the browser, or a report, draws in order. All text is plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.monitor.pages.palette import Palette


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads to another page of the monitor; `href` is a path of it."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in a word; `tone` is `good`, `bad`, `wait`, `busy` or empty."""

    text: str
    tone: str = ""


Cell = str | Link | Badge


@dataclass(frozen=True, slots=True)
class Heading:
    """Begins a section; `level` 2 or 3."""

    text: str
    level: int = 2
    href: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; `tone` as of Badge, `dim` besides."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A paragraph that must be seen; `tone` is `bad` or `wait`."""

    text: str
    tone: str = "wait"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with values, side by side."""

    items: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are columns; the first cell names its row.

    Attributes:
        caption: what it is about, for screen readers too.
        columns: their heads.
        rows: cells by column.
        empty: what is said when there are no rows.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = "Nothing."


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture.

    Attributes:
        key: unique on its page and the same when the page is read again.
        title: above it.
        about: what is to be seen, in a sentence: for those who cannot see it.
        draw: makes a Bokeh figure of `data`.
        data: aggregates; the chart is drawn again when they have changed.
    """

    key: str
    title: str
    about: str
    draw: Callable[[Any, Palette], Any] = field(repr=False, compare=False)
    data: Any


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice among few.

    Attributes:
        name: of the query parameter.
        label: for people.
        options: (value, text).
        value: the one chosen.
    """

    name: str
    label: str
    options: tuple[tuple[str, str], ...]
    value: str


@dataclass(frozen=True, slots=True)
class Search:
    """A text to look for, as query parameter `name`; `suggestions` are at most 1000."""

    name: str
    label: str
    value: str
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Controls:
    """What is looked at; choosing leads to the same page with other query parameters."""

    fields: tuple[Choice | Search, ...]


Block = Heading | Text | Notice | Facts | Table | Chart | Controls


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        title: its heading.
        badges: beside it.
        trail: pages above it, the highest first.
        tabs: pages beside it.
        here: `href` of the tab that this page is.
        blocks: from top to bottom.
    """

    title: str
    blocks: tuple[Block, ...]
    badges: tuple[Badge, ...] = ()
    trail: tuple[Link, ...] = ()
    tabs: tuple[Link, ...] = ()
    here: str = ""
