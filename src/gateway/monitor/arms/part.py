"""Arms: keeps pairs of mirrored rows, and answers how a candidate compares with its baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.monitor.arms.evidence import Concurrent
from gateway.monitor.arms.pairs import Pairs, matching
from gateway.monitor.arms.verdict import ArmsEvidence, verdict
from gateway.monitor.panes.pane import Pane
from gateway.monitor.values import ALL, PANE_S

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from gateway.config.monitor_detect import ArmSettings
    from gateway.monitor.arms.evidence import Comparison
    from gateway.monitor.arms.pairs import Paired
    from gateway.monitor.arms.verdict import Question
    from gateway.monitor.detect.ledger import AlarmLedger
    from gateway.monitor.detect.sources import PaneSource
    from gateway.monitor.values import Alarm, Applied, ArmVerdict, StreamKey


class Arms:
    """A part of the monitor (`seams.Part`).

    The sequences hold at all times for a comparison that began at a fixed one: the candidate's first minute,
    or the question's `since_s`; beyond `lookback` the beginning moves, and the promise is per such window.
    """

    name = "arms"

    def __init__(self, panes: PaneSource, ledger: AlarmLedger, settings: ArmSettings) -> None:
        """Answer from these panes, minding the alarms that stand in `ledger` (`Detection.ledger`)."""
        self._panes, self._ledger, self._settings = panes, ledger, settings
        self.pairs = Pairs(settings.pairs)

    def verdict(self, question: Question, now_s: float) -> ArmVerdict:
        """Return the verdict as of now; `verdict.document` makes the endpoint's JSON of it."""
        start_s = max(now_s - self._settings.lookback, question.since_s)
        sums = Concurrent()
        for _, candidate, baseline in self._minutes(question, start_s, now_s):
            sums.add(candidate, baseline)
        paired = self._paired(question, start_s, now_s)
        alarms, alone = self._alarms(question)
        evidence = ArmsEvidence(
            comparisons=sums.comparisons(self._settings, paired),
            rows=(sums.rows[0], sums.rows[1]),
            minutes=sums.minutes,
            pairs=max((p.rows for p in paired.values()), default=0.0),
            coverage=(
                self._coverage(self._keys(question, question.candidate), start_s, now_s),
                self._coverage(self._keys(question, question.baseline), start_s, now_s),
            ),
            alarms=alarms,
            alone=alone,
            start_s=start_s,
            end_s=now_s,
        )
        return verdict(question, evidence, self._settings)

    def funnel(
        self, question: Question, now_s: float, points: int = 120
    ) -> list[tuple[float, tuple[Comparison, ...]]]:
        """Return how the comparisons narrowed: (end of a minute, every comparison as of then).

        Args:
            question: who.
            now_s: wall clock.
            points: at most so many, spread over the minutes evenly, the last among them.
        """
        start_s = max(now_s - self._settings.lookback, question.since_s)
        minutes = list(self._minutes(question, start_s, now_s))
        step = -(-len(minutes) // max(points, 1)) or 1
        sums, found = Concurrent(), []
        for i, (at_s, candidate, baseline) in enumerate(minutes, 1):
            sums.add(candidate, baseline)
            if i % step == 0 or i == len(minutes):
                end_s = at_s + PANE_S
                paired = self._paired(question, start_s, end_s)
                found.append((end_s, sums.comparisons(self._settings, paired)))
        return found

    def _minutes(
        self, question: Question, start_s: float, end_s: float
    ) -> Iterator[tuple[float, Pane, Pane]]:
        """Give the minutes that both served, in order."""
        candidate, baseline = (
            self._by_minute(self._keys(question, name), start_s, end_s)
            for name in (question.candidate, question.baseline)
        )
        for at_s in sorted(candidate.keys() & baseline.keys()):
            yield at_s, candidate[at_s], baseline[at_s]

    def _by_minute(self, keys: list[StreamKey], start_s: float, end_s: float) -> dict[float, Pane]:
        found: dict[float, Pane] = {}
        for key in keys:
            for at_s, pane in self._panes.minutes(key, start_s, end_s):
                before = found.get(at_s)
                if before is None:
                    found[at_s] = pane
                elif before.layout.id == pane.layout.id:
                    total = Pane(pane.layout)
                    total.merge(before)
                    total.merge(pane)
                    found[at_s] = total
        return found

    def _keys(self, question: Question, name: str) -> list[StreamKey]:
        """Return the streams of an arm or version, newest version first."""
        version = question.versions.get(name)
        found = [
            key
            for key in self._panes.keys()  # noqa: SIM118 - not a dictionary
            if key.model == question.model
            and key.segment == ALL
            and name in (key.arm, str(key.version))
            and version in (None, key.version)
        ]
        return sorted(found, key=lambda key: -key.version)

    def _coverage(self, keys: list[StreamKey], start_s: float, end_s: float) -> float:
        """Return the least of the streams' ratios; 1 where there are none."""
        found = {(key.model, key.version, key.arm) for key in keys}
        return min((self._panes.coverage(*key, start_s, end_s).ratio for key in found), default=1.0)

    def _paired(self, question: Question, start_s: float, end_s: float) -> dict[str, Paired]:
        arms = {"candidate": question.candidate, "baseline": question.baseline}
        return self.pairs.paired(matching(self.pairs.keys(), question.model, arms), start_s, end_s)

    def _alarms(self, question: Question) -> tuple[tuple[Alarm, ...], tuple[Alarm, ...]]:
        """Return alarms of drift of the candidate, and those of them that are its alone."""
        standing = [a for a in self._ledger.standing(question.model) if a.kind in ("drift", "quality")]
        ours, theirs = (set(self._keys(question, name)) for name in (question.candidate, question.baseline))
        mine = tuple(a for a in standing if a.key._replace(segment=ALL) in ours and a.severity == "page")
        shared = {(a.kind, a.subject) for a in standing if a.key._replace(segment=ALL) in theirs}
        return mine, tuple(a for a in mine if (a.kind, a.subject) not in shared)

    def create(self, database: sqlite3.Connection) -> None:
        """Create the tables."""
        self.pairs.create(database)

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the pairs."""
        self.pairs.restore(database)

    def apply(self, applied: Applied) -> None:
        """Join mirrored rows with the rows that they copy."""
        self.pairs.add(applied.rows, applied.received_s)

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what changed."""
        self.pairs.flush(database)

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again."""
        self.pairs.rolled_back()

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Forget pairs that no verdict looks back to."""
        self.pairs.expire(database, now_s - 2 * self._settings.lookback)

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:
        """Forget rows of these subjects that wait for their other half."""
        gone = self.pairs.erase(subject_hashes)
        self.pairs.flush(database)
        return gone
