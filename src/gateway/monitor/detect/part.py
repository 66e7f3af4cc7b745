"""Detection: compares windows with the reference as minutes close, and keeps the alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.monitor.detect.alarming import Alarming
from gateway.monitor.detect.budget import Budget
from gateway.monitor.detect.changes import Changes
from gateway.monitor.detect.compare import Window, compared
from gateway.monitor.detect.family import judge
from gateway.monitor.detect.history import History
from gateway.monitor.detect.ledger import AlarmLedger
from gateway.monitor.detect.levels import levels
from gateway.monitor.detect.prepared import PreparedProfiles
from gateway.monitor.detect.table import DRIFT

if TYPE_CHECKING:
    import sqlite3

    from gateway.config.monitor_detect import DetectSettings
    from gateway.monitor.detect.budget import Spent
    from gateway.monitor.detect.levels import Level
    from gateway.monitor.detect.sources import PaneSource, Profiles
    from gateway.monitor.detect.table import ScoreTable
    from gateway.monitor.values import Alarm, Applied, Score, StreamKey

CATCH_UP: Final = 60
"""Steps of a window that are made up for after a pause; earlier ones are skipped and counted."""


class Detection:
    """A part of the monitor (`seams.Part`): scores, alarms and the budget of false ones.

    Every window is compared each time it has moved by its step (`levels`), `settle` after its end. Rows that
    arrive later still change panes and pictures, never a finding that was given.

    Attributes:
        ledger: all alarms, those of other parts too.
        levels: how each window is tested.
        skipped: steps that were not made up for.
    """

    name = "detection"

    def __init__(
        self,
        panes: PaneSource,
        profiles: Profiles,
        settings: DetectSettings,
        ledger: AlarmLedger | None = None,
    ) -> None:
        self.ledger = ledger or AlarmLedger()
        self.levels = levels(settings)
        self.skipped = 0
        self._panes, self._profiles, self._settings = panes, profiles, settings
        self._history = History()
        self._budget = Budget()
        self._alarming = Alarming(self.ledger, self._budget, settings)
        self._changes = Changes(settings)
        self._ends: dict[str, int] = {}
        self._minute = 0
        self._without: set[StreamKey] = set()
        self._prepared = PreparedProfiles()

    def evaluate(self, now_s: float) -> list[Score]:
        """Compare what has closed since the last call; return the scores given.

        Args:
            now_s: wall clock; going back compares nothing anew.
        """
        tables: list[ScoreTable] = []
        for level in self.levels:
            newest = int((now_s - self._settings.settle) // level.step_s)
            last = self._ends.get(level.window, newest - 1)
            self.skipped += max(0, newest - last - CATCH_UP)
            for step in range(max(last + 1, newest - CATCH_UP + 1), newest + 1):
                tables += self._window(level, step)
            self._ends[level.window] = max(newest, last)
        self._follow(now_s)
        self._alarming.quiet(now_s, self.levels)
        return [score for table in tables for score in table.scores()]

    def scores(  # noqa: PLR0913 - the filters of a query
        self,
        model: str,
        *,
        version: int | None = None,
        arm: str | None = None,
        segment: str | None = None,
        signal: str | None = None,
        window: str | None = None,
        since_s: float = 0.0,
        until_s: float = float("inf"),
        limit: int = 100_000,
    ) -> list[Score]:
        """Return scores by time; None asks for all.

        Kept are the newest of every window and those whose windows do not overlap, for `history_days`.
        """
        found: list[Score] = []
        for table in self._history.tables(model, window, since_s, until_s):
            key = table.key
            if version in (None, key.version) and arm in (None, key.arm) and segment in (None, key.segment):
                found.extend(table.scores(signal))
                if len(found) >= limit:
                    break
        return found[:limit]

    def newest(self, model: str | None = None) -> list[Score]:
        """Return the last scores of every stream and window."""
        return [score for table in self._history.newest(model) for score in table.scores()]

    def alarms(
        self, model: str | None = None, *, since_s: float = 0.0, limit: int = 1000
    ) -> tuple[Alarm, ...]:
        """Return alarms that stand or were cleared since, newest first, of every kind."""
        return self.ledger.alarms(model, since_s=since_s, limit=limit)

    def spent(self, model: str) -> tuple[Spent, ...]:
        """Return expected against observed alarms of a model, by window."""
        return self._budget.spent(model, self.levels)

    def without_reference(self) -> frozenset[StreamKey]:
        """Return streams that had rows and no profile when last looked at."""
        return frozenset(self._without)

    def _window(self, level: Level, step: int) -> list[ScoreTable]:
        by_model: dict[str, list[ScoreTable]] = {}
        for key in list(self._panes.keys()):
            table = self._table(key, level, step)
            if table is not None:
                by_model.setdefault(key.model, []).append(table)
        for model, tables in by_model.items():
            tested = judge(tables, level)
            if tested:
                rejected = any((t.finding == DRIFT).any() for t in tables)
                self._budget.count(model, level.window, step * level.step_s, rejected=rejected)
            for table in tables:
                self._history.add(table, keep=step % level.stride == 0)
            self._alarming.take(tables, level, step)
        return [table for tables in by_model.values() for table in tables]

    def _table(self, key: StreamKey, level: Level, step: int) -> ScoreTable | None:
        end_s = float(step * level.step_s)
        profile = self._profiles.find(key.model, key.version, key.digest)
        if profile is None:
            self._without.add(key)
            return None
        self._without.discard(key)
        prepared = self._prepared.find(profile, key.segment)
        if prepared is None:
            return None
        start_s = end_s - level.length_s
        pane = self._panes.window(key, start_s, end_s)
        if not pane.rows or pane.layout.profile_id != profile.id:
            return None
        coverage = self._panes.coverage(key.model, key.version, key.arm, start_s, end_s)
        return compared(Window(key, end_s, coverage.ratio, pane, profile, prepared), level, self._settings)

    def _follow(self, now_s: float) -> None:
        """Follow the means of minutes, of whole streams."""
        minute = int((now_s - self._settings.settle) // 60)
        first = max(self._minute or minute - 1, minute - CATCH_UP)
        for key in [k for k in self._panes.keys() if not k.segment]:  # noqa: SIM118 - not a dictionary
            profile = self._profiles.find(key.model, key.version, key.digest)
            if profile is None:
                continue
            for start_s, pane in self._panes.minutes(key, first * 60.0, minute * 60.0):
                if pane.layout.profile_id == profile.id:
                    coverage = self._panes.coverage(key.model, key.version, key.arm, start_s, start_s + 60)
                    if coverage.ratio >= self._settings.min_coverage:
                        changes = self._changes.add(key, start_s, pane, profile)
                        self._alarming.changed(key, changes, start_s + 60)
        self._minute = max(minute, self._minute)

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables."""
        self.ledger.create(database)
        self._history.create(database)
        database.execute(
            "CREATE TABLE IF NOT EXISTS detection_state (name TEXT PRIMARY KEY, body BLOB NOT NULL)"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read alarms, scores, the streaks that alarms grow from, and the budget."""
        self.ledger.restore(database)
        self._history.restore(database)
        row = database.execute("SELECT body FROM detection_state WHERE name = 'state'").fetchone()
        if row is None:
            return
        state: dict[str, Any] = orjson.loads(row[0])
        self._ends = state["ends"]
        self._minute = state["minute"]
        self._budget.restore(state["budget"])
        self._alarming.restore(state["streaks"])
        self._changes.restore(state["changes"])

    def apply(self, applied: Applied) -> None:
        """Take nothing: panes do."""

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what changed."""
        self.ledger.flush(database)
        self._history.flush(database)
        state = {
            "ends": self._ends,
            "minute": self._minute,
            "budget": self._budget.document(),
            "streaks": self._alarming.document(),
            "changes": self._changes.document(),
        }
        database.execute("INSERT OR REPLACE INTO detection_state VALUES ('state', ?)", (orjson.dumps(state),))

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again; the state of streaks always is."""
        self.ledger.rolled_back()
        self._history.rolled_back()

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Forget scores and ended alarms older than `history_days`, counts older than the horizon."""
        before_s = now_s - self._settings.history_days * 86_400
        self.ledger.expire(database, before_s)
        self._history.expire(database, before_s)
        self._budget.expire(now_s - self._settings.horizon_days * 86_400)
        known = set(self._panes.keys())
        self._without &= known
        self._changes.keep(known)

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:  # noqa: ARG002
        """Delete nothing: there are aggregates alone."""
        return 0
