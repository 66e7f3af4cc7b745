"""Faults of one endpoint of a fleet, each with what ends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import tritonclient.grpc

from loadtests.soak_models import OFFSET
from tests.triton.proxy import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtests.triton_scene import Endpoint

_DELAY_S: Final = 0.5


def _kill(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.kill()
    return lambda: endpoint.server.start(wait=False)


def _freeze(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.suspend()
    return endpoint.server.resume


def _fail_half(endpoint: Endpoint) -> Callable[[], object]:
    return _control(endpoint, {"error_share": 0.5})


def _slow_model(endpoint: Endpoint) -> Callable[[], object]:
    return _control(endpoint, {"delay_s": _DELAY_S})


def _control(endpoint: Endpoint, faults: Mapping[str, float]) -> Callable[[], object]:
    partial = endpoint.server.control.with_suffix(".partial")
    partial.write_text(json.dumps(faults))
    partial.replace(endpoint.server.control)
    return endpoint.server.control.unlink


def _slow_network(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.proxy.set(Fault.PASS, delay_s=_DELAY_S / 2)
    return lambda: endpoint.proxy.set(Fault.PASS)


def _half_open(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.proxy.set(Fault.BLACK_HOLE)
    return lambda: endpoint.proxy.set(Fault.PASS)


def _wrong_version(endpoint: Endpoint) -> Callable[[], object]:
    with tritonclient.grpc.InferenceServerClient(endpoint.server.grpc) as client:
        whole = client.get_model_config(OFFSET, as_json=True)["config"]
    _load(endpoint, whole | {"version_policy": {"specific": {"versions": [2]}}})
    return lambda: _load(endpoint, whole)


def _load(endpoint: Endpoint, config: Mapping[str, Any]) -> None:
    with tritonclient.grpc.InferenceServerClient(endpoint.server.grpc) as client:
        client.load_model(OFFSET, config=json.dumps(config))


def _restart(endpoint: Endpoint) -> Callable[[], object]:
    endpoint.server.stop()
    endpoint.server.start(wait=False)
    return endpoint.server.wait_ready


BRIEF: Final = frozenset({"restart"})
"""Faults that end by themselves as soon as they may."""
FAULTS: Final[Mapping[str, Callable[[Endpoint], Callable[[], object]]]] = {
    "kill": _kill,
    "freeze": _freeze,
    "errors": _fail_half,
    "slow-model": _slow_model,
    "slow-network": _slow_network,
    "half-open": _half_open,
    "wrong-version": _wrong_version,
    "restart": _restart,
}
NAMES: Final = {
    "kill": "kill -9, started again",
    "freeze": "SIGSTOP",
    "errors": "50 % errors",
    "slow-model": "+500 ms in the model, one after the other",
    "slow-network": "+500 ms on the way",
    "half-open": "half-open connections",
    "wrong-version": "one version unloaded",
    "restart": "SIGTERM and start",
}
