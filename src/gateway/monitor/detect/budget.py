"""The false-alarm budget, kept: how many alarms chance may have raised, and how many there were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.monitor.detect.levels import Level

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Spent:
    """What one model's tests of one window came to, over at most the horizon.

    Attributes:
        window: name.
        q: level of a family.
        families: that were tested: one per model and step with enough rows.
        rejected: of them found any drift.
        expected_rejected: at most, had there been no drift at all: families * q.
        raised: alarms.
        expected_raised: at most, had there been no drift: families * C(n-1, m-1) * q^m.
    """

    window: str
    q: float
    families: int
    rejected: int
    expected_rejected: float
    raised: int
    expected_raised: float


class Budget:
    """Counts by model, window and day."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str], dict[int, list[int]]] = {}

    def count(self, model: str, window: str, end_s: float, *, rejected: bool) -> None:
        """Count a family."""
        day = self._day(model, window, end_s)
        day[0] += 1
        day[1] += rejected

    def raised(self, model: str, window: str, end_s: float) -> None:
        """Count an alarm."""
        self._day(model, window, end_s)[2] += 1

    def spent(self, model: str, levels: Iterable[Level]) -> tuple[Spent, ...]:
        """Return what became of a model's budget, by window."""
        found = []
        for level in levels:
            days = self._days.get((model, level.window), {}).values()
            families, rejected, raised = (sum(day[i] for day in days) for i in range(3))
            found.append(
                Spent(
                    level.window,
                    level.q,
                    families,
                    rejected,
                    families * level.q,
                    raised,
                    families * level.false_page,
                )
            )
        return tuple(found)

    def expire(self, before_s: float) -> None:
        """Forget days before."""
        before = int(before_s // _DAY_S)
        for place, days in list(self._days.items()):
            for day in [d for d in days if d < before]:
                del days[day]
            if not days:
                del self._days[place]

    def document(self) -> list[Any]:
        """Return it in JSON types."""
        return [
            [model, window, day, *counts]
            for (model, window), days in self._days.items()
            for day, counts in days.items()
        ]

    def restore(self, document: list[Any]) -> None:
        """Take what `document` gave."""
        for model, window, day, *counts in document:
            self._days.setdefault((model, window), {})[day] = counts

    def _day(self, model: str, window: str, end_s: float) -> list[int]:
        return self._days.setdefault((model, window), {}).setdefault(int(end_s // _DAY_S), [0, 0, 0])
