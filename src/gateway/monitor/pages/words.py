"""Numbers and times in words, for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))
_SIZES: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_UNKNOWN: Final = "\u2013"
_GAP: Final = "\u00a0"


def number(value: float) -> str:
    """Return three or four significant digits."""
    if not math.isfinite(value):
        return _UNKNOWN if math.isnan(value) else "\u221e"
    if abs(value) >= 10_000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rough(value: float) -> str:
    """Return two significant digits."""
    if not math.isfinite(value):
        return number(value)
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def percent(share: float) -> str:
    """Return a share of 0 to 1 as percent."""
    return f"{100 * share:.3g}{_GAP}%" if math.isfinite(share) else _UNKNOWN


def moment(at_s: float) -> str:
    """Return a moment as day, hour and minute in UTC."""
    if not math.isfinite(at_s):
        return _UNKNOWN
    return f"{datetime.fromtimestamp(at_s, UTC):%d %b %Y %H:%M}{_GAP}UTC"


def duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit."""
    if not math.isfinite(seconds):
        return _UNKNOWN
    for unit, size in _UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.3g}{_GAP}{unit}"
    return f"{seconds:.3g}{_GAP}s"


def ago(at_s: float, now_s: float) -> str:
    """Return how long before `now_s` a moment was."""
    return f"{duration(max(0.0, now_s - at_s))} ago" if math.isfinite(at_s) else "never"


def size(count: float) -> str:
    """Return bytes in their largest fitting unit."""
    if not math.isfinite(count):
        return _UNKNOWN
    for unit, bytes_ in _SIZES:
        if count >= bytes_:
            return f"{count / bytes_:.3g}{_GAP}{unit}"
    return f"{count:.0f}{_GAP}B"


def counted(count: int, thing: str) -> str:
    """Return `1 alarm`, `2 alarms`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
