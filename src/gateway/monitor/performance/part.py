"""The monitor's part that joins predictions with their labels and says how good a model is.

Sampled rows of versions whose profile names a task are kept in blocks of columns, in memory and, by each
checkpoint, in SQLite; labels are written beside them. So a checkpoint holds the join as of the positions that
it states: what is applied or posted after it is applied or posted again after a crash, and a label that is
there already changes nothing. Metrics are computed from the blocks and remembered until one of them changes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from gateway.monitor.labels.label import MAX_REFUSED, LabelReply, Refused, Why
from gateway.monitor.labels.waiting import Waiting
from gateway.monitor.performance import fairness as fair
from gateway.monitor.performance import judging
from gateway.monitor.performance.estimated import estimate
from gateway.monitor.performance.extract import AHEAD_S, extract
from gateway.monitor.performance.join import LATE_ROWS_S, Outcome, join, join_waiting
from gateway.monitor.performance.realised import realise
from gateway.monitor.performance.records import Records
from gateway.monitor.performance.remembered import Remembered
from gateway.monitor.performance.stored import Stored
from gateway.monitor.values import ALL, StreamKey
from gateway.predlog.spool.tombstones import Tombstones

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.config.monitor_labels import LabelSettings, PerformanceSettings
    from gateway.monitor.labels.label import Label, Parsed
    from gateway.monitor.performance.block import Selection
    from gateway.monitor.performance.results import Estimated, Fairness, Judgement, Realised
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import Applied

_OUTCOMES = {
    Outcome.CLASS: Why.CLASS,
    Outcome.STALE: Why.STALE,
    Outcome.CONFLICT: Why.CONFLICT,
    Outcome.ERASED: Why.ERASED,
}


class Profiles(Protocol):
    """Where the tasks come from: `monitor.profile.catalog.ProfileCatalog`."""

    def find(self, model: str, version: int, digest: str) -> Profile | None:
        """Return the profile of a version, or None."""


class Performance:
    """A `Part`. Every method runs on the engine's thread.

    Bounded by `records.rows` predictions and `waiting_rows` labels; what makes way is counted in `counts`.
    """

    name = "performance"

    def __init__(
        self,
        profiles: Profiles,
        settings: PerformanceSettings,
        labels: LabelSettings,
        tombstones: Tombstones | None = None,
    ) -> None:
        """Keep predictions of models whose profile names a task.

        Args:
            profiles: where tasks come from.
            settings: section `performance:`.
            labels: section `labels:`.
            tombstones: the engine's: labels of erased rows are refused by them.
        """
        self._tombstones = Tombstones() if tombstones is None else tombstones
        self._profiles = profiles
        self._settings = settings
        self._labels = labels
        self._records = Records(settings.records.rows)
        self._waiting = Waiting(labels.waiting_rows)
        self._stored = Stored()
        self._counts: Counter[str] = Counter()
        self._remembered = Remembered()
        self._now_s = 0.0

    # The seam.

    def create(self, database: sqlite3.Connection) -> None:
        """Create the part's tables where they do not exist."""
        self._stored.create(database)

    def restore(self, database: sqlite3.Connection) -> None:
        """Read blocks, labels and counters as of the last checkpoint."""
        self._counts = self._stored.restore(database, self._records, self._waiting)

    def apply(self, applied: Applied) -> None:
        """Keep the rows of a batch that a label can be about; join those whose label came first."""
        self._now_s = max(self._now_s, applied.received_s)
        rows = applied.rows
        profile = self._profiles.find(rows.model, rows.version, rows.digest)
        if profile is None or profile.task is None:
            self._counts["no_task"] += rows.rows
            return
        after_ns = int((applied.received_s + AHEAD_S) * 1e9)
        found = extract(rows, profile.task, profile.segments, after_ns)
        self._counts.update(found.skipped)
        for arm, part in found.arms:
            key = StreamKey(rows.model, rows.version, rows.digest, arm)
            self._counts["streams_evicted"] += self._records.make_room(key)
            for placed in self._records.append(key, profile.task, part):
                self._counts.update(join_waiting(self._waiting, *placed))
        self._counts["evicted"] += self._records.evict()

    def flush(self, database: sqlite3.Connection) -> None:
        """Write the blocks, labels and counters that have changed since the last checkpoint."""
        self._stored.flush(database, self._records, self._waiting, self._counts)

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Forget predictions with their labels, and labels that waited, past their time."""
        self._now_s = max(self._now_s, now_s)
        before_ns = int((now_s - self._settings.records.days * 86_400) * 1e9)
        self._counts["expired"] += self._records.expire(before_ns)
        self._counts["unmatched"] += self._waiting.expire(
            now_s - self._labels.waiting_time, now_s - LATE_ROWS_S
        )
        self.flush(database)

    def rolled_back(self) -> None:
        """What the last `flush` wrote is not in the database: the next one writes everything."""
        self._stored.repeat(self._records, self._waiting)

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:
        """Delete these subjects' predictions and labels; labels of theirs that come later are refused, too.

        Returns:
            How many predictions and waiting labels there were.
        """
        erased, keys = self._records.erase(subject_hashes)
        count = erased + self._waiting.erase(keys)
        self._tombstones.add_keys(keys)
        self._counts["erased"] += count
        self.flush(database)
        return count

    def forget_keys(self, model: str, keys: frozenset[bytes]) -> None:
        """Delete labels that wait for rows of a subject who was erased; those to come are refused."""
        places = {(model, key) for key in keys}
        if places:
            self._counts["erased"] += self._waiting.erase(places)
            self._tombstones.add_keys(places)

    def forget_id(self, key: bytes) -> int:
        """Delete labels of any model that wait under an id, that of a subject; return how many."""
        gone = self._waiting.erase({place[:2] for place, _ in self._waiting.items() if place[1] == key})
        self._counts["erased"] += gone
        return gone

    # Labels.

    def post(self, posted: Parsed, now_s: float) -> LabelReply:
        """Join labels with their predictions, or let them wait for them.

        Durable with the next checkpoint: who promises it to a client awaits one before the answer. To post
        the same again changes nothing.

        Args:
            posted: every label in it was checked (`labels.label.checked`).
            now_s: wall clock.
        """
        self._now_s = max(self._now_s, now_s)
        tally: Counter[Outcome] = Counter()
        refused = list(posted.refused)
        blocks = self._records.of_model(posted.model)
        outcomes = join(blocks, [label for _, label in posted.labels], now_s)
        for (index, label), (outcome, fresh) in zip(posted.labels, outcomes, strict=True):
            final = outcome
            if outcome is Outcome.ABSENT:
                final = self._absent(posted.model, label, now_s)
            elif outcome in {Outcome.JOINED, Outcome.REVISED}:
                self._waiting.remember(posted.model, label, now_s, fresh=fresh)
            tally[final] += 1
            why = _OUTCOMES.get(final)
            if why is not None:
                refused.append(Refused(index, why))
        for outcome, count in tally.items():
            self._counts[f"labels_{outcome.value}"] += count
        self._counts.update(f"refused_{each.why.value}" for each in refused)
        self._counts["waiting_dropped"] += self._waiting.trim()
        return _reply(tally, refused)

    def _absent(self, model: str, label: Label, now_s: float) -> Outcome:
        if self._tombstones.refuses_key(model, label.id):
            return Outcome.ERASED
        return self._waiting.add(model, label, now_s)

    # Answers.

    def keys(self) -> list[StreamKey]:
        """Return the streams of which predictions are kept, their segment ALL."""
        return self._records.keys()

    def segments(self, key: StreamKey) -> list[str]:
        """Return the segments of a stream, `column=value`."""
        return self._records.segments(key)

    def results(self, key: StreamKey, start_s: float, end_s: float) -> Realised | None:
        """Return performance by labels in [start, end); None if no prediction is kept for it."""
        return self._remembered.get(
            ("realised", key, start_s, end_s),
            self._records.generations(key, start_s, end_s),
            lambda: self._realised(key, start_s, end_s),
        )

    def timeline(self, key: StreamKey, start_s: float, end_s: float, window_s: float) -> list[Realised]:
        """Return `results` of each whole window in [start, end) for which predictions are kept."""
        windows = judging.windows(start_s, end_s, window_s)
        return [r for w in windows if (r := self.results(key, *w)) is not None]

    def estimated(self, key: StreamKey, start_s: float, end_s: float) -> Estimated | None:
        """Return performance estimated without labels in [start, end).

        None if no prediction is kept, the task has no classes or scores, or the profile no calibration.
        """
        return self._remembered.get(
            ("estimated", key, start_s, end_s),
            self._records.generations(key, start_s, end_s),
            lambda: self._estimated(key, start_s, end_s),
        )

    def estimated_timeline(
        self, key: StreamKey, start_s: float, end_s: float, window_s: float
    ) -> list[Estimated]:
        """Return `estimated` of each whole window in [start, end) for which predictions are kept."""
        windows = judging.windows(start_s, end_s, window_s)
        return [e for w in windows if (e := self.estimated(key, *w)) is not None]

    def fairness(self, key: StreamKey, column: str, start_s: float, end_s: float) -> Fairness | None:
        """Return how the groups of a segment column fare in [start, end); None if it is unknown."""
        options = fair.Options(self._settings.floor, self._settings.confidence)
        return self.fairness_at(key, column, (start_s, end_s), options)

    def fairness_at(
        self, key: StreamKey, column: str, window: tuple[float, float], options: fair.Options
    ) -> Fairness | None:
        """Return `fairness` with a floor and confidence of one's own."""
        return self._remembered.get(
            ("fairness", key, column, window, options),
            self._records.generations(key, *window),
            lambda: self._fairness(key, column, window, options),
        )

    def fairness_columns(self, model: str) -> tuple[str, ...]:
        """Return the segment columns whose groups are declared for a model."""
        return self._settings.fairness.get(model, ())

    def evaluate(self, now_s: float) -> list[Judgement]:
        """Judge the newest window of each stream that has enough labels, and the newest whole one without.

        Args:
            now_s: wall clock.

        Returns:
            Of each metric that the reference knows, and each declared gap: breached or not. The alarm ledger
            raises and clears by them.
        """
        found: list[Judgement] = []
        for key in self.keys():
            profile = self._profiles.find(key.model, key.version, key.digest)
            if profile is not None:
                found += judging.judge(self, key, profile, self._settings, now_s)
        return found

    def counts(self) -> Mapping[str, int]:
        """Return counters since the first start, and `records`, `waiting` as they are now."""
        return {**self._counts, "records": self._records.rows, "waiting": len(self._waiting)}

    def _select(self, key: StreamKey, start_s: float, end_s: float) -> Selection | None:
        return self._records.select(key, int(start_s * 1e9), int(end_s * 1e9))

    def _fairness(
        self, key: StreamKey, column: str, window: tuple[float, float], options: fair.Options
    ) -> Fairness | None:
        selection = self._select(key._replace(segment=ALL), *window)
        if selection is None or column not in selection.columns:
            return None
        return fair.fairness(key, column, window, selection, options)

    def _realised(self, key: StreamKey, start_s: float, end_s: float) -> Realised | None:
        selection = self._select(key, start_s, end_s)
        if selection is None:
            return None
        return realise(key, (start_s, end_s), selection, self._settings.confidence)

    def _estimated(self, key: StreamKey, start_s: float, end_s: float) -> Estimated | None:
        profile = self._profiles.find(key.model, key.version, key.digest)
        selection = self._select(key, start_s, end_s)
        if profile is None or selection is None:
            return None
        return estimate(key, (start_s, end_s), selection, profile, self._settings.confidence)


def _reply(tally: Counter[Outcome], refused: Sequence[Refused]) -> LabelReply:
    joined, waiting, revised = tally[Outcome.JOINED], tally[Outcome.WAITING], tally[Outcome.REVISED]
    duplicates = tally[Outcome.DUPLICATE]
    return LabelReply(
        accepted=joined + waiting + revised + duplicates,
        joined=joined,
        waiting=waiting,
        revised=revised,
        duplicates=duplicates,
        refused=_first(refused),
        refused_total=len(refused),
    )


def _first(refused: Iterable[Refused]) -> tuple[Refused, ...]:
    return tuple(sorted(refused, key=lambda each: each.index)[:MAX_REFUSED])
