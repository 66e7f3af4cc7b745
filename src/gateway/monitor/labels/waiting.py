"""Labels that came before their prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.monitor.performance.join import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.monitor.labels.label import Label

Place = tuple[str, bytes, int]
"""Model, id, row."""


@dataclass(slots=True)
class Entry:
    """A label that waits.

    Attributes:
        label: it.
        since_s: wall clock when it came.
        matched: some prediction has met it; it stays for others of the same key, a shadow's for example.
    """

    label: Label
    since_s: float
    matched: bool = False


class Waiting:
    """Labels by model, id and row; at most `most` after `trim`. The oldest make way.

    Attributes:
        changed: places that differ from the database.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[Place, Entry] = {}
        self._models: Counter[str] = Counter()
        self.changed: set[Place] = set()

    def __len__(self) -> int:
        """Return how many there are, those that were met included."""
        return len(self._entries)

    def has(self, model: str) -> bool:
        """Tell whether any label of a model waits."""
        return self._models[model] > 0

    def find(self, model: str, key: bytes, row: int) -> Entry | None:
        """Return the label of a prediction."""
        return self._entries.get((model, key, row)) if key else None

    def get(self, place: Place) -> Entry | None:
        """Return the entry at a place."""
        return self._entries.get(place)

    def items(self) -> Iterable[tuple[Place, Entry]]:
        """Return all, the oldest first."""
        return self._entries.items()

    def add(self, model: str, label: Label, now_s: float, *, matched: bool = False) -> Outcome:
        """Let a label wait, if no later revision does."""
        place = (model, label.id, label.row)
        held = self._entries.get(place)
        if held is not None and held.label.revision >= label.revision:
            if held.label.revision > label.revision:
                return Outcome.STALE
            same = (held.label.value, held.label.weight) == (label.value, label.weight)
            return Outcome.DUPLICATE if same else Outcome.CONFLICT
        self.put(place, Entry(label, now_s, matched or (held is not None and held.matched)))
        return Outcome.WAITING

    def remember(self, model: str, label: Label, now_s: float, *, fresh: bool) -> None:
        """Keep a label that was joined for further predictions of its key, if such may come or it is kept."""
        if fresh or (model, label.id, label.row) in self._entries:
            self.add(model, label, now_s, matched=True)

    def put(self, place: Place, entry: Entry) -> None:
        """Set an entry, as the newest."""
        self._forget(place)
        self._entries[place] = entry
        self._models[place[0]] += 1
        self.changed.add(place)

    def matched(self, model: str, entry: Entry) -> None:
        """Note that a prediction has met it."""
        if not entry.matched:
            entry.matched = True
            self.changed.add((model, entry.label.id, entry.label.row))

    def trim(self) -> int:
        """Drop the oldest beyond the bound; return how many of them had met nothing."""
        gone = list(self._entries)[: max(0, len(self._entries) - self._most)]
        return sum(self._drop(place) for place in gone)

    def expire(self, before_s: float, met_before_s: float) -> int:
        """Drop those from before, or, if they have met a prediction, from before the other time.

        Returns:
            How many of them had met nothing.
        """
        limits = (before_s, met_before_s)
        gone = [place for place, entry in self._entries.items() if entry.since_s < limits[entry.matched]]
        return sum(self._drop(place) for place in gone)

    def erase(self, keys: set[tuple[str, bytes]]) -> int:
        """Drop those of these models and ids; return how many."""
        gone = [place for place in self._entries if place[:2] in keys] if keys else []
        for place in gone:
            self._drop(place)
        return len(gone)

    def _drop(self, place: Place) -> bool:
        entry = self._entries[place]
        self._forget(place)
        self.changed.add(place)
        return not entry.matched

    def _forget(self, place: Place) -> None:
        if self._entries.pop(place, None) is not None:
            self._models[place[0]] -= 1
            if not self._models[place[0]]:
                del self._models[place[0]]
