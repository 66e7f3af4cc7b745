"""Sizes in words."""

from __future__ import annotations


def in_words(size: int) -> str:
    """Return bytes as people write them: 999 B, 1.5 kB, 231 MB, 12.3 GB."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
