"""The monitor's Prometheus metrics: read from its parts when scraped, so that nothing is counted twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.monitor.values import ALL, PANE_S, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.monitor.engine import EngineStatus
    from gateway.monitor.parts import Parts
    from gateway.monitor.performance.results import Estimated, Realised
    from gateway.monitor.values import Score, StreamKey

    Values = Mapping[tuple[str, ...], float]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_SCORES: Final = 400
"""Scores of a model and window on the page: those that are furthest above their thresholds."""
COVERAGE_S: Final = 5 * PANE_S

_STREAM: Final = ("model", "version", "arm")
_SCORE: Final = (*_STREAM, "window", "signal", "statistic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a scrape shows: label values -> value.

    Attributes:
        rows: applied, by stream.
        coverage: of the last minutes, by stream.
        scores: newest, by stream, window, signal and statistic, as a share of the threshold.
        drifted: signals called drifted in the newest window, by stream and window.
        alarms: that stand, by model, kind and severity.
        raised: alarms by the drift tests within the horizon, by model and window.
        expected: how many of these chance alone may raise, likewise.
        performance: of the newest judged window, by stream, metric and kind.
        dropped: rows that producers dropped, by reason.
        labels: posted, by what became of them.
        notices: by receiver and outcome.
        gauges: single figures by name.
        events: counted by the parts, by part and event.
        missing_profiles: versions that rows came from and no profile is there for.
    """

    rows: Values
    coverage: Values
    scores: Values
    drifted: Values
    alarms: Values
    raised: Values
    expected: Values
    performance: Values
    dropped: Values
    labels: Values
    notices: Values
    gauges: Mapping[str, float]
    events: Values
    missing_profiles: float = 0.0


def snapshot(
    parts: Parts,
    status: EngineStatus,
    latest: Iterable[tuple[str, Realised | Estimated]],
    now_s: float,
) -> Snapshot:
    """Read everything at one moment; on the engine's thread.

    Args:
        parts: of the monitor.
        status: of its engine.
        latest: `realised` or `estimated` and the newest results of each stream.
        now_s: wall clock, seconds since the epoch.
    """
    newest = [score for score in parts.detection.newest() if score.key.segment == ALL]
    models = {key.model for key in parts.panes.keys()}  # noqa: SIM118 - no dictionary
    spent = [(name, spent) for name in sorted(models) for spent in parts.detection.spent(name)]
    course = parts.pipeline.course
    dropped = Counter[tuple[str, ...]]()
    for producer in parts.pipeline.producers.values():
        for reason, rows in producer.dropped.items():
            dropped[reason,] += rows
    counts = parts.performance.counts()
    return Snapshot(
        rows={
            (model, str(version), arm): rows for (model, version, arm), rows in parts.pipeline.rows.items()
        },
        coverage=_coverage(parts, now_s),
        scores=dict(_scores(newest)),
        drifted=_drifted(newest),
        alarms=Counter((a.key.model, a.kind, a.severity) for a in parts.detection.ledger.standing()),
        raised={(name, one.window): one.raised for name, one in spent},
        expected={(name, one.window): one.expected_raised for name, one in spent},
        performance=dict(_performance(latest)),
        dropped=dropped,
        labels={(n.removeprefix("labels_"),): v for n, v in counts.items() if n.startswith("labels_")},
        notices=_notices(parts),
        gauges={
            "inbox_bytes": status.inbox_bytes,
            "inbox_limit_bytes": status.inbox_limit,
            "checkpoint_age_seconds": status.checkpoint_age_s,
            "checkpoint_seconds": status.checkpoint_s,
            "lag_seconds": course[-1].lag_p99_s() if course else float("nan"),
            "healthy": float(not status.failure),
        },
        events=_events(parts, status),
        missing_profiles=float(len({key[:3] for key in parts.detection.without_reference()})),
    )


def _stream(key: StreamKey) -> tuple[str, str, str]:
    return (key.model, str(key.version), key.arm)


def _coverage(parts: Parts, now_s: float) -> Values:
    found: dict[tuple[str, ...], float] = {}
    for key in parts.panes.keys():  # noqa: SIM118 - no dictionary
        if key.segment == ALL:
            one = parts.panes.coverage(key.model, key.version, key.arm, now_s - COVERAGE_S, now_s)
            if one.produced:
                found[_stream(key)] = one.ratio
    return found


def _scores(newest: Sequence[Score]) -> Iterable[tuple[tuple[str, ...], float]]:
    by_place: dict[tuple[str, ...], list[tuple[float, Score]]] = {}
    for score in newest:
        if score.finding in {Finding.OK, Finding.DRIFT} and score.threshold > 0:
            share = score.value / score.threshold
            by_place.setdefault((score.key.model, score.window), []).append((share, score))
    for found in by_place.values():
        for share, score in sorted(found, key=lambda pair: -pair[0])[:MAX_SCORES]:
            yield (*_stream(score.key), score.window, score.signal, score.statistic), share


def _drifted(newest: Sequence[Score]) -> Values:
    signals = {(*_stream(s.key), s.window): set[str]() for s in newest}
    for score in newest:
        if score.finding is Finding.DRIFT:
            signals[*_stream(score.key), score.window].add(score.signal)
    return {place: float(len(names)) for place, names in signals.items()}


def _performance(
    latest: Iterable[tuple[str, Realised | Estimated]],
) -> Iterable[tuple[tuple[str, ...], float]]:
    for kind, one in latest:
        for name, metric in one.metrics.items():
            yield (*_stream(one.key), name, kind), metric.value


def _notices(parts: Parts) -> Values:
    found: dict[tuple[str, ...], float] = {}
    for name, sender in parts.alerts.webhooks.items():
        found[name, "sent"], found[name, "failed"] = sender.sent, sender.failed
    for index, (_, manager) in enumerate(parts.alerts.alertmanagers):
        found[f"alertmanager-{index}", "sent"] = manager.sent
        found[f"alertmanager-{index}", "failed"] = manager.failed
    for why, count in parts.alerts.book.held_back.items():
        found["", f"held_back_{why}"] = count
    return found


def _events(parts: Parts, status: EngineStatus) -> Values:
    sources = (("engine", status.counters), ("panes", parts.panes.counters()))
    performance = {n: v for n, v in parts.performance.counts().items() if not n.startswith("labels_")}
    return {
        (part, name): float(value)
        for part, counters in (*sources, ("performance", performance))
        for name, value in counters.items()
    }


class MonitorMetrics(Collector):
    """Renders snapshots as a page."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, found: Snapshot) -> bytes:
        """Return the page of a snapshot."""
        self._snapshot = found
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; called by the registry."""
        found = self._snapshot
        if found is None:
            return
        yield _counter("rows", "Rows in the monitor's state, since its start.", _STREAM, found.rows)
        yield _gauge(
            "coverage_ratio", "Share of served rows that arrived, last minutes.", _STREAM, found.coverage
        )
        yield _gauge(
            "score_ratio", "Newest score over its threshold; drift is beyond 1.", _SCORE, found.scores
        )
        yield _gauge(
            "drifted_signals", "Signals drifted in the newest window.", (*_STREAM, "window"), found.drifted
        )
        yield _gauge("alarms", "Alarms that stand.", ("model", "kind", "severity"), found.alarms)
        yield _gauge(
            "drift_alarms_raised", "Drift alarms within the horizon.", ("model", "window"), found.raised
        )
        yield _gauge(
            "drift_alarms_expected",
            "Drift alarms that chance alone may raise in as many tests.",
            ("model", "window"),
            found.expected,
        )
        yield _gauge(
            "performance", "Metric of the newest window.", (*_STREAM, "metric", "kind"), found.performance
        )
        yield _counter("dropped_rows", "Rows that gateways dropped.", ("reason",), found.dropped)
        yield _counter("labels", "Labels posted.", ("outcome",), found.labels)
        yield _counter("notices", "Alerts told, or held back.", ("receiver", "outcome"), found.notices)
        yield _gauge(
            "versions_without_profile", "Versions seen without a profile.", (), {(): found.missing_profiles}
        )
        for name, value in found.gauges.items():
            yield _gauge(name, _GAUGES[name], (), {(): value})
        yield _gauge("events", "What a part counted, or its size.", ("part", "event"), found.events)


_GAUGES: Final = {
    "inbox_bytes": "Frames that wait to be applied.",
    "inbox_limit_bytes": "How much may wait.",
    "checkpoint_age_seconds": "Time since the last checkpoint.",
    "checkpoint_seconds": "How long it took.",
    "lag_seconds": "99th percentile of the age of rows when they came, this minute.",
    "healthy": "1 while checkpoints succeed.",
}


def _gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(f"gateway_monitor_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(f"gateway_monitor_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
