"""The report behind docs/performance.md: what it asks of whom, and what becomes of what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnxruntime
import pytest

from loadtests import page_entries, peers
from loadtests.direct import time_copies
from loadtests.large_tensors import IMAGES, STRIDE, image_model
from loadtests.page import read_parts, status, write_page
from loadtests.page_entries import FULL, NATIVE, QUICK, Extent
from loadtests.page_figures import Entry, entries
from loadtests.page_tables import page_tables
from loadtests.scenario import PeerTarget, Scenario, cannot

EXTENTS = pytest.mark.parametrize("extent", [FULL, QUICK], ids=["full", "quick"])


def all_groups(extent: Extent, models: Path) -> list[Mapping[str, Scenario]]:
    peaks = dict.fromkeys(page_entries.peak_groups(extent)[0], 1000.0)
    return [
        *page_entries.small_groups(extent),
        *page_entries.dense_groups(extent),
        *page_entries.peak_groups(extent),
        *page_entries.latency_groups(extent, peaks),
        *page_entries.large_groups(extent, models),
    ]


@EXTENTS
def test_every_entry_can_be_run_and_shares_its_target_with_its_group(extent: Extent, tmp_path: Path) -> None:
    """By the engine chosen for it; a group is what one start of a server is asked."""
    for group in all_groups(extent, tmp_path):
        assert len({scenario.target.model_dump_json() for scenario in group.values()}) == 1
        for scenario in group.values():
            assert not cannot(scenario.chosen_engine, scenario)


@EXTENTS
def test_every_peer_meets_the_small_model_over_each_protocol_it_speaks(extent: Extent) -> None:
    """Beside both of the gateway's transports, all with as many requests in flight, varied ones apart."""
    groups = page_entries.small_groups(extent)
    labels = [label for group in groups for label in group]
    assert {"model-gateway, HTTP", "model-gateway, gRPC", "model-gateway, grpcio"} <= set(labels)
    assert set(page_entries.NAMES) == set(peers.NAMES)
    for name in peers.NAMES:
        spoken = peers.find(name).protocols
        for protocol, shown in (("http", "HTTP"), ("grpc", "gRPC")):
            asked = f"{page_entries.NAMES[name]}, {shown}" in labels
            assert asked == any(wire.startswith(protocol) for wire in spoken)


@EXTENTS
def test_labels_are_not_given_twice_in_a_part(extent: Extent, tmp_path: Path) -> None:
    """Or runs of different things would be put together."""
    for groups in (
        page_entries.small_groups(extent),
        page_entries.dense_groups(extent),
        page_entries.large_groups(extent, tmp_path),
    ):
        labels = [label for group in groups for label in group]
        assert len(labels) == len(set(labels))


def test_a_peer_batches_what_is_in_flight_on_the_dense_net() -> None:
    """Each point starts it anew, with batches of that many rows."""
    for group in page_entries.dense_groups(FULL)[1:]:
        for label, scenario in group.items():
            assert isinstance(scenario.target, PeerTarget)
            assert f": {scenario.target.max_batch_rows} in flight" in label


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_model_answers_every_so_many_values(name: str, tmp_path: Path) -> None:
    """From everywhere in the input, so that bytes in the wrong place are seen."""
    model = image_model(name, tmp_path)
    written = model.file.stat().st_mtime_ns
    rows = np.random.default_rng(1).random((2, model.features), np.float32)
    got = onnxruntime.InferenceSession(model.file).run(None, {model.input_name: rows})[0]
    np.testing.assert_array_equal(got, rows[:, ::STRIDE])
    assert image_model(name, tmp_path).file.stat().st_mtime_ns == written


def test_copies_are_timed() -> None:
    """The pace is the size by the median time."""
    timed = time_copies(1 << 16, 0.01)
    assert timed["mb_per_s"] == pytest.approx((1 << 16) / timed["call_us"])


MACHINE = {
    "kind": "machine",
    "cpu": "a processor",
    "cores": 2,
    "kernel": "6",
    "python": "3",
    "packages": {"numpy": "2"},
    "commit": "abc",
}


def load(
    entry: str, scenario: dict[str, Any], target: str = "model-gateway", **figures: float
) -> dict[str, Any]:
    known = {"errors": 0.0, "cpu_us_per_request": 50.0, "p50_ms": 1.0, "p99_ms": 2.0, **figures}
    known.setdefault("rows_per_s", known.get("requests_per_s", 1.0))
    asked = {
        "protocol": "http-binary",
        "rows": 1,
        "model": "digits",
        "arrival": {"kind": "closed"},
        **scenario,
    }
    return {
        "kind": "load",
        "entry": entry,
        "target": target,
        "scenario": asked,
        "problems": [],
        "figures": known,
    }


def in_flight(count: int, model: Any = "dense") -> dict[str, Any]:
    return {"model": model, "arrival": {"kind": "closed", "in_flight": count}}


def direct(model: str, rows: int, rows_per_s: float) -> dict[str, Any]:
    return {"kind": "direct", "model": model, "rows": rows, "rows_per_s": rows_per_s, "call_us": 10.0}


IMAGE = {"name": "image224", "folder": "x", "version": 1, "input": "image", "features": 150_528}
SIZE = 150_528 * 4
PARTS: dict[str, list[dict[str, Any]]] = {
    "small": [
        MACHINE,
        direct("digits", 32, 1e6),
        load("model-gateway, HTTP", {}, requests_per_s=12_000.0, cpu_us_per_request=50.0),
        load("model-gateway, HTTP", {}, requests_per_s=14_000.0, cpu_us_per_request=54.0),
        load("model-gateway, HTTP: varied", {}, requests_per_s=9_000.0),
        load("Peer, HTTP", {"protocol": "http-raw"}, "Peer 1.0", requests_per_s=1_000.0),
        {
            **load("Gone, gRPC", {"protocol": "grpc"}),
            "unavailable": "no such package",
            "figures": {"errors": 1},
        },
    ],
    "dense": [
        MACHINE,
        direct("dense", 32, 1_000.0),
        load("model-gateway, HTTP: 1 in flight", in_flight(1), requests_per_s=100.0),
        direct("dense", 32, 2_000.0),
        load("model-gateway, HTTP: 64 in flight", in_flight(64), requests_per_s=1_000.0),
    ],
    "latency": [
        MACHINE,
        load("model-gateway, HTTP", in_flight(64), requests_per_s=1_000.0),
        *(
            load(
                f"model-gateway, HTTP: {share:.0%} of peak",
                {"model": "dense", "arrival": {"kind": "poisson"}},
                requests_per_s=share * 1000,
                offered_per_s=share * 1000,
                p99_ms=share * 100,
                rejected=0.0,
            )
            for share in (0.5, 0.95)
        ),
    ],
    "large": [
        MACHINE,
        direct("image224", 1, 1e5),
        {"kind": "copy", "bytes": SIZE, "call_us": 20.0, "mb_per_s": 10_000.0},
        load(
            "model-gateway, HTTP: image224",
            in_flight(4, IMAGE),
            requests_per_s=1_000.0,
            cpu_us_per_request=400.0,
        ),
    ],
}


def on_file(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> Path:
    for part, records in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def cells(table: str, first: str) -> list[str]:
    """Return the cells of the line that begins so."""
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_page_is_written_from_records(tmp_path: Path) -> None:
    """The tables, and a chart for each part, well-formed."""
    paths = write_page(on_file(tmp_path, PARTS), tmp_path / "img")
    assert {path.name for path in paths} == {
        "tables.md",
        "digits-peers-cpu.svg",
        "digits-peers-rate.svg",
        "dense-throughput.svg",
        "dense-latency.svg",
        "large-tensors.svg",
    }
    for path in paths[1:]:
        assert ET.fromstring(path.read_text()).tag.endswith("svg")


def test_parts_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    """Of the tables and of the charts."""
    paths = write_page(on_file(tmp_path, {"dense": PARTS["dense"]}), tmp_path)
    assert [path.name for path in paths] == ["tables.md", "dense-throughput.svg"]
    assert "## large" not in paths[0].read_text()


def test_the_small_table_says_how_many_times_faster_the_gateway_is() -> None:
    """By the medians of one protocol; varied requests have a table of their own."""
    table = page_tables({"small": PARTS["small"]})
    assert cells(table, "Peer 1.0")[1:3] == ["HTTP, bare rows", "1,000"]
    assert cells(table, "Peer 1.0")[-1] == "13.0"
    assert "13,000 (12,000-14,000)" in table
    assert "52.0 (50.0-54.0)" in table
    assert table.index("9,000") > table.index("of its own")


def test_what_could_not_be_had_is_said(tmp_path: Path) -> None:
    """With the reason, and it is no failure of the report."""
    folder = on_file(tmp_path, PARTS)
    assert "Not measured: Gone, gRPC: no such package" in page_tables(read_parts(folder))
    assert status(folder) == 0


def test_a_wrong_answer_is_said_and_fails_the_report(tmp_path: Path) -> None:
    """However good the figures are."""
    bad = {
        **load("model-gateway, HTTP", {}, requests_per_s=9e9, errors=2.0),
        "problems": ["tensor 0 was wrong"],
    }
    folder = on_file(tmp_path, {"small": [MACHINE, bad]})
    assert "WRONG: model-gateway, HTTP: 2 errors: tensor 0 was wrong" in page_tables(read_parts(folder))
    assert status(folder) == 1


def test_rows_are_compared_with_the_direct_calls_just_before() -> None:
    """A slow minute slows both."""
    row = cells(page_tables({"dense": PARTS["dense"]}), "model-gateway, HTTP")
    assert row[1:3] == ["10%", "50%"]


def test_large_tensors_are_compared_with_copies_of_their_size() -> None:
    """Megabytes per second, and CPU time in copies."""
    row = cells(page_tables({"large": PARTS["large"]}), "model-gateway, HTTP")
    assert row == ["model-gateway, HTTP", "0.6 MB", "1,000", "602", "6%", "1.0", "400", "20.0"]


def test_open_loops_are_shown_by_share_of_the_peak() -> None:
    """The closed loop that found the peak is no line of the table."""
    table = page_tables({"latency": PARTS["latency"]})
    assert "| 50% of peak" in table
    assert table.count("| model-gateway, HTTP |") == 2


def test_disturbed_runs_are_left_out() -> None:
    """As everywhere in the load tests."""
    runs = [
        load("a, HTTP", {}, requests_per_s=rate, foreign=share) for rate, share in ((10.0, 0.0), (99.0, 0.5))
    ]
    (entry,) = entries(runs)
    assert entry.figure("requests_per_s") == (10.0, 10.0, 10.0)


def test_a_label_is_a_curve_and_a_point() -> None:
    """The point may be missing."""
    assert (Entry("a, HTTP: 3 in flight", ()).curve, Entry("a, HTTP: 3 in flight", ()).point) == (
        "a, HTTP",
        "3 in flight",
    )
    assert (Entry("a, HTTP", ()).curve, Entry("a, HTTP", ()).point) == ("a, HTTP", "")


def test_both_transports_are_named_whatever_the_default_is() -> None:
    """The report says which one it measured."""
    assert NATIVE.config["server"]["grpc"]["transport"] == "native"
    assert page_entries.GRPCIO.config["server"]["grpc"]["transport"] == "grpcio"
