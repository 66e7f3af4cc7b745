"""Three endpoints under load while one of them misbehaves, in virtual time: what clients see of it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from gateway.backends.remote.timing import pause
from gateway.core.errors import GatewayError
from gateway.core.remote import AttemptError, Outcome, RetryOptions
from tests.backends.remote.endpoints import Endpoint, World, world

BROKEN = AttemptError("internal error", Outcome.FAILED)
FULL = AttemptError("queue is full", Outcome.REFUSED, sent=False)
NO_VERSION = AttemptError("no such version", Outcome.FAILED, sent=False)

SERVICE_S = 0.02
CLIENTS = 12
"""About a third of what three endpoints could have under way; each pauses as long as it waited."""
FAULT_S, SETTLED_S, HEALED_S, END_S = 2.0, 7.0, 12.0, 30.0


@dataclass
class Load:
    """Requests that came to an end: when they began and whether they failed."""

    ended: list[tuple[float, bool]] = field(default_factory=list)
    errors: list[GatewayError] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> list[bool]:
        return [failed for when_s, failed in self.ended if begin_s <= when_s < end_s]


async def client(w: World, name: int, load: Load, began_s: float) -> None:
    pauses = random.Random(name)
    for number in range(10**6):
        when_s = w.clock.now_s() - began_s
        if when_s >= END_S:
            return
        try:
            answer = await w.call((name, number), within_s=1.0)
            assert answer == (name, number), "every request gets its own answer"
            load.ended.append((when_s, False))
        except GatewayError as error:
            load.ended.append((when_s, True))
            load.errors.append(error)
        await pause(w.clock, 0.1 + 0.1 * pauses.random())


def killed(endpoint: Endpoint) -> None:
    endpoint.down = True


def stopped(endpoint: Endpoint) -> None:
    endpoint.hangs = True


def half_broken(endpoint: Endpoint) -> None:
    endpoint.errors = (BROKEN, None)


def broken(endpoint: Endpoint) -> None:
    endpoint.errors = (BROKEN,)


def slow(endpoint: Endpoint) -> None:
    endpoint.delay_s += 0.5


def overloaded(endpoint: Endpoint) -> None:
    endpoint.errors = (FULL,)


def wrong_version(endpoint: Endpoint) -> None:
    endpoint.errors = (NO_VERSION,)


def nothing(_endpoint: Endpoint) -> None:
    pass


@pytest.mark.parametrize(
    "fault",
    [nothing, killed, stopped, broken, half_broken, slow, overloaded, wrong_version],
    ids=lambda fault: fault.__name__,
)
async def test_one_bad_endpoint_of_three_is_hardly_noticed(fault: Callable[[Endpoint], None]) -> None:
    """Errors end within five seconds, retries stay few, and the endpoint serves again once it is well."""
    retry = RetryOptions()
    async with world(3, retry=retry, slow_start_s=1.0) as w:
        for number in range(3):
            w[number].delay_s = SERVICE_S
        load, began_s = Load(), w.clock.now_s()
        clients = [asyncio.ensure_future(client(w, name, load, began_s)) for name in range(CLIENTS)]
        await w.spend(FAULT_S)
        fault(w[0])
        await w.spend(HEALED_S - FAULT_S)
        w[0].down = w[0].hangs = False
        w[0].errors, w[0].delay_s = (None,), SERVICE_S
        healed_at = w[0].ended["ok"]
        for one in clients:
            await w.run(one)
        w.balanced()

        requests = len(load.ended)
        attempts = sum(w.seen.attempts.values())
        assert attempts == requests + w.seen.decisions["retry"]
        assert w.seen.attempts[Outcome.OK] == requests - len(load.errors)
        assert attempts <= 1.1 * requests + retry.budget_floor_per_s * END_S
        assert not any(load.between(0.0, FAULT_S - 1.0))
        after = load.between(SETTLED_S, END_S)
        assert sum(after) <= 0.005 * len(after)
        assert not any(load.between(HEALED_S + 1.0, END_S))
        later = sum(w[number].ended["ok"] for number in (1, 2))
        assert w[0].ended["ok"] - healed_at > 0.05 * later
        if fault is nothing:
            assert not load.errors
            assert not w.seen.decisions


async def test_all_endpoints_bad_costs_few_attempts() -> None:
    """When nothing works there is no storm: hardly more attempts than requests, each answered once."""
    retry = RetryOptions()
    async with world(3, retry=retry) as w:
        load, began_s = Load(), w.clock.now_s()
        for number in range(3):
            w[number].delay_s = SERVICE_S
            broken(w[number])
        clients = [asyncio.ensure_future(client(w, name, load, began_s)) for name in range(CLIENTS)]
        await w.spend(END_S / 2)
        assert len(load.errors) == len(load.ended)
        requests = len(load.ended) + CLIENTS
        assert (
            sum(w.seen.attempts.values()) <= 1.1 * requests + retry.budget_floor_per_s * END_S / 2 + CLIENTS
        )
        for number in range(3):
            w[number].errors = (None,)
        for one in clients:
            await w.run(one)
        assert not any(load.between(END_S - 2.0, END_S)), "it serves again when they do"
        w.balanced()
