"""Rows of a spool that cannot be read: each is counted once, however often the place is read again."""

from __future__ import annotations


class LostRows:
    """Stretches of positions known to be unreadable."""

    def __init__(self) -> None:
        self._gaps: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> int:
        """Note a stretch; return how many of its rows were not known before."""
        known = self.known(start, end)
        if known < end - start:
            beside = [gap for gap in self._gaps if gap[1] < start or gap[0] > end]
            touching = [gap for gap in self._gaps if gap not in beside]
            begin = min([start, *(gap[0] for gap in touching)])
            self._gaps = [*beside, (begin, max([end, *(gap[1] for gap in touching)]))]
        return end - start - known

    def known(self, start: int, end: int) -> int:
        """Return how many rows of a stretch are known to be unreadable."""
        return sum(max(min(end, e) - max(start, s), 0) for s, e in self._gaps)

    def forget(self, position: int) -> None:
        """Drop the stretches that end at a position or before it: they are not read again."""
        self._gaps = [gap for gap in self._gaps if gap[1] > position]
