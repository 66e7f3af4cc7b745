"""Requests to a fleet: where they go, what is sent again, what is answered in the end."""

import asyncio

import pytest

from gateway.core.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    Overloaded,
)
from gateway.core.remote import AttemptError, ConcurrencyOptions, EjectionOptions, Outcome, RetryOptions
from gateway.testing import settle
from tests.backends.remote.endpoints import GENEROUS, address, world

FAILED = AttemptError("it broke", Outcome.FAILED)
UNSENT = AttemptError("refused", Outcome.FAILED, sent=False)
FULL = AttemptError("queue is full", Outcome.REFUSED, sent=False)
ONE_SLOT = ConcurrencyOptions(adaptive=False, initial=1)


async def test_a_request_is_answered_by_one_attempt() -> None:
    """One attempt, one answer, the time that is left less the margin."""
    async with world(2) as w:
        assert await w.run(w.call("answer", within_s=1.0)) == "answer"
        (timeout_s,) = w[0].timeouts + w[1].timeouts
        assert timeout_s == pytest.approx(0.99)
        assert w.seen.attempts == {Outcome.OK: 1}
        assert not w.seen.decisions
        w.balanced()


async def test_no_deadline_is_no_limit() -> None:
    """An operation is told None where nobody set a limit."""
    async with world(1) as w:
        await w.run(w.call())
        assert w[0].timeouts == [None]


async def test_a_failure_is_sent_again_elsewhere() -> None:
    """The second attempt never goes where the first failed while another is there."""
    async with world(3) as w:
        for number in range(3):
            w[number].errors = (FAILED,) if number == 0 else (None,)
        for _ in range(30):
            assert await w.run(w.call(7)) == 7
        assert w[0].attempts > 0
        assert w.seen.attempts[Outcome.FAILED] == w[0].attempts == w.seen.decisions["retry"]
        assert w.seen.attempts[Outcome.OK] == 30
        w.balanced()


async def test_another_endpoint_that_is_busy_is_waited_for() -> None:
    """What has failed a request is not asked again as long as another one may take it soon."""
    async with world(2, concurrency=ONE_SLOT) as w:
        w[0].delay_s, w[1].errors = 1.0, (FAILED,)
        busy = asyncio.ensure_future(w.call("busy", among=[address(0)]))
        await settle()
        assert await w.run(w.call("answer")) == "answer"
        assert await w.run(busy) == "busy"
        assert (w[0].attempts, w[1].attempts) == (2, 1)


async def test_the_only_endpoint_is_tried_again() -> None:
    """With nowhere else to go the same endpoint gets another chance."""
    async with world(1) as w:
        w[0].errors = (FAILED, FAILED, None)
        assert await w.run(w.call(7)) == 7
        assert w[0].attempts == 3


async def test_what_failed_everywhere_names_the_model_and_no_address() -> None:
    """The answer says how many endpoints were tried of how many."""
    async with world(3) as w:
        for number in range(3):
            w[number].errors = (FAILED,)
        error = await w.outcome(w.call())
        assert type(error) is BackendUnavailable
        assert str(error) == "m: failed, 3 of 3 endpoints tried: it broke"
        assert sum(w[number].attempts for number in range(3)) == 3
        assert [w[number].attempts for number in range(3)] == [1, 1, 1]
        w.balanced()


async def test_what_is_full_everywhere_is_overloaded() -> None:
    """Endpoints that refuse have not failed, and their pushback is passed on."""
    async with world(2, retry=RetryOptions(attempts=2, budget_share=1.0)) as w:
        full = AttemptError("queue is full", Outcome.REFUSED, sent=False, pushback_s=0.5)
        w[0].errors = w[1].errors = (full,)
        error = await w.outcome(w.call())
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == 0.5
        assert w.seen.attempts == {Outcome.REFUSED: 2}


@pytest.mark.parametrize(
    ("error", "repeatable", "attempts"),
    [(FAILED, True, 3), (FAILED, False, 1), (UNSENT, False, 3), (FULL, False, 3)],
)
async def test_only_what_is_safe_is_sent_again(error: AttemptError, repeatable: bool, attempts: int) -> None:
    """What may have run is sent again only if it is repeatable; what surely has not, always."""
    async with world(2) as w:
        w[0].errors = w[1].errors = (error,)
        await w.outcome(w.call(repeatable=repeatable))
        assert w[0].attempts + w[1].attempts == attempts


async def test_an_answer_that_is_an_error_is_not_sent_again() -> None:
    """The request's own fault is the answer, and says nothing against the endpoint."""
    async with world(2) as w:
        w[0].errors = w[1].errors = (InvalidRequest("wrong shape"),)
        error = await w.outcome(w.call())
        assert isinstance(error, InvalidRequest)
        assert w.seen.attempts == {Outcome.OK: 1}


async def test_a_fault_of_ours_goes_through_and_gives_the_slot_back() -> None:
    """An operation that raises anything else is not sent again."""
    async with world(2) as w:

        async def broken(_wire: object, _timeout_s: float | None) -> int:
            raise KeyError("codec")

        with pytest.raises(KeyError):
            await w.run(w.call(operation=broken))
        assert w.seen.attempts == {Outcome.FAILED: 1}
        w.idle()


async def test_retries_are_bounded_by_attempts() -> None:
    """One attempt: no retries."""
    async with world(3, retry=RetryOptions(attempts=1)) as w:
        for number in range(3):
            w[number].errors = (FAILED,)
        await w.outcome(w.call())
        assert w.seen.attempts == {Outcome.FAILED: 1}
        assert not w.seen.decisions


async def test_retries_are_bounded_by_the_budget() -> None:
    """When everything fails few requests are sent twice, and each refusal is counted."""
    retry = RetryOptions(budget_share=0.1, budget_floor_per_s=0.0)
    async with world(3, retry=retry, ejection=EjectionOptions(consecutive=1000, min_volume=1000)) as w:
        for number in range(3):
            w[number].errors = (FAILED,)
        results = await w.run(asyncio.gather(*(w.call() for _ in range(40)), return_exceptions=True))
        assert all(isinstance(result, BackendUnavailable) for result in results)
        retries = w.seen.decisions["retry"]
        assert w.seen.attempts[Outcome.FAILED] == 40 + retries
        assert w.seen.decisions["retry_refused_budget"] > 0
        w.balanced()


async def test_pushback_refuses_or_delays() -> None:
    """A server that wants no retry gets none; one that names a pause is left alone so long."""
    async with world(1) as w:
        w[0].errors = (AttemptError("no", Outcome.FAILED, pushback_s=-1.0),)
        await w.outcome(w.call())
        assert w[0].attempts == 1
        assert w.seen.decisions == {"retry_refused_pushback": 1}
    async with world(1) as w:
        w[0].errors = (AttemptError("later", Outcome.REFUSED, pushback_s=3.0), None)
        began_s = w.clock.now_s()
        assert await w.run(w.call(5)) == 5
        assert w.clock.now_s() - began_s >= 3.0


async def test_no_retry_begins_after_the_deadline() -> None:
    """A pause that ends after the deadline is not begun: the failure is the answer."""
    async with world(1) as w:
        w[0].errors = (AttemptError("later", Outcome.REFUSED, pushback_s=3.0),)
        began_s = w.clock.now_s()
        error = await w.outcome(w.call(within_s=1.0))
        assert isinstance(error, Overloaded)
        assert w.clock.now_s() == began_s
        assert w[0].attempts == 1


async def test_a_deadline_ends_what_hangs() -> None:
    """An operation that ignores its time is ended, at the deadline and not before."""
    async with world(1) as w:
        w[0].hangs = True
        began_s = w.clock.now_s()
        error = await w.outcome(w.call(within_s=0.5))
        assert isinstance(error, DeadlineExceeded)
        assert w.clock.now_s() - began_s == pytest.approx(0.5)
        assert w.seen.attempts == {Outcome.TIMED_OUT: 1}
        w.balanced()


async def test_a_deadline_already_over_sends_nothing() -> None:
    """No attempt is made for nobody."""
    async with world(1) as w:
        error = await w.outcome(w.call(within_s=0.005))
        assert isinstance(error, DeadlineExceeded)
        assert w[0].attempts == 0
        w.balanced()


async def test_an_attempt_that_takes_too_long_is_sent_elsewhere() -> None:
    """A limit per attempt leaves time for another endpoint."""
    async with world(2, attempt_timeout_s=0.2) as w:
        w[0].hangs = True
        answers = [await w.run(w.call(i, within_s=2.0)) for i in range(8)]
        assert answers == list(range(8))
        assert w.seen.attempts[Outcome.TIMED_OUT] == w[0].attempts > 0
        w.balanced()


async def test_requests_wait_for_room_in_their_turn() -> None:
    """Two endpoints with one slot each run ten requests two at a time, in order."""
    async with world(2, concurrency=ONE_SLOT) as w:
        w[0].delay_s = w[1].delay_s = 1.0
        done: list[int] = []

        async def one(number: int) -> None:
            done.append(await w.call(number))

        await w.run(asyncio.gather(*(one(number) for number in range(10))))
        assert [n // 2 for n in done] == [n // 2 for n in range(10)]
        assert w[0].most_running == w[1].most_running == 1
        assert w.seen.decisions == {"limit_full": 8}
        w.balanced()


async def test_a_full_line_refuses() -> None:
    """The line is bounded: whoever comes after is refused at once."""
    async with world(1, concurrency=ONE_SLOT) as w:
        w[0].delay_s = 0.001
        results = await w.run(asyncio.gather(*(w.call(i) for i in range(70)), return_exceptions=True))
        refused = [i for i, result in enumerate(results) if isinstance(result, Overloaded)]
        assert refused == list(range(65, 70))
        assert results[:65] == list(range(65))
        w.balanced()


async def test_waiting_for_room_ends_at_the_deadline() -> None:
    """One that waits in vain is answered in time and leaves the line."""
    async with world(1, concurrency=ONE_SLOT) as w:
        w[0].delay_s = 1.0
        first = asyncio.ensure_future(w.call(1))
        await settle()
        error = await w.outcome(w.call(2, within_s=0.5))
        assert isinstance(error, DeadlineExceeded)
        assert await w.run(first) == 1
        assert w[0].attempts == 1
        w.balanced()


async def test_requests_stay_among_their_endpoints() -> None:
    """Retries and waiting never leave the set that has the version wanted."""
    async with world(3) as w:
        w[1].errors = (FAILED,)
        error = await w.outcome(w.call(among=frozenset({address(1)})))
        assert isinstance(error, BackendUnavailable)
        assert (w[0].attempts, w[2].attempts) == (0, 0)
        assert w[1].attempts == GENEROUS.attempts


async def test_those_who_wait_for_one_endpoint_do_not_hold_up_others() -> None:
    """Room at one endpoint goes to the first in line that may use it."""
    async with world(2, concurrency=ONE_SLOT) as w:
        w[0].delay_s, w[1].delay_s = 10.0, 1.0
        only = [frozenset({address(0)}), frozenset({address(1)})]
        order: list[str] = []

        async def one(name: str, number: int) -> None:
            await w.call(among=only[number])
            order.append(name)

        await w.run(asyncio.gather(one("a", 0), one("b", 0), one("c", 1), one("d", 1)))
        assert order == ["c", "d", "a", "b"]


async def test_nobody_there_is_said_at_once() -> None:
    """Without an endpoint, or without one that has the version, there is nothing to wait for."""
    async with world(0) as w:
        error = await w.outcome(w.call())
        assert isinstance(error, BackendUnavailable)
        assert str(error) == "m: none of its endpoints is available"
        assert w.seen.decisions == {"no_endpoint": 1}
    async with world(2) as w:
        assert isinstance(await w.outcome(w.call(among=frozenset())), BackendUnavailable)


async def test_endpoints_that_were_just_found_are_waited_for() -> None:
    """The first request may come before the first probe was answered."""
    async with world(2, push=False) as w:
        w[0].probe_s = 0.5
        w.source.push([address(0)])
        await settle()
        began_s = w.clock.now_s()
        assert await w.run(w.call(3)) == 3
        assert w.clock.now_s() - began_s == pytest.approx(0.5)


async def test_leaving_a_fleet_refuses_those_in_line() -> None:
    """Closing answers everybody; what hangs is ended with its connection."""
    async with world(1, concurrency=ONE_SLOT) as w:
        w[0].delay_s = 1.0
        calls = [asyncio.ensure_future(w.call(number)) for number in range(3)]
        await settle()
        await w.fleet.__aexit__(None, None, None)
        await settle()
        assert [call.done() for call in calls] == [False, True, True]
        assert all(isinstance(call.exception(), BackendUnavailable) for call in calls[1:])
        assert isinstance(await w.outcome(w.call()), BackendUnavailable)
        assert await w.run(calls[0]) == 0


async def test_a_connection_closed_underneath_is_a_failure_elsewhere_mended() -> None:
    """A cancellation that nobody asked for is an attempt that failed."""
    async with world(2) as w:
        attempts = 0

        async def closed(wire: object, _timeout_s: float | None) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise asyncio.CancelledError
            return 9

        assert await w.run(w.call(operation=closed)) == 9
        assert w.seen.attempts == {Outcome.FAILED: 1, Outcome.OK: 1}


def test_errors_of_this_module_are_of_the_tree() -> None:
    """What tests raise is what connections raise."""
    assert issubclass(AttemptError, GatewayError)
