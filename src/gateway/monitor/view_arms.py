"""One arm against another. Engine thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.pages.shown import ArmMetric, ArmSignal, ArmsShown
from gateway.monitor.values import ALL
from gateway.monitor.view_streams import keys_of
from gateway.predlog.rows import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.monitor.arms.evidence import Comparison
    from gateway.monitor.arms.verdict import Question
    from gateway.monitor.panes.pane import Pane
    from gateway.monitor.parts import Parts
    from gateway.monitor.values import StreamKey

MAX_SIGNALS: Final = 12
MAX_METRICS: Final = 12


def arms(parts: Parts, question: Question, now_s: float) -> ArmsShown:
    """Return the verdict with what it rests on.

    Raises:
        NotFound: nobody knows the model.
    """
    keys = keys_of(parts, question.model)
    since_s = question.since_s or now_s - parts.config.arms.lookback
    return ArmsShown(
        verdict=parts.arms.verdict(question, now_s),
        metrics=list(_metrics(parts.arms.funnel(question, now_s))),
        signals=_signals(parts, keys, question, (since_s, now_s)),
    )


def _metrics(funnel: Sequence[tuple[float, Sequence[Comparison]]]) -> Iterator[ArmMetric]:
    looks: dict[str, list[tuple[float, Comparison]]] = {}
    for end_s, comparisons in funnel:
        for one in comparisons:
            looks.setdefault(one.name, []).append((end_s, one))
    worst = sorted(looks.values(), key=lambda found: -abs(found[-1][1].difference or 0.0))
    for found in worst[:MAX_METRICS]:
        last = found[-1][1]
        yield ArmMetric(
            metric=last.name,
            ends_s=[end_s for end_s, _ in found],
            difference=[one.difference for _, one in found],
            low=[one.low for _, one in found],
            high=[one.high for _, one in found],
            harm="either" if last.both_ways else "above",
            margin=last.margin,
            pairs=last.rows,
            paired=last.paired,
        )


def _signals(
    parts: Parts, keys: Sequence[StreamKey], question: Question, period: tuple[float, float]
) -> list[ArmSignal]:
    candidate = _pane(parts, keys, question.candidate, period)
    baseline = _pane(parts, keys, question.baseline, period)
    if candidate is None or baseline is None:
        return []
    found: list[tuple[float, ArmSignal]] = []
    for index, signal in enumerate(baseline.layout.numeric):
        other = candidate.layout.numeric_index.get(signal.name)
        if signal.role is not Role.OUTPUT or other is None or not len(signal.edges):
            continue
        if not np.array_equal(candidate.layout.numeric[other].edges, signal.edges):
            continue
        bins = len(signal.edges) + 1
        shares = [_shares(candidate.counts[other, :bins]), _shares(baseline.counts[index, :bins])]
        extremes = np.stack([candidate.extremes[:, other], baseline.extremes[:, index]])
        shown = ArmSignal(
            signal=signal.name,
            edges=signal.edges.tolist(),
            least=float(min(extremes[:, 0].min(), signal.edges[0])),
            most=float(max(extremes[:, 1].max(), signal.edges[-1])),
            candidate=shares[0].tolist(),
            baseline=shares[1].tolist(),
        )
        found.append((float(np.abs(np.cumsum(shares[0] - shares[1])).max()), shown))
    return [shown for _, shown in sorted(found, key=lambda pair: -pair[0])[:MAX_SIGNALS]]


def _pane(parts: Parts, keys: Sequence[StreamKey], who: str, period: tuple[float, float]) -> Pane | None:
    own = [key for key in keys if key.segment == ALL and who in {key.arm, str(key.version)}]
    panes = [parts.panes.window(key, *period) for key in own]
    return max(panes, key=lambda pane: pane.weight, default=None)


def _shares(
    counts: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    total = float(counts.sum())
    return counts / total if total > 0 else np.zeros(len(counts))
