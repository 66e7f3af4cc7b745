"""Follows the means of minutes by ADWIN: slow and small changes that no single window shows.

Tickets only: they are outside of the budget of false pages. A minute's mean of a signal is taken in
deviations of the reference, shares as they are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.panes.layout import MISSING
from gateway.monitor.values import StreamKey
from gateway.statistics.adwin import Adwin, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.monitor_detect import DetectSettings
    from gateway.monitor.panes.pane import Pane
    from gateway.monitor.profile.reference import Profile

MAX_FOLLOWED: Final = 4096
"""Means that are followed, in all streams together; about 4 kB each."""

LEAST_ROWS: Final = 20
"""Effective rows of a minute below which its mean is not taken."""

_ADWIN: Final = Settings(restarts=False)
"""A first cut may be too small to tell: what is left of the window must go on to the next."""


@dataclass(frozen=True, slots=True)
class Change:
    """A mean that changed.

    Attributes:
        kind: `drift` or `quality`.
        signal: of the mean; `errors` for the share of failed rows.
        what: `mean`, `missing` or `errors`.
        value: size of the change, without sign.
        unit: of it, for people.
        before: the mean of what the window was cut by.
        after: the mean since.
        at_minutes: minutes since the change began, about.
    """

    kind: str
    signal: str
    what: str
    value: float
    unit: str
    before: float
    after: float
    at_minutes: float

    def document(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return asdict(self)


_Place = tuple[StreamKey, str, str]


class Changes:
    """Owns one ADWIN per mean.

    Attributes:
        refused: means that are not followed because MAX_FOLLOWED are.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self.refused = 0
        self._floors = {
            "mean": settings.floors.adwin,
            "missing": settings.floors.missing,
            "errors": settings.floors.errors,
        }
        self._followed: dict[_Place, Adwin] = {}
        self._seen: dict[StreamKey, float] = {}

    def add(self, key: StreamKey, start_s: float, pane: Pane, profile: Profile) -> list[Change]:
        """Add a minute; return what changed. One that is not later than the last is left out."""
        if start_s <= self._seen.get(key, -1.0) or pane.effective_rows < LEAST_ROWS:
            return []
        self._seen[key] = start_s
        found = []
        for what, signal, value in _means(pane, profile):
            change = self._update((key, what, signal), value, self._floor(what, signal, profile))
            if change is not None:
                found.append(change)
        return found

    def keep(self, keys: set[StreamKey]) -> None:
        """Forget all other streams."""
        self._followed = {place: a for place, a in self._followed.items() if place[0] in keys}
        self._seen = {key: at for key, at in self._seen.items() if key in keys}

    def document(self) -> list[Any]:
        """Return the state in JSON types."""
        return [
            [list(key), what, signal, a.width, a.total, a.spread, a.seen, a.cuts, [list(r) for r in a.rows]]
            for (key, what, signal), a in self._followed.items()
        ] + [[list(key), at] for key, at in self._seen.items()]

    def restore(self, document: list[Any]) -> None:
        """Take what `document` gave."""
        for key, *fields in document:
            if len(fields) == 1:
                self._seen[StreamKey(*key)] = fields[0]
                continue
            what, signal, width, total, spread, seen, cuts, rows = fields
            buckets = [deque((a, b) for a, b in row) for row in rows]
            self._followed[StreamKey(*key), what, signal] = Adwin(
                _ADWIN, width=width, total=total, spread=spread, seen=seen, cuts=cuts, rows=buckets
            )

    def _floor(self, what: str, signal: str, profile: Profile) -> float:
        """Return the change that must be exceeded: what blocks of the reference did, from end to end."""
        statistic, ends = {"mean": ("wasserstein", 2.2), "missing": ("missing", 1.1)}.get(what, ("", 0.0))
        block = profile.blocks.get(signal, {}).get(statistic)
        return max(self._floors[what], 0.0 if block is None else ends * block.quantile)

    def _update(self, place: _Place, value: float, floor: float) -> Change | None:
        adwin = self._followed.get(place)
        if adwin is None:
            if len(self._followed) >= MAX_FOLLOWED:
                self.refused += 1
                return None
            adwin = self._followed[place] = Adwin(_ADWIN)
        width, total = adwin.width + 1, adwin.total + value
        if not adwin.update(value):
            return None
        before = (total - adwin.total) / (width - adwin.width)
        size = abs(adwin.mean - before)
        if size <= floor:
            return None
        return Change(
            kind="drift" if place[1] == "mean" else "quality",
            signal=place[2],
            what=place[1],
            value=size,
            unit="deviations" if place[1] == "mean" else "as a share",
            before=before,
            after=adwin.mean,
            at_minutes=adwin.width,
        )


def _means(pane: Pane, profile: Profile) -> Iterator[tuple[str, str, float]]:
    means = pane.means()
    finite = pane.counts.sum(axis=1) * pane.design
    for i, n in enumerate(profile.numeric):
        if finite[i] >= LEAST_ROWS and np.isfinite(means[i]) and n.variance > 0:
            yield "mean", n.name, float((means[i] - n.mean) / np.sqrt(n.variance))
    if pane.answered > 0:
        for n, missing in zip(profile.numeric, pane.flags[:, MISSING], strict=True):
            yield "missing", n.name, float(missing / pane.answered)
    if pane.weight > 0:
        yield "errors", "errors", float(1 - pane.statuses.get("", 0.0) / pane.weight)
