"""Draining."""

import numpy as np
import pytest

from gateway.core.errors import Draining
from gateway.layers.drain import DrainLayer
from gateway.testing import EchoService, infer_request

REQUEST = infer_request(np.zeros((2, 1), np.float32))


async def test_new_requests_are_refused_once_told() -> None:
    """Submit and stream refuse without asking the inner service; before, they don't."""
    inner = EchoService()
    layer = DrainLayer(inner)
    await layer.submit(REQUEST)
    layer.drain()
    assert layer.draining
    with pytest.raises(Draining, match="model 'fake' refused: the server is shutting down"):
        layer.submit(REQUEST)
    with pytest.raises(Draining):
        await anext(layer.stream(REQUEST))
    assert len(inner.pendings) == 1


async def test_what_was_admitted_goes_on() -> None:
    """A pending request is answered and an open stream read to its end."""
    inner = EchoService(held=True)
    layer = DrainLayer(inner)
    pending = layer.submit(REQUEST)
    responses = layer.stream(REQUEST)
    await anext(responses)
    layer.drain()
    inner.answer(inner.pendings[0])
    assert pending.result().outputs == REQUEST.inputs
    assert (await anext(responses)).final
