"""A MonitorView of made-up but plausible traffic: a credit model that drifts in its last nine hours."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import NotFound
from gateway.monitor.arms.verdict import Question
from gateway.monitor.pages import shown
from gateway.monitor.values import WINDOWS_S, Alarm, ArmVerdict, Coverage, Finding, Marker, Score, StreamKey

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_S: Final = 1_800_000_000.0
DRIFTS_S: Final = NOW_S - 9 * 3600
CREDIT: Final = "credit-risk"
NUMERIC: Final = ("income", "loan_amount", "age", "tenure_months", "debt_ratio", "balance", "score[1]")
CATEGORIES: Final = ("purpose", "region")
DRIFTING: Final = {"income": 3.4, "purpose": 2.2, "score[1]": 1.6, "inputs": 1.9}
SEGMENTS: Final = ("region=north", "region=south", "region=west")
_NAN: Final = math.nan


@dataclass
class FakeView:
    """Everything is computed from NOW_S and a seed; counters and labels are what the test sets and gets.

    Attributes:
        now: the clock.
        wide: that many further signals, without drift.
        names: models; the first one drifts.
        posted: labels that were taken, by model.
        erased: subjects.
        ready: of health.
        standing: drift is going on: an alarm stands.
    """

    now: float = NOW_S
    wide: int = 0
    names: tuple[str, ...] = (CREDIT, "digits", "fraud-score")
    posted: list[tuple[str, shown.PostedLabel]] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    ready: bool = True
    standing: bool = True
    purposes: tuple[str, ...] = ("car", "house", "education", "renovation", "medical", "other debt")

    def now_s(self) -> float:
        return self.now

    async def health(self) -> shown.HealthShown:
        reason = "" if self.ready else "the state is being restored"
        return shown.HealthShown(ready=self.ready, reason=reason, checkpoint_s=self.now - 3)

    async def models(self) -> Sequence[shown.ModelShown]:
        return [self._model(name) for name in self.names]

    async def model(self, model: str) -> shown.ModelShown:
        self._known(model)
        signals = [shown.SignalShown(name=n, role="input", kind="numeric") for n in self._numeric()]
        signals += [shown.SignalShown(name=n, role="input", kind="category") for n in CATEGORIES]
        signals.append(shown.SignalShown(name="inputs", role="input", kind="embedding"))
        return self._model(model, tuple(signals))

    async def scores(self, query: shown.ScoreQuery) -> Sequence[Score]:
        models = [query.selection.model] if query.selection else self.names
        segments = (
            ("", *SEGMENTS) if query.every_segment else (query.selection.segment if query.selection else "",)
        )
        found = [
            score
            for model in models
            for segment in segments
            for signal in (*self._numeric(), *CATEGORIES, "inputs")
            if query.signal in {"", signal} and query.search.lower() in signal.lower()
            for score in self._scores(StreamKey(self._known(model), 7, "c0ffee", "", segment), signal, query)
        ]
        return sorted(found, key=lambda score: score.end_s)[-query.most :]

    async def coverage(self, selection: shown.Selection, period: shown.Period) -> shown.CoverageShown:
        self._known(selection.model)
        starts, step_s = self._steps(period, 96)
        ratio = np.ones(len(starts))
        ratio[len(starts) // 3 : len(starts) // 3 + 3] = (0.97, 0.81, 0.93)
        marker = Marker(NOW_S - 14 * 3600, selection.model, "version 7 appeared")
        inside = (marker,) if period.start_s <= marker.at_s < period.end_s else ()
        rows = (4000 + 1500 * np.sin(np.arange(len(starts)) / 12)).round()
        return shown.CoverageShown(
            starts_s=starts, step_s=step_s, ratio=ratio.tolist(), rows=rows.tolist(), markers=inside
        )

    async def distribution(
        self, selection: shown.Selection, signal: str, period: shown.Period
    ) -> shown.Distribution:
        self._known(selection.model)
        starts, step_s = self._steps(period, 96)
        late = np.array(starts) >= DRIFTS_S
        rng = np.random.default_rng(5)
        drifts = signal in DRIFTING and selection.model == self.names[0]
        common = {
            "selection": selection, "signal": signal, "period": period, "rows": 61_234.0,
            "reference_rows": 50_000.0,
            "starts_s": starts, "step_s": step_s,
            "missing": (0.01 + 0.002 * rng.random(len(starts)) + 0.05 * late * drifts).tolist(),
            "invalid": (0.0005 * rng.random(len(starts))).tolist(), "reference_missing": 0.012,
        }  # fmt: skip
        if signal in CATEGORIES:
            novel = (0.04 * late * drifts).tolist()
            return shown.Distribution(**common, novel=novel, category=self._category(late & drifts))
        if signal == "inputs":
            return shown.Distribution(**common, embedding=self._embedding(late))
        if signal not in self._numeric():
            raise NotFound(f"nobody knows a signal '{signal}' of model '{selection.model}'")
        tails = {"below": [0.001] * len(starts), "above": (0.001 + 0.03 * late * drifts).tolist()}
        return shown.Distribution(**common, **tails, numeric=self._number(late & drifts))

    async def performance(self, selection: shown.Selection, period: shown.Period) -> shown.PerformanceShown:
        self._known(selection.model)
        starts, step_s = self._steps(period, 28)
        metrics = [
            self._metric(name, kind, starts, step_s, base)
            for name, base in (("roc_auc", 0.971), ("f1", 0.943))
            for kind in ("estimated", "realised")
        ]
        x = np.linspace(0.05, 0.95, 10)
        seen = np.clip(x + 0.06 * np.sin(3 * x), 0, 1)
        segments = tuple(
            shown.SegmentEffect(segment=s, metric="roc_auc", value=v, low=v - w, high=v + w, rows=900 / w)
            for s, v, w in (
                ("", 0.966, 0.002),
                *zip(SEGMENTS, (0.971, 0.949, 0.968), (0.005, 0.009, 0.006), strict=True),
            )
        )
        return shown.PerformanceShown(
            selection=selection,
            period=period,
            metrics=metrics,
            scores=self._number(np.array([True])),
            reliability=shown.Reliability(
                predicted=x.tolist(), observed=seen.tolist(), low=(seen - 0.03).tolist(),
                high=(seen + 0.03).tolist(), rows=(1000 * (1.2 - x)).tolist(), error=0.031,
            ),
            segments=segments,
            fairness=(
                shown.FairnessGap(
                    metric="selection_rate", group="gender=f", against="gender=m", gap=-0.031, low=-0.048,
                    high=-0.014, most=0.05, rows=8000,
                ),
            ),
            labels=31_207,
            labels_late_s=5400.0,
        )  # fmt: skip

    async def arms(self, model: str, candidate: str, baseline: str) -> shown.ArmsShown:
        verdict = await self.verdict(Question(model, candidate, baseline))
        n = np.arange(1, 61)
        ends = (self.now - 3600 + 60 * n).tolist()
        width = 0.25 / np.sqrt(n)
        metrics = [
            shown.ArmMetric(
                metric=name, ends_s=ends, difference=(value + 0.05 * np.sin(n) / n).tolist(),
                low=(value - width).tolist(), high=(value + width).tolist(), harm=harm, margin=margin,
                pairs=48_210, paired=paired,
            )
            for name, value, harm, margin, paired in (
                ("score", 0.061, "either", 0.02, True), ("errors", 0.0004, "above", 0.005, False),
            )
        ]  # fmt: skip
        number = self._number(np.array([True]))
        signal = shown.ArmSignal(
            signal="score[1]", edges=number.edges, least=number.least, most=number.most,
            candidate=number.current, baseline=number.reference, reference=number.reference,
        )  # fmt: skip
        return shown.ArmsShown(verdict=verdict, metrics=metrics, signals=(signal,))

    async def verdict(self, question: Question) -> ArmVerdict:
        self._known(question.model)
        reason = (
            "score differs by 0.061 (95 % at all looks 0.029 to 0.093), more than the 0.02 that is tolerated"
        )
        return ArmVerdict(
            model=question.model, candidate=question.candidate, baseline=question.baseline,
            verdict="fail", reason=reason, coverage=0.998,
            evidence={"score": {"difference": 0.061, "low": 0.029, "high": 0.093}},
        )  # fmt: skip

    async def alarms(self, period: shown.Period, model: str = "") -> shown.AlarmsShown:
        if model:
            self._known(model)
        key = StreamKey(self.names[0], 7, "c0ffee")
        cleared = None if self.standing else self.now - 60
        alarms = [
            Alarm(
                id="a2", key=key, kind="drift", subject="income", severity="page", raised_s=DRIFTS_S + 3600,
                cleared_s=cleared, evidence={"psi": 0.41},
                summary="income has drifted: psi 0.41 over 0.12 in 2 windows of 1 h in a row, 8,412 rows",
            ),
            Alarm(
                id="a1", key=key, kind="estimated_performance", subject="roc_auc", severity="ticket",
                raised_s=DRIFTS_S - 86_400 * 3, cleared_s=DRIFTS_S - 86_400 * 3 + 7200, evidence={},
                summary="estimated roc_auc 0.941 is under 0.953",
            ),
        ]  # fmt: skip
        return shown.AlarmsShown(
            period=period,
            alarms=[a for a in alarms if model in {"", a.key.model}],
            raised=2,
            expected_false=0.33,
            budget="at most 1 false page per model in 90 days",
        )

    async def pipeline(self) -> shown.PipelineShown:
        starts, step_s = self._steps(shown.Period(self.now - 3600, self.now), 60)
        wave = 2000 + 600 * np.sin(np.arange(60) / 9)
        on_way = {"in_flight": 512, "ring": 40, "spooled": 0}
        dropped = {"sampled": 8000, "ring_full": 0}
        one = shown.ProducerShown(
            producer="gateway-a",
            connected=True,
            produced=120_552,
            applied=112_000,
            dropped=dropped,
            outstanding=on_way,
            credit_bytes=8 << 20,
            spool_bytes=0,
            lag_s=0.21,
            last_s=self.now - 1,
        )
        two = shown.ProducerShown(
            producer="gateway-b", connected=False, produced=61_000, applied=51_000,
            dropped={"spool_full": 1000}, outstanding={"spooled": 9000}, spool_bytes=41 << 20, lag_s=31.0,
            last_s=self.now - 190, epochs=2,
        )  # fmt: skip
        return shown.PipelineShown(
            producers=(one, two), starts_s=starts, step_s=step_s, applied=(wave * step_s).tolist(),
            dropped={"sampled": (0.07 * wave * step_s).tolist(), "spool_full": ([0.0] * 50 + [1000.0] * 10)},
            lag_s=(0.2 + 0.05 * np.cos(np.arange(60) / 4)).tolist(), checkpoint_s=self.now - 3,
            state_bytes=212 << 20, state_limit_bytes=512 << 20,
            counters={"segments coarsened": 14, "bad frames": 2},
        )  # fmt: skip

    async def post_labels(self, model: str, labels: Sequence[shown.PostedLabel]) -> shown.LabelsTaken:
        self._known(model)
        self.posted += [(model, label) for label in labels]
        return shown.LabelsTaken(joined=len(labels), waiting=0, unchanged=0, refused=0)

    async def erase_subject(self, subject: str) -> int:
        self.erased.append(subject)
        return 3

    def _known(self, model: str) -> str:
        if model not in self.names:
            raise NotFound(f"no gateway has logged a prediction of model '{model}'")
        return model

    def _numeric(self) -> tuple[str, ...]:
        return (*NUMERIC, *(f"feature_{i:04d}" for i in range(self.wide)))

    def _model(self, name: str, signals: tuple[shown.SignalShown, ...] = ()) -> shown.ModelShown:
        bad = name == self.names[0]
        seven = shown.VersionShown(
            version=7, digest="c0ffee", arms=("", "stable", "canary"), segments=SEGMENTS, profile="ab12cd",
            profile_source="train.parquet", profile_rows=50_000, first_s=NOW_S - 14 * 3600, last_s=self.now,
        )  # fmt: skip
        six = shown.VersionShown(
            version=6, digest="deca", profile="ab12cd", first_s=NOW_S - 9e5, last_s=NOW_S - 9e4
        )
        return shown.ModelShown(
            model=name,
            rows=412_345.0 if bad else 98_000.0,
            coverage=Coverage(100_000, 99_800) if bad else Coverage(100_000, 93_000),
            standing=int(bad and self.standing),
            versions=(seven, six),
            signals=signals,
            task="binary",
        )

    def _scores(self, key: StreamKey, signal: str, query: shown.ScoreQuery) -> list[Score]:
        length = WINDOWS_S[query.window]
        first = math.ceil(query.period.start_s / length) * length
        statistics = (
            ("chi2", "js") if signal in CATEGORIES else ("mmd",) if signal == "inputs" else ("psi", "ks")
        )
        rng = np.random.default_rng(zlib.crc32(f"{key.model} {signal}".encode()))
        scores = []
        for start in np.arange(first, query.period.end_s - length, length):
            rise = DRIFTING.get(signal, 0.0) if key.model == self.names[0] and start >= DRIFTS_S else 0.0
            if key.segment == SEGMENTS[1]:
                rise *= 1.4
            elif key.segment == SEGMENTS[2]:
                rise *= 0.2
            for statistic in statistics:
                share = 0.1 + 0.5 * rng.random() + rise
                few = key.model == self.names[-1] and 4 <= (start // 3600) % 24 < 7
                finding = Finding.TOO_FEW if few else Finding.DRIFT if share > 1 else Finding.OK
                scores.append(
                    Score(
                        key=key, signal=signal, window=query.window, start_s=start, end_s=start + length,
                        statistic=statistic, value=0.12 * share, threshold=0.12,
                        p_value=1e-9 if share > 1 else 0.4, rows=4200.0,
                        reference_rows=50_000.0, finding=finding,
                    )
                )  # fmt: skip
        return scores

    def _steps(self, period: shown.Period, most: int) -> tuple[list[float], float]:
        step_s = max(60.0, (period.end_s - period.start_s) / most)
        return np.arange(period.start_s, period.end_s - step_s / 2, step_s).tolist(), step_s

    def _number(self, drifted: np.ndarray) -> shown.NumericShown:
        rng = np.random.default_rng(3)
        reference = rng.lognormal(3.5, 0.4, 40_000)
        current = reference[:20_000] * (1.25 if drifted.any() else 1.0) * rng.normal(1, 0.05, 20_000)
        percents = (5, 25, 50, 75, 95)
        edges = np.quantile(reference, np.linspace(0, 1, 65)[1:-1])
        before, after = np.percentile(reference, percents), np.percentile(current, percents)
        noise = rng.normal(1, 0.01, (len(drifted), 1))
        return shown.NumericShown(
            edges=edges.tolist(),
            reference=(np.bincount(np.searchsorted(edges, reference), minlength=64) / 40_000).tolist(),
            current=(np.bincount(np.searchsorted(edges, current), minlength=64) / 20_000).tolist(),
            least=float(min(reference.min(), current.min())),
            most=float(max(reference.max(), current.max())),
            error=0.02,
            percents=percents,
            reference_quantiles=before.tolist(),
            quantiles=(np.where(drifted[:, None], after, before) * noise).tolist(),
        )

    def _category(self, drifted: np.ndarray) -> shown.CategoryShown:
        reference = np.array([0.35, 0.25, 0.15, 0.1, 0.08, 0.05])
        after = np.array([0.2, 0.33, 0.16, 0.11, 0.09, 0.05])
        shares = np.where(drifted[:, None], after, reference)
        any_drift = bool(drifted.any())
        return shown.CategoryShown(
            values=self.purposes, reference=reference.tolist(),
            current=(after if any_drift else reference).tolist(), reference_other=0.02,
            current_other=0.06 if any_drift else 0.02, novel=0.04 if any_drift else 0.0,
            novel_values=(("crypto", 1840.0), ("boat", 610.0)) if any_drift else (), distinct=11.0,
            shares=shares.tolist(),
        )  # fmt: skip

    def _embedding(self, drifted: np.ndarray) -> shown.EmbeddingShown:
        rng = np.random.default_rng(11)
        path = rng.normal(0, 0.1, (len(drifted), 2)) + np.where(drifted[:, None], (1.4, 0.6), (0.0, 0.0))
        points = rng.normal(0, 1, (400, 2))
        return shown.EmbeddingShown(
            reference=[(float(x), float(y)) for x, y in points],
            current=[(float(x), float(y)) for x, y in path],
        )

    def _metric(
        self, name: str, kind: str, starts: Sequence[float], step_s: float, base: float
    ) -> shown.MetricShown:
        points = []
        for index, start in enumerate(starts):
            value = (
                base
                - (0.012 if start >= DRIFTS_S else 0.0)
                + 0.002 * math.sin(index * (2 if kind == "realised" else 1))
            )
            complete = 1.0 if kind == "estimated" else max(0.0, min(1.0, (len(starts) - index) / 6))
            if complete > 0.2:
                points.append(
                    shown.MetricPoint(
                        start_s=start, end_s=start + step_s, value=value, low=value - 0.004 / complete,
                        high=value + 0.004 / complete, rows=5000 * complete, completeness=complete,
                    )
                )  # fmt: skip
        return shown.MetricShown(
            metric=name, kind=kind, segment="", points=points, reference=base, least=base - 0.018, most=_NAN
        )
