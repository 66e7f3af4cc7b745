"""What every InferenceService must do, whatever is behind it: a suite to subclass with a fixture."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import pytest

from gateway.core.errors import Cancelled
from gateway.core.interfaces import InferenceService
from gateway.core.pending import Pending
from gateway.core.types import InferRequest
from gateway.testing import settle


@dataclass
class ServiceUnderTest:
    """A service that answers a request with its first input, once it is told to.

    Attributes:
        service: the service.
        request: makes a request of one value.
        answer: lets everything admitted so far, and whatever comes later, be answered.
    """

    service: InferenceService
    request: Callable[[float], InferRequest]
    answer: Callable[[], None]


class InferenceServiceContract:
    """The contract; a subclass defines a fixture `subject`."""

    async def test_completion_never_comes_before_submit_returns(self, subject: ServiceUnderTest) -> None:
        """Even when the answer is at hand the caller gets an open Pending first."""
        subject.answer()
        pending = subject.service.submit(subject.request(1.0))
        assert not pending.done
        np.testing.assert_array_equal((await pending).outputs[0].array.ravel(), [1.0])

    async def test_callbacks_run_in_order_and_one_that_raises_does_not_stop_the_next(
        self, subject: ServiceUnderTest
    ) -> None:
        """Every layer hears of the completion, inner ones first."""
        heard: list[str] = []

        def broken(_: Pending) -> None:
            heard.append("broken")
            raise ValueError("a layer is wrong")

        pending = subject.service.submit(subject.request(1.0))
        pending.add_done_callback(lambda _: heard.append("inner"))
        pending.add_done_callback(broken)
        pending.add_done_callback(lambda _: heard.append("outer"))
        subject.answer()
        await pending
        assert heard == ["inner", "broken", "outer"]

    async def test_every_request_gets_its_own_answer_once(self, subject: ServiceUnderTest) -> None:
        """Requests under way together are not mixed up."""
        counts = [0] * 20
        pendings = [subject.service.submit(subject.request(float(tag))) for tag in range(20)]

        def count(index: int) -> Callable[[Pending], None]:
            def note(_: Pending) -> None:
                counts[index] += 1

            return note

        for index, pending in enumerate(pendings):
            pending.add_done_callback(count(index))
        subject.answer()
        assert [float((await pending).outputs[0].array.ravel()[0]) for pending in pendings] == list(range(20))
        await settle()
        assert counts == [1] * 20

    async def test_a_cancelled_request_is_completed_at_once_and_only_once(
        self, subject: ServiceUnderTest
    ) -> None:
        """Cancelling harms nobody else, and a second cancellation does nothing."""
        pendings = [subject.service.submit(subject.request(float(tag))) for tag in range(3)]
        assert pendings[1].cancel()
        assert pendings[1].done
        assert not pendings[1].cancel()
        with pytest.raises(Cancelled):
            await pendings[1]
        subject.answer()
        assert [float((await pendings[n]).outputs[0].array.ravel()[0]) for n in (0, 2)] == [0.0, 2.0]

    async def test_a_stream_gives_the_answer_and_ends(self, subject: ServiceUnderTest) -> None:
        """Exactly the last response is final."""
        subject.answer()
        finals: list[bool] = []
        async with aclosing(subject.service.stream(subject.request(4.0))) as responses:  # type: ignore[type-var]  # every service's is a generator
            async for response in responses:
                np.testing.assert_array_equal(response.outputs[0].array.ravel(), [4.0])
                finals.append(response.final)
        assert finals == [True]
