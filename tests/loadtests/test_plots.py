"""What is drawn of the records of a session."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from loadtests.metrics_page import parse_page, quantile
from loadtests.plots import draw


def record(entry: str, arrival: dict[str, Any], **figures: float) -> dict[str, Any]:
    return {
        "kind": "load",
        "entry": entry,
        "target": "gateway",
        "problems": [],
        "scenario": {"protocol": "grpc", "rows": 1, "arrival": arrival},
        "figures": {"errors": 0, "cpu_us_per_request": 40.0, **figures},
    }


def drawn(tmp_path: Path, records: list[dict[str, Any]]) -> dict[str, str]:
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [{"kind": "machine"}, *records]))
    return {path.name: path.read_text() for path in draw([file], tmp_path / "img", "load")}


def closed(count: int, rate: float) -> dict[str, Any]:
    return record(f"in_flight={count}", {"kind": "closed", "in_flight": count}, requests_per_s=rate)


def opened(rate: float, p99_ms: float) -> dict[str, Any]:
    return record(f"rate={rate}", {"kind": "constant"}, offered_per_s=rate, p99_ms=p99_ms)


def test_a_sweep_over_concurrency_and_one_over_load(tmp_path: Path) -> None:
    """Throughput by requests in flight, p99 by requests due, CPU by entry: each well-formed SVG."""
    runs = [closed(1, 100), closed(1, 120), closed(8, 700), opened(100, 2.0), opened(200, 9.0)]
    found = drawn(tmp_path, runs)
    assert set(found) == {"load-throughput.svg", "load-latency.svg", "load-cpu.svg"}
    for document in found.values():
        assert ET.fromstring(document).tag.endswith("svg")
    assert found["load-throughput.svg"].count("<circle") == 2
    assert found["load-cpu.svg"].count("in_flight=") == 2


def test_one_point_is_no_curve(tmp_path: Path) -> None:
    """A single run has its bar only; what was not measured has nothing."""
    gone = {**closed(8, 0), "unavailable": "no such peer"}
    assert set(drawn(tmp_path, [closed(1, 100), gone])) == {"load-cpu.svg"}


def test_bars_far_apart_are_drawn_logarithmically(tmp_path: Path) -> None:
    """The smallest would not be seen otherwise."""
    runs = [
        record(f"e{value}", {"kind": "closed", "in_flight": 1}, cpu_us_per_request=value)
        for value in (20, 9000)
    ]
    assert "logarithmic" in drawn(tmp_path, runs)["load-cpu.svg"]


PAGE = """\
# TYPE gateway_loop_lag_seconds histogram
gateway_loop_lag_seconds_bucket{le="0.001"} %d
gateway_loop_lag_seconds_bucket{le="0.005"} %d
gateway_loop_lag_seconds_bucket{le="+Inf"} %d
# TYPE gateway_compute_duration_seconds histogram
gateway_compute_duration_seconds_sum{model="m",version="1"} %s
gateway_compute_duration_seconds_count{model="m",version="1"} %d
gateway_compute_duration_seconds_sum{model="other",version="1"} 9
gateway_compute_duration_seconds_count{model="other",version="1"} 9
# TYPE gateway_batch_rows histogram
gateway_batch_rows_bucket{model="m",version="1",le="+Inf"} %d
gateway_batch_rows_sum{model="m",version="1"} %d
gateway_batch_rows_count{model="m",version="1"} %d
"""


def test_figures_of_a_metrics_page_are_those_of_the_run() -> None:
    """What came before it, and other models, do not count."""
    before = parse_page(PAGE % (100, 100, 100, "1.0", 10, 10, 10, 10), "m")
    after = parse_page(PAGE % (1090, 1099, 1100, "1.4", 110, 110, 410, 110), "m")
    figures = after.figures_since(before)
    assert figures == pytest.approx({"mean_batch": 4.0, "batch_ms": 4.0, "loop_lag_p999_ms": 5.0})


def test_nothing_measured_gives_no_figure() -> None:
    """Rather than zeros that would meet thresholds."""
    page = parse_page(PAGE % (1, 1, 1, "1.0", 1, 1, 1, 1), "m")
    assert page.figures_since(page) == {}


def test_quantiles_are_upper_bounds() -> None:
    """The least bound that enough measurements lie below."""
    assert quantile({0.1: 5.0, 0.2: 9.0, 1.0: 10.0}, 0.9) == 0.2
