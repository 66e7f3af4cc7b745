"""Cancellation, timeouts and priorities of requests that wait in a queue or run, through every client.

The models `patient` and `ranked` start a run only when four rows are there, so what waits is known.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.utils import InferenceServerException

from tests.acceptance.clients import CANCELLED, WAYS, Begun, Client, connected, refusal
from tests.acceptance.process import RunningGateway, until
from tests.acceptance.test_describe import counters

LONG_RUN = 1 << 19
"""Loops that keep the model `counting` busy for about a second."""

GAVE_UP = (TimeoutError, InferenceServerException)


def column(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 1)


def counting(client: Client, loops: int) -> list[object]:
    return client.inputs({"x": np.zeros(1, np.float32), "loops": np.array(loops, np.int64)})


CANCELLING = pytest.mark.parametrize(("kind", "transport"), [way for way in WAYS if way[0] != "http"])
"""The clients that can cancel: tritonclient.http has no way to."""


def assert_whole_batch(client: Client, batches_before: int) -> None:
    """Four rows go through the model `patient` at once, and nothing but them."""
    rows = column(1, 2, 3, 4)
    assert client.infer("patient", {"x": rows}).as_numpy("y").tolist() == rows.tolist()
    assert counters(client, "patient")["batch.4"] == batches_before + 1


@CANCELLING
def test_a_cancelled_request_leaves_the_queue(client: Client, zoo: RunningGateway) -> None:
    """It waits no more and is in no batch afterwards."""
    before = counters(client, "patient")
    begun = client.begin("patient", client.inputs({"x": column(9)}))
    until(lambda: zoo.waiting("patient") == 1)
    begun.cancel()
    with pytest.raises(CANCELLED):
        begun.result(30)
    until(lambda: zoo.waiting("patient") == 0)
    assert_whole_batch(client, before.get("batch.4", 0))
    after = counters(client, "patient")
    assert after["inference_count"] == before["inference_count"] + 4


def cancelled_in_its_run(client: Client, zoo: RunningGateway) -> None:
    """Cancel a run and raise what the client does; a busy machine may come too late for a short one."""
    for loops in (LONG_RUN, 4 * LONG_RUN, 16 * LONG_RUN):
        begun = client.begin("counting", counting(client, loops))
        until(partial(under_way, begun, zoo))
        begun.cancel()
        begun.result(30)


def under_way(begun: Begun, zoo: RunningGateway) -> bool:
    return begun.done() or zoo.counter("gateway_inflight_requests") == 1


@CANCELLING
def test_a_request_cancelled_while_it_runs_harms_nobody(client: Client, zoo: RunningGateway) -> None:
    """The caller is free at once; the server answers others during the run and this model after it."""
    with pytest.raises(CANCELLED):
        cancelled_in_its_run(client, zoo)
    assert client.infer("scaled", {"x": np.ones((1, 2), np.float32)}).as_numpy("y").tolist() == [[2, 2]]
    result = client.call("infer", "counting", counting(client, 5))
    assert result.as_numpy("y").tolist() == [5]


@pytest.mark.parametrize("kind", ["http", "http.aio"])
def test_a_client_that_waits_no_longer(kind: str, zoo: RunningGateway) -> None:
    """Its request leaves the queue with it: HTTP tells the server nothing of the client's patience."""
    with connected(kind, zoo) as client:
        before = counters(client, "patient").get("batch.4", 0)
        with connected(kind, zoo, timeout_s=0.5) as hasty, pytest.raises(TimeoutError):
            hasty.infer("patient", {"x": column(9)})
        until(lambda: zoo.waiting("patient") == 0)
        assert_whole_batch(client, before)


def test_a_run_longer_than_the_client_waits(kind: str, zoo: RunningGateway) -> None:
    """The client reports its own time limit; the server is at its service again at once."""
    with connected(kind, zoo, timeout_s=0.1) as hasty, pytest.raises(GAVE_UP) as raised:
        hasty.call("infer", "counting", counting(hasty, LONG_RUN))
    if isinstance(raised.value, InferenceServerException):
        assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    with connected(kind, zoo) as client:
        assert client.infer("scaled", {"x": np.ones((1, 2), np.float32)}).as_numpy("y").tolist() == [[2, 2]]


def test_the_timeout_parameter_is_over_at_once(client: Client) -> None:
    """A microsecond is over before anything can run."""
    code, message = refusal(
        client, lambda: client.infer("scaled", {"x": np.ones((1, 2), np.float32)}, timeout=1)
    )
    assert code == "DEADLINE_EXCEEDED"
    assert message.startswith("request for model 'scaled' arrived")
    assert message.endswith("after its deadline; nothing was run")


def test_the_timeout_parameter_bounds_the_time_in_queue(client: Client, zoo: RunningGateway) -> None:
    """A request behind long runs is answered when its time is over, and they are not disturbed."""
    busy = [client.begin("counting", counting(client, LONG_RUN)) for _ in range(2)]
    until(lambda: zoo.counter("gateway_inflight_requests") == 2 or busy[0].done())
    code, message = refusal(
        client, lambda: client.call("infer", "counting", counting(client, 1), timeout=20_000)
    )
    assert code == "DEADLINE_EXCEEDED"
    assert "request for model 'counting' reached its deadline" in message
    assert [begun.result(60).as_numpy("y").tolist() for begun in busy] == [[LONG_RUN]] * 2


def test_higher_priorities_go_first(client: Client, zoo: RunningGateway) -> None:
    """Of six rows that wait, a run of four takes those of priority 1, though they came last."""
    waiting = []
    for value, priority in ((1, 2), (2, 2), (3, 1)):
        waiting.append(client.begin("ranked", client.inputs({"x": column(value)}), priority=priority))
        until(lambda: zoo.waiting("ranked") == len(waiting))
    last = client.infer("ranked", {"x": column(4, 5, 6)}, priority=1)
    assert last.as_numpy("y").tolist() == [[4], [5], [6]]
    assert waiting[2].result(30).as_numpy("y").tolist() == [[3]]
    assert zoo.waiting("ranked") == 2
    client.infer("ranked", {"x": column(7, 8)})
    assert [begun.result(30).as_numpy("y").tolist() for begun in waiting[:2]] == [[[1]], [[2]]]


def test_a_priority_that_is_not_offered(client: Client) -> None:
    """The refusal names the levels there are."""
    code, message = refusal(client, lambda: client.infer("ranked", {"x": column(1)}, priority=3))
    assert code == "INVALID_ARGUMENT"
    assert "expected 1 (highest) to 2" in message


def test_many_at_once(client: Client) -> None:
    """Requests begun together are each answered with their own rows."""
    numbers = range(40)
    inputs = [client.inputs({"x": np.full((1, 2), number, np.float32)}) for number in numbers]
    begun = [client.begin("scaled", one) for one in inputs]
    answers = [one.result(60).as_numpy("y").tolist() for one in begun]
    assert answers == [[[2.0 * number] * 2] for number in numbers]
