"""A label, and what becomes of it. Every bound on what a client may send is here."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

MAX_ID_BYTES: Final = 256
MAX_CATEGORY_BYTES: Final = 256
MAX_SOURCE_BYTES: Final = 64
MAX_BATCH: Final = 10_000
"""Labels of one post; the rest of a longer one is refused."""
MAX_ROW: Final = (1 << 32) - 1
MAX_REVISION: Final = (1 << 63) - 1
MAX_AT_NS: Final = (1 << 63) - 1
MAX_REFUSED: Final = 100
"""Refusals that a reply lists; the others are counted."""


class Why(enum.Enum):
    """Why a label was refused; a bounded set, used as a metric's label."""

    MALFORMED = "malformed"
    """Not an object of the documented members, or of the wrong type."""
    ID = "id"
    """No id, or one longer than MAX_ID_BYTES."""
    VALUE = "value"
    """No value, not finite, or a category longer than MAX_CATEGORY_BYTES."""
    RANGE = "range"
    """A row, revision, time or weight that is negative or too large."""
    CLASS = "class"
    """The prediction is there, and the label is none of its model's classes, or not a number."""
    STALE = "stale"
    """A later revision is there already."""
    CONFLICT = "conflict"
    """Another value of the same revision is there already: a correction needs a higher revision."""
    ERASED = "erased"
    """Its prediction was erased with all records of a subject."""
    TOO_MANY = "too_many"
    """Beyond MAX_BATCH."""


@dataclass(frozen=True, slots=True)
class Label:
    """One row's ground truth.

    Attributes:
        id: join key of the prediction.
        row: row within its request.
        value: a number, or a category as text.
        at_ns: wall clock, nanoseconds since the epoch, when it became known; 0: when it is received.
        source: who says so.
        revision: a later one replaces an earlier one of the same id and row.
        weight: how much it counts, over 0.
    """

    id: bytes
    row: int
    value: float | str
    at_ns: int = 0
    source: str = ""
    revision: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A label that was not taken.

    Attributes:
        index: its place in the post, from 0.
        why: the reason.
    """

    index: int
    why: Why


@dataclass(frozen=True, slots=True)
class Parsed:
    """A post as read: what may be joined, and what was refused.

    Attributes:
        model: public model name.
        labels: with their places in the post.
        refused: by place.
    """

    model: str
    labels: tuple[tuple[int, Label], ...]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelReply:
    """What became of a post's labels.

    Attributes:
        accepted: taken: `joined`, `waiting`, `revised` and `duplicates` together.
        joined: of them met their prediction.
        waiting: of them wait for it.
        revised: of them replaced an earlier revision.
        duplicates: of them were there already, the same in all: nothing changed.
        refused: the first MAX_REFUSED.
        refused_total: all.
    """

    accepted: int = 0
    joined: int = 0
    waiting: int = 0
    revised: int = 0
    duplicates: int = 0
    refused: tuple[Refused, ...] = ()
    refused_total: int = 0


def checked(label: Label) -> Why | None:
    """Return why a label cannot be used, whatever its prediction; None if it can."""
    if not 0 < len(label.id) <= MAX_ID_BYTES:
        return Why.ID
    if isinstance(label.value, str):
        if not label.value or not _fits(label.value, MAX_CATEGORY_BYTES):
            return Why.VALUE
    elif not math.isfinite(label.value):
        return Why.VALUE
    if not (0 <= label.row <= MAX_ROW and 0 <= label.revision <= MAX_REVISION):
        return Why.RANGE
    if not (0 <= label.at_ns <= MAX_AT_NS and 0 < label.weight <= 1e6):
        return Why.RANGE
    return None if _fits(label.source, MAX_SOURCE_BYTES) else Why.MALFORMED


def _fits(text: str, most_bytes: int) -> bool:
    try:
        return len(text) <= most_bytes and len(text.encode()) <= most_bytes
    except UnicodeEncodeError:
        return False
