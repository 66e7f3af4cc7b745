"""Requests and bytes under way, and how they are given back."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BackendError, NotReady, Overloaded, PayloadTooLarge
from gateway.core.types import InferRequest
from gateway.layers.admission import AdmissionLayer, AdmissionLimits
from gateway.testing import EchoService, infer_request, settle


def sized(received_bytes: int, rows: int = 1) -> InferRequest:
    request = infer_request(np.zeros((rows, 1), np.float32))
    request.received_bytes = received_bytes
    return request


def layer(inner: EchoService, requests: int = 10, limit_bytes: int = 100) -> AdmissionLayer:
    return AdmissionLayer(
        inner, AdmissionLimits(max_inflight_requests=requests, max_inflight_bytes=limit_bytes)
    )


async def test_a_request_is_charged_until_it_is_answered() -> None:
    """Requests and bytes go up at submit and down at the answer."""
    inner = EchoService(held=True)
    admission = layer(inner)
    admission.submit(sized(30))
    admission.submit(sized(50))
    assert (admission.inflight_requests, admission.inflight_bytes) == (2, 80)
    inner.answer(inner.pendings[0])
    assert (admission.inflight_requests, admission.inflight_bytes) == (1, 50)


async def test_failure_and_cancellation_give_back_once() -> None:
    """However a request ends, and even if told twice, its charge goes back once."""
    inner = EchoService(held=True)
    admission = layer(inner)
    failing, cancelled = admission.submit(sized(30)), admission.submit(sized(50))
    inner.answer(failing, BackendError("x"))
    cancelled.cancel()
    cancelled.cancel()
    inner.answer(cancelled)
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


async def test_a_refusal_below_gives_back() -> None:
    """What the inner service refuses is not held."""
    inner = EchoService()
    inner.refuse = NotReady("loading")
    admission = layer(inner)
    with pytest.raises(NotReady):
        admission.submit(sized(30))
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


async def test_the_request_limit_refuses_at_once_and_tells_it() -> None:
    """The message names the model, what is under way and the limit."""
    inner = EchoService(held=True)
    admission = layer(inner, requests=1)
    admission.submit(sized(1))
    with pytest.raises(
        Overloaded, match=r"model 'fake' refused: 1 requests are under way, the limit is 1"
    ) as caught:
        admission.submit(sized(1))
    assert caught.value.retry_after_s == 1.0
    inner.answer(inner.pendings[0])
    admission.submit(sized(1))
    assert admission.inflight_requests == 1


async def test_the_byte_limit_admits_exactly_up_to_itself() -> None:
    """A hundred bytes fit into a hundred, and one more does not."""
    inner = EchoService(held=True)
    admission = layer(inner)
    admission.submit(sized(100))
    with pytest.raises(Overloaded, match="holds 1 bytes and 100 are under way, the limit is 100"):
        admission.submit(sized(1))
    assert (admission.inflight_requests, admission.inflight_bytes) == (1, 100)


async def test_a_request_larger_than_the_limit_is_told_not_to_retry() -> None:
    """It could never be admitted, so it is invalid and not a matter of load."""
    with pytest.raises(PayloadTooLarge, match="holds 101 bytes, the server admits 100 at once"):
        layer(EchoService()).submit(sized(101))


async def test_a_stream_is_charged_until_it_ends() -> None:
    """Its charge goes back with the last response."""
    admission = layer(EchoService())
    held = [admission.inflight_bytes async for _ in admission.stream(sized(60, rows=2))]
    assert held == [60, 60]
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


async def test_a_stream_closed_early_gives_back() -> None:
    """A reader that leaves after the first response holds nothing."""
    admission = layer(EchoService())
    async with aclosing(admission.stream(sized(60, rows=3))) as responses:  # type: ignore[type-var]
        await anext(responses)
        assert admission.inflight_bytes == 60
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


async def test_a_stream_cancelled_while_waiting_gives_back() -> None:
    """A reader's task that is cancelled between responses holds nothing."""
    admission = layer(EchoService())

    async def read() -> None:
        async for _ in admission.stream(sized(60, rows=100)):
            pass

    task = asyncio.create_task(read())
    await settle(5)
    assert admission.inflight_bytes == 60
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


async def test_a_refused_stream_holds_nothing() -> None:
    """Refused by the limit or from below, it gives back what it took."""
    inner = EchoService()
    inner.refuse = NotReady("loading")
    admission = layer(inner)
    for request, error in ((sized(10), NotReady), (sized(101), PayloadTooLarge)):
        with pytest.raises(error):
            await anext(admission.stream(request))
    assert (admission.inflight_requests, admission.inflight_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["answer", "fail", "cancel", "keep"]))))
async def test_the_sums_are_those_of_the_requests_under_way(steps: list[tuple[int, str]]) -> None:
    """Over any history the counts equal those of what was admitted and has not ended, within the limits."""
    inner = EchoService(held=True)
    admission = layer(inner, requests=3)
    for size, then in steps:
        try:
            pending = admission.submit(sized(size))
        except Overloaded:
            pending = inner.pendings[0]  # make room: the oldest ends in the drawn way
        if then == "cancel":
            pending.cancel()
        elif then != "keep":
            inner.answer(pending, BackendError("x") if then == "fail" else None)
        alive = [p.request.received_bytes for p in inner.pendings if not p.done]
        assert (admission.inflight_requests, admission.inflight_bytes) == (len(alive), sum(alive))
        assert len(alive) <= 3
        assert sum(alive) <= 100
