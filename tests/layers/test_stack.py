"""The order of the request stack."""

import numpy as np
import pytest

from gateway.core.errors import DeadlineExceeded, Draining, GatewayError, Overloaded
from gateway.core.types import InferRequest
from gateway.layers.admission import AdmissionLimits
from gateway.layers.stack import RequestStack, StackOptions, build_stack
from gateway.layers.telemetry import RequestTelemetry
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.testing import EchoService, VirtualClock, infer_request


class Witness(RequestMetrics):
    """Notes, when a request is counted, what was in flight below."""

    def __init__(self) -> None:
        super().__init__(lambda model, version: True)
        self.stack: RequestStack | None = None
        self.counted: list[tuple[Outcome, int]] = []

    def finished(self, model: str, version: str, outcome: Outcome, seconds: float) -> None:
        assert self.stack is not None
        self.counted.append((outcome, self.stack.admission.inflight_requests))


def built(inner: EchoService, max_requests: int = 10) -> tuple[RequestStack, Witness]:
    witness = Witness()
    options = StackOptions(admission=AdmissionLimits(max_inflight_requests=max_requests), max_deadline_s=5.0)
    witness.stack = build_stack(inner, options, RequestTelemetry(clock=VirtualClock(1000.0), metrics=witness))
    return witness.stack, witness


def request(deadline_s: float | None = None) -> InferRequest:
    return infer_request(np.zeros((1, 1), np.float32), deadline_s=deadline_s, arrived_s=1000.0)


def refused(stack: RequestStack, error: type[GatewayError], made: InferRequest) -> None:
    with pytest.raises(error):
        stack.service.submit(made)


async def test_refusals_by_every_layer_are_counted() -> None:
    """Expired, over the limit, draining: telemetry sees each."""
    stack, witness = built(EchoService(held=True), max_requests=1)
    refused(stack, DeadlineExceeded, request(deadline_s=999.0))
    stack.service.submit(request())
    refused(stack, Overloaded, request())
    stack.drain.drain()
    refused(stack, Draining, request())
    assert [outcome for outcome, _ in witness.counted] == [
        Outcome.DEADLINE,
        Outcome.OVERLOADED,
        Outcome.UNAVAILABLE,
    ]


async def test_a_request_is_counted_after_its_charge_went_back() -> None:
    """Completion reaches telemetry last."""
    inner = EchoService(held=True)
    stack, witness = built(inner)
    stack.service.submit(request())
    assert stack.admission.inflight_requests == 1
    inner.answer(inner.pendings[0])
    assert witness.counted == [(Outcome.OK, 0)]


async def test_draining_refuses_before_anything_is_asked() -> None:
    """During shutdown even an expired request beyond the limit hears that the server is going."""
    stack, _ = built(EchoService(held=True), max_requests=1)
    stack.service.submit(request())
    stack.drain.drain()
    refused(stack, Draining, request(deadline_s=999.0))


async def test_expired_work_holds_no_budget() -> None:
    """What the deadline layer refuses is given back by admission."""
    stack, _ = built(EchoService())
    refused(stack, DeadlineExceeded, request(deadline_s=999.0))
    assert (stack.admission.inflight_requests, stack.admission.inflight_bytes) == (0, 0)


async def test_the_inner_service_gets_a_bounded_deadline() -> None:
    """The options reach the deadline layer."""
    inner = EchoService(held=True)
    stack, _ = built(inner)
    stack.service.submit(request())
    assert inner.pendings[0].request.deadline_s == 1005.0
