"""From findings to alarms: m of n windows, hysteresis, and what is said about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.detect.streaks import Streak, advanced, due, over, span_of
from gateway.monitor.detect.table import DRIFT, FIRST_QUALITY, OK, STATISTICS
from gateway.monitor.values import ALL, StreamKey
from gateway.predlog.rows import SHADOW_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.config.monitor_detect import DetectSettings
    from gateway.monitor.detect.budget import Budget
    from gateway.monitor.detect.changes import Change
    from gateway.monitor.detect.ledger import AlarmLedger
    from gateway.monitor.detect.levels import Level
    from gateway.monitor.detect.table import ScoreTable

KINDS: Final = ("drift", "quality")
CALM_P: Final = 0.05
"""A window whose test finds this much chance is calm, however large its few rows make the effect look."""
QUIET_S: Final = 86_400
"""An alarm of a stream without any rows for so long ends: nobody is served by it."""
CHANGE: Final = "change"
"""Stands for a window where a change of the mean was found by following it."""
CHANGE_S: Final = 3600
"""A ticket about such a change stands for so long after the last."""
MAX_STREAKS: Final = 100_000
"""Signals and windows whose recent findings are remembered."""

_Place = tuple[StreamKey, str, str]


class Alarming:
    """Owns the streaks; raises and clears alarms of kind `drift` and `quality`.

    Attributes:
        forgotten: streaks that were not begun because MAX_STREAKS were under way.
    """

    def __init__(self, ledger: AlarmLedger, budget: Budget, settings: DetectSettings) -> None:
        self.forgotten = 0
        self._ledger, self._budget, self._settings = ledger, budget, settings
        self._streaks: dict[_Place, dict[str, Streak]] = {}
        self._count = 0

    def take(self, tables: Iterable[ScoreTable], level: Level, step: int) -> None:
        """Follow the findings of one window's step; the tables of one model, whole streams among them."""
        for table in sorted(tables, key=lambda t: t.key.segment != ALL):
            drifted, calm = _by_place(table, self._settings.clear_ratio)
            for name, kind in sorted(drifted | calm.keys()):
                place = (table.key, kind, name)
                if (name, kind) in drifted or level.window in self._streaks.get(place, {}):
                    self._advance(
                        place, level, step, (table, (name, kind) in drifted, calm.get((name, kind), False))
                    )

    def changed(self, key: StreamKey, changes: Sequence[Change], end_s: float) -> None:
        """Open tickets about means that changed."""
        for change in changes:
            place = (key, change.kind, change.signal)
            streaks = self._streaks.setdefault(place, {})
            streaks[CHANGE] = Streak(int(end_s), active=True)
            if self._ledger.find(*place) is None:
                self._ledger.stand(
                    *place,
                    severity="ticket",
                    summary=f"{_who(key)}: the mean of {change.signal} changed by {change.value:.3g} "
                    f"{change.unit} at about {change.at_minutes:.0f} minutes before",
                    evidence={"statistic": "adwin", **change.document()},
                    now_s=end_s,
                )

    def quiet(self, now_s: float, levels: Sequence[Level]) -> None:
        """Clear what nothing was heard of, and forget streaks that can raise nothing any more."""
        length = {level.window: level for level in levels}
        for place, streaks in list(self._streaks.items()):
            for window, streak in list(streaks.items()):
                if self._gone(streak, length.get(window), now_s):
                    del streaks[window]
                    self._count -= window != CHANGE
            self._settle(place, now_s)

    def document(self) -> list[Any]:
        """Return the streaks in JSON types."""
        return [
            [list(key), kind, name, window, s.step, hex(s.drifted), hex(s.calm), s.active]
            for (key, kind, name), streaks in self._streaks.items()
            for window, s in streaks.items()
        ]

    def restore(self, document: list[Any]) -> None:
        """Take what `document` gave."""
        for key, kind, name, window, step, drifted, calm, active in document:
            streaks = self._streaks.setdefault((StreamKey(*key), kind, name), {})
            streaks[window] = Streak(step, int(drifted, 16), int(calm, 16), active)
            self._count += window != CHANGE

    def _advance(self, place: _Place, level: Level, step: int, found: tuple[ScoreTable, bool, bool]) -> None:
        table, drifted, calm = found
        streaks = self._streaks.get(place, {})
        streak = streaks.get(level.window)
        if streak is None:
            if self._count >= MAX_STREAKS:
                self.forgotten += 1
                return
            streak = Streak(step)
            self._streaks.setdefault(place, streaks)[level.window] = streak
            self._count += 1
        advanced(streak, step, drifted=drifted, calm=calm, span=span_of(level, self._settings.of))
        if due(streak, level, self._settings.needed, self._settings.of) and not self._covered(place):
            if not streak.active:
                self._budget.raised(place[0].model, level.window, table.end_s)
            streak.active = True
            self._raise(place, level, table)
        elif streak.active and over(streak, level, self._settings.needed):
            streak.active = False
            self._settle(place, table.end_s)

    def _covered(self, place: _Place) -> bool:
        """Say whether the whole stream has this alarm, so that its segments need none."""
        key, kind, name = place
        return key.segment != ALL and self._ledger.find(key._replace(segment=ALL), kind, name) is not None

    def _raise(self, place: _Place, level: Level, table: ScoreTable) -> None:
        key, kind, name = place
        tests = [i for i in _tests(table, name, kind) if table.finding[i] == DRIFT]
        if not tests:
            return
        worst = max(tests, key=lambda i: float(table.value[i]) / max(float(table.threshold[i]), 1e-12))
        what = (
            "drifted from its reference" if kind == "drift" else f"has more {_trouble(table, worst)} values"
        )
        if name == "errors":
            what = "rose"
        before = self._ledger.find(*place)
        windows = {level.window, *(before.evidence.get("windows", ()) if before else ())}
        self._ledger.stand(
            key,
            kind,
            name,
            severity="ticket" if key.arm.startswith(SHADOW_PREFIX) else "page",
            summary=f"{_who(key)}: {name} {what}: {STATISTICS[table.statistic[worst]]} "
            f"{table.value[worst]:.3g}, above {table.threshold[worst]:.3g}, in {self._settings.needed} of "
            f"{self._settings.of} windows of {level.window}",
            evidence={
                "windows": sorted(windows),
                "window": level.window,
                "start_s": table.start_s,
                "end_s": table.end_s,
                "coverage": table.coverage,
                "q": level.q,
                "tests": [_evidence(table, i) for i in _tests(table, name, kind)],
            },
            now_s=table.end_s,
        )

    def _gone(self, streak: Streak, level: Level | None, now_s: float) -> bool:
        if level is None:
            return now_s - streak.step > CHANGE_S
        silent_s = now_s - streak.step * level.step_s
        if streak.active:
            return silent_s > max(QUIET_S, self._settings.of * level.length_s)
        return not streak.drifted or silent_s > self._settings.of * level.length_s

    def _settle(self, place: _Place, now_s: float) -> None:
        """End the alarm where no window holds it any more."""
        streaks = self._streaks.get(place, {})
        if not any(s.active for s in streaks.values()):
            self._ledger.clear(*place, now_s)
        if not streaks:
            self._streaks.pop(place, None)


def _by_place(
    table: ScoreTable, clear_ratio: float
) -> tuple[set[tuple[str, str]], dict[tuple[str, str], bool]]:
    """Return which (signal, kind) drifted, and of which all tests were possible whether all were calm."""
    quality = table.statistic >= FIRST_QUALITY
    place = table.signal * 2 + quality
    size = 2 * len(table.names)
    hit = np.bincount(place, table.finding == DRIFT, size) > 0
    quiet = (table.finding == OK) & (
        (table.value <= clear_ratio * table.threshold) | (table.p_value > CALM_P)
    )
    tested = (table.finding == OK) | (table.finding == DRIFT)
    loud = np.bincount(place, tested & ~quiet, size) > 0
    some = np.bincount(place, tested, size) > 0
    names = [(table.names[i // 2], KINDS[i % 2]) for i in range(size)]
    drifted = {names[i] for i in np.flatnonzero(hit)}
    return drifted, {names[i]: not loud[i] for i in np.flatnonzero(some)}


def _tests(table: ScoreTable, name: str, kind: str) -> list[int]:
    at = table.names.index(name)
    quality = (table.statistic >= FIRST_QUALITY) == (kind == "quality")
    return [int(i) for i in np.flatnonzero((table.signal == at) & quality)]


def _trouble(table: ScoreTable, test: int) -> str:
    words = {
        "missing": "missing",
        "type": "mistyped",
        "range": "outlying",
        "novel": "novel",
        "errors": "failed",
    }
    return words[STATISTICS[table.statistic[test]]]


def _evidence(table: ScoreTable, test: int) -> dict[str, Any]:
    p_value = float(table.p_value[test])
    return {
        "statistic": STATISTICS[table.statistic[test]],
        "value": float(table.value[test]),
        "threshold": float(table.threshold[test]),
        "p_value": None if np.isnan(p_value) else p_value,
        "rows": float(table.rows[test]),
        "reference_rows": float(table.reference_rows[test]),
        "drifted": bool(table.finding[test] == DRIFT),
    }


def _who(key: StreamKey) -> str:
    arm = f" {key.arm}" if key.arm else ""
    segment = f", {key.segment}" if key.segment else ""
    return f"{key.model} version {key.version}{arm}{segment}"
