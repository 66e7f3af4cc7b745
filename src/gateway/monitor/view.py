"""What pages, API and reports ask, answered by the parts on the engine's thread."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.core.errors import NotFound, Unavailable
from gateway.monitor import view_arms, view_distribution, view_performance, view_pipeline, view_streams
from gateway.monitor.arms.verdict import Question
from gateway.monitor.labels.label import Label, Parsed, Refused, checked
from gateway.monitor.pages.shown import AlarmsShown, HealthShown, LabelsTaken
from gateway.monitor.store.errors import StoreError
from gateway.monitor.values import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.monitor.engine import Engine
    from gateway.monitor.pages.shown import (
        ArmsShown,
        CoverageShown,
        Distribution,
        ModelShown,
        PerformanceShown,
        Period,
        PipelineShown,
        PostedLabel,
        ScoreQuery,
        Selection,
    )
    from gateway.monitor.parts import Parts
    from gateway.monitor.values import ArmVerdict, Score

T = TypeVar("T")

MAX_ALARMS: Final = 1000
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A `MonitorView` of a running monitor.

    Attributes:
        engine: that runs the parts.
        parts: read on its thread.
        hash_subject: keyed hash of a subject's name; None: there is no key.
        connected: names of producers whose stream is open.
        wall_s: wall clock.
    """

    engine: Engine
    parts: Parts
    hash_subject: Callable[[str], int] | None = None
    connected: Callable[[], Collection[str]] = field(default=tuple)
    wall_s: Callable[[], float] = time.time

    def now_s(self) -> float:
        """Return the wall clock."""
        return self.wall_s()

    async def health(self) -> HealthShown:
        """Say whether the monitor works."""
        status = self.engine.status()
        checkpoint_s = self.wall_s() - status.checkpoint_age_s
        return HealthShown(ready=not status.stuck, reason=status.failure, checkpoint_s=checkpoint_s)

    async def models(self) -> Sequence[ModelShown]:
        """Return every model by name."""
        return await self._ask(partial(view_streams.models, self.parts, self.wall_s()))

    async def model(self, model: str) -> ModelShown:
        """Return one model with its signals."""
        return await self._ask(partial(view_streams.model, self.parts, model, self.wall_s()))

    async def scores(self, query: ScoreQuery) -> Sequence[Score]:
        """Return scores, the earliest first."""
        return await self._ask(partial(_scores, self.parts, query))

    async def coverage(self, selection: Selection, period: Period) -> CoverageShown:
        """Return coverage over a period."""
        return await self._ask(partial(view_distribution.coverage, self.parts, selection, period))

    async def distribution(self, selection: Selection, signal: str, period: Period) -> Distribution:
        """Return one signal over a period."""
        return await self._ask(partial(view_distribution.distribution, self.parts, selection, signal, period))

    async def performance(self, selection: Selection, period: Period) -> PerformanceShown:
        """Return realised and estimated performance."""
        return await self._ask(partial(view_performance.performance, self.parts, selection, period))

    async def arms(self, model: str, candidate: str, baseline: str) -> ArmsShown:
        """Return one arm against another."""
        asked = Question(model, candidate, baseline)
        return await self._ask(partial(view_arms.arms, self.parts, asked, self.wall_s()))

    async def verdict(self, question: Question) -> ArmVerdict:
        """Return what a rollout's gate is told."""
        return await self._ask(lambda: self.parts.arms.verdict(question, self.wall_s()))

    async def alarms(self, period: Period, model: str = "") -> AlarmsShown:
        """Return the ledger of a period."""
        return await self._ask(partial(_alarms, self.parts, period, model))

    async def pipeline(self) -> PipelineShown:
        """Return how the log gets here."""
        status, connected = self.engine.status(), frozenset(self.connected())
        return await self._ask(lambda: view_pipeline.pipeline(self.parts, status, connected, self.wall_s()))

    async def post_labels(self, model: str, labels: Sequence[PostedLabel]) -> LabelsTaken:
        """Join labels of one model; durable when it returns."""
        parsed = parsed_labels(model, labels)
        reply = await self._ask(lambda: self.parts.performance.post(parsed, self.wall_s()))
        await self._durable()
        listed = Counter(refused.why.value for refused in reply.refused)
        if more := reply.refused_total - listed.total():
            listed["more"] = more
        return LabelsTaken(
            joined=reply.joined + reply.revised,
            waiting=reply.waiting,
            unchanged=reply.duplicates,
            refused=reply.refused_total,
            reasons=dict(listed),
        )

    async def erase_subject(self, subject: str) -> int:
        """Delete every record of one subject, durably."""
        if self.hash_subject is None:
            raise NotFound("subjects are not known here: the monitor's configuration has no subject_key")
        hashed = self.hash_subject(subject)
        try:
            waiting = await self.engine.call(lambda: self.parts.performance.forget_id(subject.encode()))
            return waiting + await self.engine.erase(frozenset((hashed,)))
        except StoreError as exc:
            raise Unavailable(str(exc)) from exc

    async def _ask(self, work: Callable[[], T]) -> T:
        try:
            return await self.engine.call(work)
        except StoreError as exc:
            raise Unavailable(str(exc)) from exc

    async def _durable(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.engine.checkpoint)
        except StoreError as exc:
            raise Unavailable(f"the labels are not durable yet, post them again: {exc}") from exc


def parsed_labels(model: str, labels: Sequence[PostedLabel]) -> Parsed:
    """Return posted labels as the performance part takes them, unusable ones refused."""
    taken: list[tuple[int, Label]] = []
    refused: list[Refused] = []
    for index, posted in enumerate(labels):
        label = Label(
            id=posted.key.encode(errors="surrogatepass"),
            row=posted.row,
            value=posted.label,
            at_ns=0 if posted.at_s is None else int(posted.at_s * 1e9),
            source=posted.source,
            revision=posted.revision,
            weight=posted.weight,
        )
        why = checked(label)
        if why is None:
            taken.append((index, label))
        else:
            refused.append(Refused(index, why))
    return Parsed(model, tuple(taken), tuple(refused))


def _scores(parts: Parts, query: ScoreQuery) -> list[Score]:
    period = query.period
    if query.selection is None:
        streams = [view_streams.live_key(parts, name, period) for name in view_streams.names(parts)]
    else:
        streams = [view_streams.resolved(parts, query.selection, period)]
    found: list[Score] = []
    for key in streams:
        found += parts.detection.scores(
            key.model,
            version=key.version,
            arm=key.arm,
            segment=None if query.every_segment else (key.segment if query.selection else ALL),
            signal=query.signal or None,
            window=query.window,
            since_s=period.start_s,
            until_s=period.end_s,
            limit=query.most,
        )
    if query.search:
        wanted = query.search.lower()
        found = [score for score in found if wanted in score.signal.lower()]
    return sorted(found, key=lambda score: score.end_s)[-query.most :]


def _alarms(parts: Parts, period: Period, model: str) -> AlarmsShown:
    if model:
        view_streams.keys_of(parts, model)
    since = parts.detection.alarms(model or None, since_s=period.start_s, limit=10 * MAX_ALARMS)
    alarms = [alarm for alarm in since if alarm.raised_s <= period.end_s]
    settings = parts.config.detection
    days = (period.end_s - period.start_s) / _DAY_S
    watched = 1 if model else max(1, len(view_streams.names(parts)))
    return AlarmsShown(
        period=period,
        alarms=alarms[:MAX_ALARMS],
        raised=sum(alarm.raised_s >= period.start_s for alarm in alarms),
        expected_false=settings.false_pages * days / settings.horizon_days * watched,
        budget=f"at most {settings.false_pages:g} false page per model in {settings.horizon_days:g} days",
    )
