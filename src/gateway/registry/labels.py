"""Labels of versions in a registry without numbers of its own: `7`, `1.4.2`, and what selects among them."""

from __future__ import annotations

import re
from typing import Final

MAX_NUMBER: Final = 2**63 - 1
"""Largest version number; the protocol's is a signed 64-bit integer."""
WHAT_IS_A_LABEL: Final = "a version is a positive integer or MAJOR.MINOR[.PATCH], without leading zeros"
"""For messages."""

_MAJOR_UNIT: Final = 10**12
_MINOR_UNIT: Final = 10**6
_MAX_MAJOR: Final = 9_000_000
_PART: Final = r"(0|[1-9][0-9]{0,6})"
_INTEGER: Final = re.compile(r"v?([1-9][0-9]{0,18})")
_DOTTED: Final = re.compile(rf"v?{_PART}\.{_PART}(?:\.{_PART})?")
_PREFIX: Final = re.compile(rf"v?{_PART}\.(?:{_PART}\.)?x")


def number_of(label: str) -> int | None:
    """Return the positive integer that stands for a label, None when it is no version's.

    An integer stands for itself; `a.b.c` for a x 10^12 + b x 10^6 + c, where a is at most 9 000 000 and b, c
    are below 10^6. A `v` may go before, and `1.4` is `1.4.0`. A later label has a greater number.
    """
    if (match := _INTEGER.fullmatch(label)) is not None:
        number = int(match[1])
        return number if number <= MAX_NUMBER else None
    parts = dotted(label)
    if parts is None:
        return None
    return parts[0] * _MAJOR_UNIT + parts[1] * _MINOR_UNIT + parts[2] or None


def dotted(label: str) -> tuple[int, int, int] | None:
    """Return major, minor and patch of a label that has them, within what `number_of` can tell apart."""
    match = _DOTTED.fullmatch(label)
    if match is None:
        return None
    major, minor, patch = int(match[1]), int(match[2]), int(match[3] or "0")
    fits = major <= _MAX_MAJOR and minor < _MINOR_UNIT and patch < _MINOR_UNIT
    return (major, minor, patch) if fits else None


def is_prefix(text: str) -> bool:
    """Whether `text` selects labels by how they begin: `1.x`, `1.4.x`."""
    return _PREFIX.fullmatch(text) is not None


def matches(prefix: str, label: str) -> bool:
    """Whether a label is one of those that `prefix` selects.

    `1.x` selects every label with major 1, `1.4.x` those with 1.4; an integer has no major and is selected
    by none. A `v` before either says nothing.

    Raises:
        ValueError: `prefix` is none.
    """
    match = _PREFIX.fullmatch(prefix)
    if match is None:
        raise ValueError(f"{prefix!r} is neither MAJOR.x nor MAJOR.MINOR.x")
    wanted = tuple(int(part) for part in match.groups() if part is not None)
    parts = dotted(label)
    return parts is not None and parts[: len(wanted)] == wanted
