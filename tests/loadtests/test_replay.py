"""The replay engine against a real gateway: every protocol, every client, closed and open loops."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loadtests.arrivals import Closed, Constant
from loadtests.direct import DirectModel
from loadtests.engines.job import EngineFailed, Job
from loadtests.engines.replay import run_replay
from loadtests.peers.base import WireAnswer
from loadtests.peers.wires import OpenInference
from loadtests.requests_on_file import DENSE, DIGITS, same
from loadtests.scenario import Payload
from loadtests.served import ServedGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadtests.tally import Tally

TENSORS = [DIGITS.tensor(2, seed).array for seed in range(8)]
VARIED: dict[str, Any] = {"distinct": len(TENSORS), "ids": True, "deadlines": True, "traceparent": True}
LOOP = Closed(kind="closed", in_flight=8, connections=2)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    core = min(os.sched_getaffinity(0))
    with ServedGateway([DIGITS, DENSE], core, tmp_path_factory.mktemp("gateway")) as served:
        yield served


def job(gateway: ServedGateway, folder: Path, protocol: str, arrival: Any, **payload: Any) -> Job:
    port = gateway.http_port if protocol.startswith("http") else gateway.grpc_port
    return Job(
        protocol=protocol,
        address=("127.0.0.1", port),
        requests=[OpenInference().request(protocol, DIGITS, tensor) for tensor in TENSORS],
        payload=Payload(**payload),
        arrival=arrival,
        seconds=0.3,
        core=max(os.sched_getaffinity(0)),
        folder=folder,
        answer_bytes=0,
    )


def ran(what: Job) -> Tally:
    with run_replay(what) as finished:
        return finished()


def check(protocol: str, tally: Tally) -> None:
    """Everything was answered, and samples are what ONNX Runtime answers."""
    assert tally.problems == ()
    assert (tally.failed, tally.rejected, tally.expired, tally.dropped) == (0, 0, 0, 0)
    assert tally.good == tally.due > 0
    assert 0 < tally.latency_ms["p50"] <= tally.latency_ms["p99"] <= tally.latency_ms["max"]
    assert tally.samples
    model = DirectModel(DIGITS.file)
    for sample in tally.samples:
        assert same(OpenInference().read(protocol, sample.answer), model.run(TENSORS[sample.tensor]))


@pytest.mark.parametrize("protocol", ["http-json", "http-binary", "grpc", "grpc-stream"])
def test_closed_loops(gateway: ServedGateway, tmp_path: Path, protocol: str) -> None:
    """Distinct tensors and ids over each protocol; the gateway counts the same number of answers."""
    before = gateway.counters(DIGITS)
    loop = Closed(kind="closed", in_flight=8) if protocol.startswith("http") else LOOP
    tally = ran(job(gateway, tmp_path, protocol, loop, distinct=len(TENSORS), ids=True))
    check(protocol, tally)
    assert gateway.counters(DIGITS).since(before).answered == {"ok": tally.good}


@pytest.mark.parametrize("client", ["grpcio", "grpc-js", "grpc-go"])
def test_varied_requests_of_each_client(gateway: ServedGateway, tmp_path: Path, client: str) -> None:
    """Tensors, ids, deadlines and trace contexts all differ, over several cycles of the header blocks."""
    tally = ran(job(gateway, tmp_path, "grpc", LOOP, **VARIED, client=client))
    check("grpc", tally)


def test_varied_requests_over_http(gateway: ServedGateway, tmp_path: Path) -> None:
    """Likewise, in headers and JSON."""
    loop = Closed(kind="closed", in_flight=4)
    check("http-binary", ran(job(gateway, tmp_path, "http-binary", loop, **VARIED)))


@pytest.mark.parametrize("protocol", ["http-binary", "grpc"])
def test_open_loops(gateway: ServedGateway, tmp_path: Path, protocol: str) -> None:
    """Exactly what the schedule says is sent."""
    arrival = Constant(kind="constant", rate=200, connections=16)
    tally = ran(job(gateway, tmp_path, protocol, arrival, distinct=len(TENSORS)))
    check(protocol, tally)
    assert tally.due == 60


@pytest.mark.parametrize("protocol", ["http-binary", "grpc"])
def test_large_requests(gateway: ServedGateway, tmp_path: Path, protocol: str) -> None:
    """Bodies beyond a frame and beyond HTTP/2's first windows: 128 KiB each way."""
    tensor = DENSE.tensor(64, 1).array
    request = OpenInference().request(protocol, DENSE, tensor)
    loop = Closed(kind="closed", in_flight=2)
    tally = ran(replace(job(gateway, tmp_path, protocol, loop), requests=[request]))
    assert (tally.failed, tally.problems) == (0, ())
    model = DirectModel(DENSE.file)
    answers = [OpenInference().read(protocol, sample.answer) for sample in tally.samples]
    assert answers
    assert all(same(answer, model.run(tensor)) for answer in answers)


@pytest.mark.parametrize(("protocol", "said"), [("http-json", "HTTP 400"), ("grpc", "gRPC 3")])
def test_failures_are_counted_with_their_words(
    gateway: ServedGateway, tmp_path: Path, protocol: str, said: str
) -> None:
    """A tensor of the wrong shape is answered with an error, which is not a good answer."""
    wrong = OpenInference().request(protocol, replace(DIGITS, features=3), TENSORS[0][:, :3])
    loop = Closed(kind="closed", in_flight=2)
    tally = ran(replace(job(gateway, tmp_path, protocol, loop), requests=[wrong]))
    assert (tally.good, tally.failed) == (0, tally.due)
    assert said in tally.problems[0]
    assert tally.latency_ms == {}


def test_unknown_methods_cannot_be_replayed(gateway: ServedGateway, tmp_path: Path) -> None:
    """The captured header blocks name their method."""
    what = job(gateway, tmp_path, "grpc", LOOP)
    other = [replace(request, path="/other.Service/Method") for request in what.requests]
    with pytest.raises(EngineFailed, match="captured clients call"):
        ran(replace(what, requests=other))


def test_a_target_that_is_not_there(gateway: ServedGateway, tmp_path: Path) -> None:
    """Is a failure of the run, with the reason."""
    what = job(gateway, tmp_path, "http-json", Closed(kind="closed", in_flight=1))
    with pytest.raises(EngineFailed, match="refused"):
        ran(replace(what, address=("127.0.0.1", 1)))


def test_answers_know_their_protocol() -> None:
    """The oracle of these tests refuses what is no answer."""
    with pytest.raises(ValueError, match="no answer"):
        OpenInference().read("grpc", WireAnswer({}, b"\xff"))
