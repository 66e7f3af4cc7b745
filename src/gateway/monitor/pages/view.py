"""The seam between what the monitor knows and who shows it: pages, the API and reports ask this and no more.

Methods run on the event loop and may wait for the engine's thread; each answers from one moment's state.
Every one raises NotFound for a model, version, arm, segment or signal that nobody knows, with a message that
names it, and NotReady before the state is restored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.arms.verdict import Question
    from gateway.monitor.pages.shown import (
        AlarmsShown,
        ArmsShown,
        CoverageShown,
        Distribution,
        HealthShown,
        LabelsTaken,
        ModelShown,
        PerformanceShown,
        Period,
        PipelineShown,
        PostedLabel,
        ScoreQuery,
        Selection,
    )
    from gateway.monitor.values import ArmVerdict, Score


class MonitorView(Protocol):
    """What the monitor knows. Values are frozen; whoever asks may keep them."""

    def now_s(self) -> float:
        """Return the wall clock, seconds since the epoch: what "now" means on a page."""

    async def health(self) -> HealthShown:
        """Say whether the monitor works; never raises."""

    async def models(self) -> Sequence[ModelShown]:
        """Return every model by name, at most 1000, without signals."""

    async def model(self, model: str) -> ModelShown:
        """Return one model with its signals."""

    async def scores(self, query: ScoreQuery) -> Sequence[Score]:
        """Return scores, the earliest first."""

    async def coverage(self, selection: Selection, period: Period) -> CoverageShown:
        """Return coverage over a period, in at most 500 steps, and what to mark."""

    async def distribution(self, selection: Selection, signal: str, period: Period) -> Distribution:
        """Return one signal over a period, in at most 200 steps."""

    async def performance(self, selection: Selection, period: Period) -> PerformanceShown:
        """Return realised and estimated performance over a period."""

    async def arms(self, model: str, candidate: str, baseline: str) -> ArmsShown:
        """Return one arm, or version number as text, against another."""

    async def verdict(self, question: Question) -> ArmVerdict:
        """Return what a rollout's gate is told; a pair without enough rows is `inconclusive`, no error."""

    async def alarms(self, period: Period, model: str = "") -> AlarmsShown:
        """Return the ledger of a period, of one model or, with an empty name, of all."""

    async def pipeline(self) -> PipelineShown:
        """Return how the log gets here."""

    async def post_labels(self, model: str, labels: Sequence[PostedLabel]) -> LabelsTaken:
        """Join labels of one model; durable when it returns.

        Raises:
            Overloaded: too many labels wait for their rows.
        """

    async def erase_subject(self, subject: str) -> int:
        """Delete every record of one subject, durably; return how many there were, perhaps none."""
