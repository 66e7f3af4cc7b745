"""What scenario files may say, and what is said of those that are wrong."""

from pathlib import Path

import pytest

from loadtests.arrivals import Closed
from loadtests.scenario import ScenarioError, read_scenario

SCENARIOS = sorted((Path(__file__).parents[2] / "loadtests" / "scenarios").glob("*.yaml"))
CLOSED = "arrival: {kind: closed, in_flight: 32}\n"


def written(path: Path, text: str) -> Path:
    file = path / "scenario.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenarios_of_the_project_can_be_read(path: Path) -> None:
    """Each is named after its file."""
    assert read_scenario(path).name == path.stem


def test_defaults(tmp_path: Path) -> None:
    """A protocol and an arrival are enough: our gateway, digits, one row, one request repeated."""
    scenario = read_scenario(written(tmp_path, f"protocol: grpc\n{CLOSED}"))
    assert (scenario.target.kind, scenario.model, scenario.rows) == ("gateway", "digits", 1)
    assert scenario.payload.fixed
    assert scenario.bench_model.features == 64


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        (f"protocol: http-json\n{CLOSED}", "wrk"),
        (f"protocol: grpc\n{CLOSED}", "h2load"),
        (f"protocol: grpc\npayload: varied\n{CLOSED}", "replay"),
        (f"protocol: grpc-stream\n{CLOSED}", "replay"),
        ("protocol: grpc\narrival: {kind: poisson, rate: 10}\n", "replay"),
    ],
)
def test_the_cheapest_engine_that_can_is_chosen(tmp_path: Path, text: str, engine: str) -> None:
    """One request repeated in a closed loop is for wrk and h2load, all else for the replay."""
    assert read_scenario(written(tmp_path, text)).chosen_engine == engine


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"protocl: grpc\n{CLOSED}", r":1: protocl: Extra inputs"),
        (f"protocol: soap\n{CLOSED}", r":1: protocol: Input should be"),
        (f"protocol: grpc\nmodel: digit\n{CLOSED}", r":2: model: no model 'digit': there are digits, dense"),
        ("protocol: grpc\narrival: {kind: closed}\n", r":2: arrival.in_flight: Field required"),
        ("protocol: grpc\narrival:\n  kind: constant\n", r":2: arrival: give either rate"),
        (
            "protocol: grpc\narrival:\n  kind: closed\n  in_flight: 3\n  connections: 2\n",
            r"multiple of connections",
        ),
        ("protocol: http-json\narrival: {kind: closed, in_flight: 4, connections: 2}\n", r"one request per"),
        (f"protocol: grpc\nengine: wrk\n{CLOSED}", r"wrk runs closed loops over HTTP only"),
        (f"protocol: grpc\nengine: h2load\npayload: varied\n{CLOSED}", r"h2load repeats one request"),
        (f"protocol: grpc\n{CLOSED}thresholds: {{p98_ms: '< 1'}}\n", r":3: thresholds: no figure 'p98_ms'"),
        (f"protocol: grpc\n{CLOSED}thresholds: {{p99_ms: fast}}\n", r":3: thresholds: p99_ms: cannot read"),
        ("protocol: grpc\n  arrival: 1\n", r":2: not YAML"),
        ("protocol: grpc\ntarget: {kind: address}\n" + CLOSED, r":2: target: give http, grpc or both"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    """File, line, key and what to do."""
    with pytest.raises(ScenarioError, match=complaint):
        read_scenario(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    """Is an error like the others."""
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_scenario(tmp_path / "none.yaml")


def test_values_laid_over_a_file(tmp_path: Path) -> None:
    """Dotted keys reach into sections and leave their other keys."""
    file = written(tmp_path, "protocol: grpc\narrival: {kind: closed, in_flight: 8, connections: 8}\n")
    scenario = read_scenario(file, {"arrival.in_flight": 16, "rows": 4})
    assert scenario.arrival == Closed(kind="closed", in_flight=16, connections=8)
    assert scenario.rows == 4


def test_a_change_within_a_named_payload_keeps_the_rest_of_it(tmp_path: Path) -> None:
    """A client's header blocks are for the replay, whatever else varies."""
    file = written(tmp_path, f"protocol: grpc\npayload: varied\n{CLOSED}")
    varied = read_scenario(file, {"payload.client": "grpc-go"})
    assert (varied.payload.distinct, varied.payload.client) == (4096, "grpc-go")
    fixed = read_scenario(file, {"payload": "fixed", "payload.client": "grpc-js"})
    assert (fixed.payload.distinct, fixed.chosen_engine) == (1, "replay")
