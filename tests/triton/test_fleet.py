"""Three real endpoints behind one gateway: a canary between versions on them, and each in trouble in turn.

Every wait is for an event; what is asserted is that no client noticed, and that whoever was in trouble is
used again afterwards.
"""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.acceptance import zoo
from tests.acceptance.clients import connected, floats, refusal
from tests.acceptance.process import serving, until
from tests.acceptance.zoo import write_config
from tests.triton import models
from tests.triton.proxy import Fault, FaultProxy, fault_proxy
from tests.triton.server import TritonServer, triton
from tests.triton.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.process import RunningGateway

FACTORS: Final = {"1": 2.0, "2": 3.0}
ENOUGH: Final = 100
"""Requests that are many: every endpoint in use gets some of them."""
QUICK: Final[dict[str, Any]] = {
    "probe": {"interval_s": 0.1, "timeout_s": 0.5},
    "connect_timeout_s": 0.5,
    "attempt_timeout_s": 1.0,
    "slow_start_s": 0,
    "shared_memory": "off",
    "vanish_grace_s": 3600,
    "ejection": {
        "consecutive": 3,
        "interval_s": 0.5,
        "min_volume": 5,
        "base_s": 0.5,
        "max_s": 1.0,
        "jitter_share": 0,
    },
    "retry": {"budget_share": 1, "budget_floor_per_s": 100},
}
"""Troubles are noticed, and endpoints come back, in fractions of a second; what is safe to retry, is."""


@dataclass(frozen=True)
class Endpoint:
    """A server and the proxy through which the gateway reaches it."""

    server: TritonServer
    proxy: FaultProxy

    def served(self, version: str = "1", model: str = "scaled") -> int:
        """Return how many requests it answered, as it counts itself since its start."""
        with tritonclient.grpc.InferenceServerClient(self.server.grpc) as client:
            (stats,) = client.get_inference_statistics(model, version).model_stats
            return int(stats.inference_stats.success.count)


@dataclass(frozen=True)
class Fleet:
    """Endpoints, and the gateway before them."""

    endpoints: tuple[Endpoint, ...]
    gateway: RunningGateway

    def shown(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return what administration shows of an endpoint."""
        url = f"http://127.0.0.1:{self.gateway.ready['admin_port']}/fleets"
        with urllib.request.urlopen(url, timeout=30) as page:
            (fleet,) = json.load(page)["fleets"]
        (found,) = [e for e in fleet["endpoints"] if e["address"] == endpoint.proxy.address]
        return dict(found)

    def out(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint is given no requests."""
        return bool(self.shown(endpoint)["state"] != "healthy")

    def healthy(self) -> bool:
        """Whether all are in use, with every version."""
        pages = [self.shown(endpoint) for endpoint in self.endpoints]
        return all(p["state"] == "healthy" and p["models"].get("scaled") == [1, 2] for p in pages)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    files = {int(version): zoo.scaled(factor) for version, factor in FACTORS.items()}
    kept = {"scaled": models.of_onnx(files), "sums": models.accumulator()}
    repository = models.write(directory / "repository", kept)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(triton(repository, mode="explicit", load=["*"], started=False))
            for _ in range(3)
        ]
        for server in servers:
            server.start(wait=False)
        for server in servers:
            server.wait_ready()
        endpoints = tuple(
            Endpoint(server, stack.enter_context(fault_proxy(server.grpc_port))) for server in servers
        )
        config = {
            "triton": [
                {
                    "name": "fleet",
                    "endpoints": [endpoint.proxy.address for endpoint in endpoints],
                    "serve": ["sums"],
                    **QUICK,
                }
            ],
            "models": [{"name": "scaled", "backend": "triton", "split": {"1": "50%", "2": "50%"}}],
        }
        path = write_config(directory / "gateway.yaml", config)
        gateway = stack.enter_context(serving(directory / "log", "--config", path))
        assert gateway.states() == dict.fromkeys(("scaled/1", "scaled/2", "sums/1"), "READY")
        yield Fleet(endpoints, gateway)


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    """The fleet, whole again whatever the test before did to it."""
    for endpoint in running.endpoints:
        endpoint.server.control.unlink(missing_ok=True)
        endpoint.proxy.set(Fault.PASS)
        if not endpoint.server.running:
            endpoint.server.start()
    until(running.healthy)
    return running


@pytest.fixture
def traffic(fleet: Fleet) -> Iterator[Traffic]:
    """Clients that ask, with every endpoint in use."""
    traffic = Traffic(fleet.gateway, "scaled", FACTORS)
    before = [endpoint.served() for endpoint in fleet.endpoints]
    with traffic.flowing():
        traffic.more(ENOUGH)
        until(
            lambda: (
                all(e.served() > n for e, n in zip(fleet.endpoints, before, strict=True))
                and len(traffic.versions) == 2
            )
        )
        yield traffic


def test_a_canary_between_versions(fleet: Fleet, traffic: Traffic) -> None:
    """Both versions answer, each with its own numbers, on every endpoint."""
    until(lambda: min(e.served(v) for e in fleet.endpoints for v in FACTORS) > 0)
    assert traffic.errors == []


def test_sequences_stay_where_their_state_is(fleet: Fleet) -> None:
    """Each of many sequences, in turns, gets the sums of its own values, though endpoints share the load."""
    sequences = range(1, 13)
    with tritonclient.grpc.InferenceServerClient(fleet.gateway.grpc) as client:
        for step in range(1, 4):
            for sequence in sequences:
                value = np.array([[sequence * step]], np.int32)
                tensor = tritonclient.grpc.InferInput("value", [1, 1], "INT32").set_data_from_numpy(value)
                result = client.infer(
                    "sums",
                    [tensor],
                    sequence_id=sequence,
                    sequence_start=step == 1,
                    sequence_end=step == 3,
                )
                assert result.as_numpy("sum").tolist() == [[sequence * step * (step + 1) // 2]]
    assert sum(endpoint.served(model="sums") > 0 for endpoint in fleet.endpoints) > 1


def _killed(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.kill()
    return endpoint.server.start


def _stopped(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.stop()
    return endpoint.server.start


def _frozen(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.suspend()
    return endpoint.server.resume


def _half_open(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.proxy.set(Fault.BLACK_HOLE)
    return lambda: endpoint.proxy.set(Fault.PASS)


def _refusing(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.proxy.set(Fault.REFUSE)
    return lambda: endpoint.proxy.set(Fault.PASS)


def _failing(endpoint: Endpoint) -> Callable[[], object]:
    put_control(endpoint, {"error_share": 0.5})
    return endpoint.server.control.unlink


def put_control(endpoint: Endpoint, faults: dict[str, float]) -> None:
    """Switch faults on, whole: the models read the file whenever they run."""
    partial = endpoint.server.control.with_suffix(".partial")
    partial.write_text(json.dumps(faults))
    partial.replace(endpoint.server.control)


@pytest.mark.parametrize("trouble", [_killed, _stopped, _frozen, _half_open, _refusing, _failing])
def test_an_endpoint_in_trouble(
    fleet: Fleet, traffic: Traffic, trouble: Callable[[Endpoint], Callable[[], object]]
) -> None:
    """It is taken out, no client sees an error or a wrong answer, and it is used again when it is well."""
    victim = fleet.endpoints[1]
    heal = trouble(victim)
    try:
        until(lambda: fleet.out(victim))
        traffic.more(ENOUGH)
    finally:
        heal()
    until(lambda: not fleet.out(victim))
    served = victim.served()
    until(lambda: victim.served() > served)
    assert traffic.errors == []


def test_an_endpoint_with_the_wrong_version(fleet: Fleet, traffic: Traffic) -> None:
    """What it has not it is not asked for; the other version it goes on answering."""
    victim = fleet.endpoints[2]
    with tritonclient.grpc.InferenceServerClient(victim.server.grpc) as client:
        whole = client.get_model_config("scaled", as_json=True)["config"]
        partial = whole | {"version_policy": {"specific": {"versions": [2]}}}
        client.load_model("scaled", config=json.dumps(partial))
        try:
            until(lambda: fleet.shown(victim)["models"].get("scaled") == [2])
            traffic.more(ENOUGH)
            served = victim.served("2")
            until(lambda: victim.served("2") > served)
        finally:
            client.load_model("scaled", config=json.dumps(whole))
    until(fleet.healthy)
    assert traffic.errors == []


def test_without_any_endpoint(fleet: Fleet) -> None:
    """The refusal says so at once and tells no addresses; when they are back, requests are answered."""
    for endpoint in fleet.endpoints:
        endpoint.server.kill()
    with connected("grpc", fleet.gateway) as client:
        code, message = refusal(client, lambda: client.infer("scaled", {"x": floats([1, 2])}))
        assert code == "UNAVAILABLE"
        assert "scaled" in message
        assert "127.0.0.1" not in message
        assert not any(str(e.proxy.port) in message for e in fleet.endpoints)
        for endpoint in fleet.endpoints:
            endpoint.server.start(wait=False)
        until(lambda: _answered(fleet))
    for endpoint in fleet.endpoints:
        endpoint.server.wait_ready()


def _answered(fleet: Fleet) -> bool:
    with connected("grpc", fleet.gateway) as client:
        try:
            client.infer("scaled", {"x": floats([1, 2])})
        except InferenceServerException:
            return False
        return True


def test_what_an_endpoint_says_is_cleaned(fleet: Fleet) -> None:
    """A model's own error, met on every endpoint, reaches the client without addresses and paths."""
    for endpoint in fleet.endpoints:
        put_control(endpoint, {"error_share": 1.0})
    with connected("grpc", fleet.gateway) as client:
        code, message = refusal(client, lambda: client.infer("scaled", {"x": floats([1, 2])}))
    assert code in {"INTERNAL", "UNAVAILABLE"}
    assert "the test asked for this error" in message
    assert "secret" not in message
    assert "10.1.2.3" not in message
