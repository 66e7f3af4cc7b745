"""What every layer, and the stack of all, must keep of the InferenceService seam."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import numpy as np
import pytest

from gateway.core.errors import BackendError, Cancelled, GatewayError, NotReady
from gateway.core.interfaces import InferenceService
from gateway.core.pending import Pending
from gateway.core.types import InferRequest, InferResponse
from gateway.layers.admission import AdmissionLayer, AdmissionLimits
from gateway.layers.deadline import DeadlineLayer
from gateway.layers.drain import DrainLayer
from gateway.layers.stack import StackOptions, build_stack
from gateway.layers.telemetry import RequestTelemetry, TelemetryLayer
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.testing import EchoService, VirtualClock, infer_request


class WatchedEcho(EchoService):
    """An EchoService that counts streams closed."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__(held=held)
        self.closed = 0

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        try:
            async for response in super().stream(request):
                yield response
        finally:
            self.closed += 1


class FailingStream(EchoService):
    """Answers once and then fails."""

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        async for response in super().stream(request):
            yield response
            raise BackendError("lost")


def telemetry() -> RequestTelemetry:
    return RequestTelemetry(clock=VirtualClock(), metrics=RequestMetrics(lambda model, version: True))


def stack(inner: InferenceService) -> InferenceService:
    return build_stack(inner, StackOptions(max_deadline_s=5.0), telemetry()).service


LAYERS: dict[str, Callable[[InferenceService], InferenceService]] = {
    "drain": DrainLayer,
    "admission": lambda inner: AdmissionLayer(inner, AdmissionLimits()),
    "deadline": lambda inner: DeadlineLayer(inner, VirtualClock()),
    "telemetry": lambda inner: TelemetryLayer(inner, telemetry()),
    "stack": stack,
}

pytestmark = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())

Layer = Callable[[InferenceService], InferenceService]


def rows(count: int = 1) -> InferRequest:
    return infer_request(np.arange(count, dtype=np.float32)[:, None])


async def test_a_request_is_passed_on_and_answered(layer: Layer) -> None:
    """The inner service gets the very request, and its answer comes back."""
    inner, request = EchoService(), rows()
    response = await layer(inner).submit(request)
    assert inner.pendings[0].request is request
    assert response.outputs == request.inputs


async def test_a_refusal_below_is_raised_by_submit(layer: Layer) -> None:
    """The error passes through synchronously, unchanged."""
    inner = EchoService()
    inner.refuse = NotReady("model 'fake' is loading")
    with pytest.raises(NotReady) as caught:
        layer(inner).submit(rows())
    assert caught.value is inner.refuse


async def test_a_failure_reaches_the_caller(layer: Layer) -> None:
    """What the inner service completes with is what the caller sees."""
    inner = EchoService(held=True)
    pending = layer(inner).submit(rows())
    error = BackendError("poison")
    inner.answer(inner.pendings[0], error)
    with pytest.raises(BackendError) as caught:
        pending.result()
    assert caught.value is error


async def test_a_cancellation_reaches_the_inner_service(layer: Layer) -> None:
    """Cancelling what submit returned completes the inner request as cancelled."""
    inner = EchoService(held=True)
    layer(inner).submit(rows()).cancel()
    assert isinstance(inner.pendings[0].error, Cancelled)


async def test_callbacks_of_inner_services_run_first(layer: Layer) -> None:
    """The caller's callback comes after those the layer and what is below it added."""
    inner = EchoService(held=True)
    heard: list[str] = []

    class Below:
        stream = inner.stream

        def submit(self, request: InferRequest) -> Pending:
            pending = inner.submit(request)
            pending.add_done_callback(lambda _: heard.append("below"))
            return pending

    layer(Below()).submit(rows()).add_done_callback(lambda _: heard.append("caller"))
    inner.answer(inner.pendings[0])
    assert heard == ["below", "caller"]


async def test_a_stream_passes_every_response_in_order(layer: Layer) -> None:
    """Nothing is added, dropped or held back."""
    responses = [r async for r in layer(EchoService()).stream(rows(3))]
    assert [r.outputs[0].array.item() for r in responses] == [0.0, 1.0, 2.0]
    assert [r.final for r in responses] == [False, False, True]


async def test_closing_a_stream_early_closes_the_inner_one(layer: Layer) -> None:
    """The inner iteration has ended by the time the close returns."""
    inner = WatchedEcho()
    async with aclosing(layer(inner).stream(rows(3))) as responses:  # type: ignore[type-var]
        await anext(responses)
        assert inner.closed == 0
    assert inner.closed == 1


async def test_a_stream_passes_errors_on(layer: Layer) -> None:
    """A refusal comes at the first step and a failure where it happens."""
    inner = EchoService()
    inner.refuse = NotReady("loading")
    with pytest.raises(NotReady):
        await anext(layer(inner).stream(rows()))
    responses = layer(FailingStream()).stream(rows(2))
    await anext(responses)
    with pytest.raises(GatewayError, match="lost"):
        await anext(responses)


async def test_a_stream_never_started_asks_nothing(layer: Layer) -> None:
    """An iterator that is only made has not reached the inner service."""
    inner = WatchedEcho()
    layer(inner).stream(rows())
    assert inner.closed == 0
    assert inner.pendings == []
