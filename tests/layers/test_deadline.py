"""Deadlines at the door."""

import numpy as np
import pytest

from gateway.core.errors import DeadlineExceeded
from gateway.core.types import InferRequest
from gateway.layers.deadline import DeadlineLayer
from gateway.testing import EchoService, VirtualClock, infer_request

NOW_S = 1000.0


def due(deadline_s: float | None) -> InferRequest:
    return infer_request(np.zeros((1, 1), np.float32), deadline_s=deadline_s)


async def test_expired_work_is_refused_and_never_passed_on() -> None:
    """At or past its deadline a request is answered with how late it was."""
    inner = EchoService()
    layer = DeadlineLayer(inner, VirtualClock(NOW_S))
    with pytest.raises(DeadlineExceeded, match=r"model 'fake' arrived 250\.0 ms after its deadline"):
        layer.submit(due(NOW_S - 0.25))
    with pytest.raises(DeadlineExceeded):
        layer.submit(due(NOW_S))
    with pytest.raises(DeadlineExceeded):
        await anext(layer.stream(due(NOW_S - 1)))
    assert inner.pendings == []


@pytest.mark.parametrize(
    ("max_s", "asked_s", "passed_s"),
    [
        (None, None, None),
        (None, NOW_S + 60, NOW_S + 60),
        (5.0, None, NOW_S + 5),
        (5.0, NOW_S + 60, NOW_S + 5),
        (5.0, NOW_S + 2, NOW_S + 2),
    ],
)
async def test_the_maximum_bounds_every_deadline(
    max_s: float | None, asked_s: float | None, passed_s: float | None
) -> None:
    """Later deadlines, and none, come forward to the maximum; nearer ones stay."""
    inner = EchoService(held=True)
    layer = DeadlineLayer(inner, VirtualClock(NOW_S), max_s)
    layer.submit(due(asked_s))
    assert inner.pendings[0].request.deadline_s == passed_s
    streamed = due(asked_s)
    await anext(layer.stream(streamed))
    assert streamed.deadline_s == passed_s
