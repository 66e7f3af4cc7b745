"""Memory and lazy models on the metrics page."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from gateway.core.types import CPU, Device
from gateway.telemetry.memory_metrics import LazyMetrics, MemoryMetrics, MemorySources

GPU = Device("cuda", 1)


def page(*collectors: LazyMetrics | MemoryMetrics) -> list[str]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_cold_starts_and_evictions_are_counted_by_model_and_timed_together() -> None:
    """Times have no model among their labels: hundreds of lazy models would be hundreds of histograms."""
    lazy = LazyMetrics()
    lazy.on_cold_start("a", 0.2, loaded=True)
    lazy.on_cold_start("b", 3.0, loaded=False)
    lazy.on_evicted("a", "memory")
    lines = page(lazy)
    assert 'gateway_lazy_cold_starts_total{model="a",outcome="ok"} 1.0' in lines
    assert 'gateway_lazy_cold_starts_total{model="b",outcome="failed"} 1.0' in lines
    assert 'gateway_lazy_evictions_total{model="a",reason="memory"} 1.0' in lines
    assert 'gateway_lazy_cold_start_seconds_bucket{le="0.25",outcome="ok"} 1.0' in lines
    assert 'gateway_lazy_cold_start_seconds_sum{outcome="failed"} 3.0' in lines


def test_memory_is_read_from_its_owners() -> None:
    """A device without a limit has none on the page; hits are the requests that did not wait."""
    sources = MemorySources(
        devices=lambda: [(CPU, 10, 100), (GPU, 5, None)],
        refusals=lambda: {CPU: 2},
        requests=lambda: {"a": 7},
        waited=lambda: {"a": 3, "b": 1},
        awake=lambda: ["a"],
    )
    assert page(MemoryMetrics(sources)) == [
        'gateway_memory_held_bytes{device="cpu"} 10.0',
        'gateway_memory_held_bytes{device="cuda:1"} 5.0',
        'gateway_memory_limit_bytes{device="cpu"} 100.0',
        'gateway_memory_refusals_total{device="cpu"} 2.0',
        'gateway_lazy_hits_total{model="a"} 4.0',
        'gateway_lazy_waits_total{model="a"} 3.0',
        'gateway_lazy_waits_total{model="b"} 1.0',
        "gateway_lazy_models_loaded 1.0",
    ]
