"""The prediction log: rows offered, dropped and delivered, the ring, the encoder, and every sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric


class TotalsView(Protocol):
    """The producer's books."""

    @property
    def offered(self) -> int:
        """Rows that the request path had."""

    @property
    def waiting(self) -> int:
        """Rows in the ring or with the encoder."""

    @property
    def framed(self) -> int:
        """Rows put into frames."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows that came into no frame, by reason."""


class LogView(Protocol):
    """The producer's side."""

    @property
    def totals(self) -> TotalsView:
        """Rows."""

    @property
    def ring_rows(self) -> int:
        """Rows in the ring."""

    @property
    def ring_bytes(self) -> int:
        """Bytes that they keep alive."""

    @property
    def encode_s(self) -> float:
        """Processor seconds of the encoder."""

    @property
    def framed_bytes(self) -> int:
        """Bytes of all frames."""


class LaneView(Protocol):
    """One sink."""

    @property
    def name(self) -> str:
        """The sink's name."""

    @property
    def connected(self) -> bool:
        """Whether it is open."""

    @property
    def applied(self) -> int:
        """Rows of this process that it acknowledged as durable."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows of this process that it could not keep, by reason."""

    @property
    def memory_rows(self) -> int:
        """Rows in memory, sent or not."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of those."""

    @property
    def spooled_rows(self) -> int:
        """Rows of this process on disk."""

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the spool's files."""

    @property
    def opens(self) -> int:
        """How often it was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionLogSources:
    """Where a scrape looks; every callable reads local state only and never waits for a disk.

    Attributes:
        log: the producer's side.
        produced: rows offered by (model, version, arm).
        lanes: the sinks as last seen.
    """

    log: Callable[[], LogView]
    produced: Callable[[], Mapping[tuple[str, int, str], int]]
    lanes: Callable[[], Sequence[LaneView]]


class PredictionLogMetrics(Collector):
    """Figures read from their owners when scraped."""

    def __init__(self, sources: PredictionLogSources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        yield from _producer(self._sources.log())
        produced = CounterMetricFamily(
            "gateway_prediction_log_produced_rows",
            "Rows that the prediction log was offered, sampled or not.",
            labels=["model", "version", "arm"],
        )
        for (model, version, arm), rows in self._sources.produced().items():
            produced.add_metric([model, str(version), arm], rows)
        yield produced
        yield from _lanes(self._sources.lanes())


def _producer(log: LogView) -> Iterable[Metric]:
    totals = log.totals
    rows = CounterMetricFamily(
        "gateway_prediction_log_rows",
        "Rows by what became of them before the sinks; all but those waiting in ring and encoder.",
        labels=["outcome"],
    )
    for outcome, count in {"framed": totals.framed, **totals.dropped}.items():
        rows.add_metric([outcome], count)
    yield rows
    for name, text, value in (
        ("waiting_rows", "Rows in the ring or with the encoder.", totals.waiting),
        ("ring_rows", "Rows between the request path and the encoder.", log.ring_rows),
        ("ring_bytes", "Bytes that the rows of the ring keep in memory.", log.ring_bytes),
    ):
        yield GaugeMetricFamily(f"gateway_prediction_log_{name}", text, value)
    yield CounterMetricFamily(
        "gateway_prediction_log_encode_cpu_seconds", "Processor time of the encoder.", log.encode_s
    )
    yield CounterMetricFamily("gateway_prediction_log_framed_bytes", "Bytes of all frames.", log.framed_bytes)


def _lanes(lanes: Sequence[LaneView]) -> Iterable[Metric]:
    connected = GaugeMetricFamily(
        "gateway_prediction_log_sink_connected", "1 where the sink is open.", labels=["sink"]
    )
    rows = CounterMetricFamily(
        "gateway_prediction_log_sink_rows",
        "Rows of this process by what became of them at a sink; all but those in memory and spooled.",
        labels=["sink", "outcome"],
    )
    held_rows = GaugeMetricFamily(
        "gateway_prediction_log_sink_held_rows", "Rows not acknowledged yet.", labels=["sink", "place"]
    )
    held_bytes = GaugeMetricFamily(
        "gateway_prediction_log_sink_held_bytes", "Bytes not acknowledged yet.", labels=["sink", "place"]
    )
    opens = CounterMetricFamily(
        "gateway_prediction_log_sink_opens", "How often a sink was opened.", labels=["sink"]
    )
    for lane in lanes:
        connected.add_metric([lane.name], 1.0 if lane.connected else 0.0)
        for outcome, count in {"applied": lane.applied, **lane.dropped}.items():
            rows.add_metric([lane.name, outcome], count)
        held_rows.add_metric([lane.name, "memory"], lane.memory_rows)
        held_rows.add_metric([lane.name, "spool"], lane.spooled_rows)
        held_bytes.add_metric([lane.name, "memory"], lane.memory_bytes)
        held_bytes.add_metric([lane.name, "spool"], lane.spooled_bytes)
        opens.add_metric([lane.name], lane.opens)
    yield from (connected, rows, held_rows, held_bytes, opens)
