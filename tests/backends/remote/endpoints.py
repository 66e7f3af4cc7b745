"""Endpoints in this process that answer, fail, hang and vanish as told; a fleet of them in virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gateway.backends.remote.connection import QueueReport
from gateway.backends.remote.fleet import Fleet
from gateway.backends.remote.timing import pause
from gateway.core.errors import GatewayError
from gateway.core.remote import (
    Address,
    AttemptError,
    ConcurrencyOptions,
    EndpointState,
    FleetOptions,
    HedgingOptions,
    Outcome,
    RetryOptions,
)
from gateway.testing import VirtualClock, settle

T = TypeVar("T")

LONGEST_S = 3600.0
"""Virtual time after which something is taken to hang."""


def address(number: int) -> Address:
    return Address("10.0.0.1", 8000 + number)


def hang() -> Awaitable[None]:
    """Never returns, but for cancellation."""
    return asyncio.get_running_loop().create_future()


@dataclass
class Endpoint:
    """One server.

    Attributes:
        delay_s: how long it takes to answer.
        hangs: it never answers, neither probes nor requests; a connection that is half open looks so.
        down: connections are refused.
        errors: what requests meet, one after the other, over and over; None is a good answer.
        says: what a queue report says.
        probe_s: how long it takes to answer a probe.
    """

    where: Address
    clock: VirtualClock
    delay_s: float = 0.0
    hangs: bool = False
    down: bool = False
    errors: Sequence[GatewayError | None] = (None,)
    says: QueueReport | None = None
    probe_s: float = 0.0
    attempts: int = 0
    running: int = 0
    most_running: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    connections: int = 0
    closed: int = 0
    timeouts: list[float | None] = field(default_factory=list)

    async def answer(self, value: T) -> T:
        number = self.attempts
        self.attempts += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        how = "cancelled"
        try:
            await self._work(number)
            how = "ok"
            return value
        except GatewayError:
            how = "failed"
            raise
        finally:
            self.running -= 1
            self.ended[how] += 1

    async def _work(self, number: int) -> None:
        if self.down:
            raise AttemptError("connection refused", Outcome.FAILED, sent=False)
        if self.hangs:
            await hang()
        await pause(self.clock, self.delay_s)
        error = self.errors[number % len(self.errors)]
        if error is not None:
            raise error


class Wire:
    """A connection to an Endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.open = True
        endpoint.connections += 1

    async def ready(self, timeout_s: float) -> None:
        assert timeout_s > 0
        assert self.open
        self.endpoint.probes += 1
        if self.endpoint.down:
            raise AttemptError("connection refused", Outcome.FAILED, sent=False)
        if self.endpoint.hangs:
            await hang()
        await pause(self.endpoint.clock, self.endpoint.probe_s)

    async def queue_report(self) -> QueueReport | None:
        await asyncio.sleep(0)
        return self.endpoint.says

    async def infer(self, value: T, timeout_s: float | None) -> T:
        assert self.open
        self.endpoint.timeouts.append(timeout_s)
        return await self.endpoint.answer(value)

    async def aclose(self) -> None:
        assert self.open, "closed once"
        self.open = False
        self.endpoint.closed += 1
        await asyncio.sleep(0)


@dataclass
class Seen:
    """A RemoteObserver that counts."""

    attempts: Counter[Outcome] = field(default_factory=Counter)
    by_address: Counter[tuple[Address, Outcome]] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    states: list[tuple[Address, EndpointState]] = field(default_factory=list)

    def on_attempt(self, fleet: str, address: Address, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.attempts[outcome] += 1
        self.by_address[address, outcome] += 1

    def on_decision(self, fleet: str, decision: str) -> None:
        self.decisions[decision] += 1

    def on_endpoint(self, fleet: str, address: Address, state: EndpointState, reason: str) -> None:
        self.states.append((address, state))


class Pushed:
    """An AddressSource that gives what a test pushes."""

    def __init__(self) -> None:
        self._sets: asyncio.Queue[Sequence[Address]] = asyncio.Queue()

    def push(self, addresses: Sequence[Address]) -> None:
        self._sets.put_nowait(addresses)

    async def watch(self) -> AsyncIterator[Sequence[Address]]:
        while True:
            yield await self._sets.get()


GENEROUS = RetryOptions(budget_share=1.0, budget_floor_per_s=1000.0)
OPTIONS = FleetOptions(
    name="f",
    retry=GENEROUS,
    concurrency=ConcurrencyOptions(adaptive=False, initial=16),
    slow_start_s=0.0,
    deadline_margin_s=0.01,
)
HEDGING = HedgingOptions(enabled=True, max_share=1.0)


@dataclass
class World:
    """A fleet in virtual time, its endpoints, and what was observed."""

    clock: VirtualClock
    endpoints: Mapping[Address, Endpoint]
    fleet: Fleet[Wire]
    seen: Seen
    source: Pushed

    def __getitem__(self, number: int) -> Endpoint:
        return self.endpoints[address(number)]

    async def call(
        self, value: Any = 1, *, within_s: float | None = None, operation: Any = None, **fields: Any
    ) -> Any:
        """Send one request, whose answer is `value`; the clock is moved by whoever runs it."""

        async def infer(wire: Wire, timeout_s: float | None) -> Any:
            return await wire.infer(value, timeout_s)

        deadline_s = None if within_s is None else self.clock.now_s() + within_s
        return await self.fleet.call(operation or infer, key="m", deadline_s=deadline_s, **fields)

    async def run(self, work: Awaitable[T]) -> T:
        """Return what `work` returns, moving time whenever nothing else can be done."""
        return await run(self.clock, work)

    async def outcome(self, work: Awaitable[T]) -> T | GatewayError:
        """Return what `work` returns or the error that it raises."""
        try:
            return await self.run(work)
        except GatewayError as error:
            return error

    async def spend(self, seconds: float) -> None:
        """Let virtual time pass, event by event."""
        await self.run(pause(self.clock, seconds))

    async def learn(self) -> None:
        """Have so many quick answers behind it that a slow one stands out; then count anew."""
        for _ in range(70):
            await self.run(self.call())
        self.forget()

    def forget(self) -> None:
        """Count anew what was done and observed."""
        for endpoint in self.endpoints.values():
            endpoint.attempts = 0
            endpoint.ended.clear()
        self.seen.attempts.clear()
        self.seen.by_address.clear()
        self.seen.decisions.clear()

    def idle(self) -> None:
        """Check that nothing is under way."""
        assert all(view.inflight == 0 for view in self.fleet.views())
        assert self.fleet._slots.waiting == 0

    def balanced(self) -> None:
        """Check that nothing is under way, and that every attempt began and ended once."""
        self.idle()
        for where, endpoint in self.endpoints.items():
            assert endpoint.running == 0
            assert sum(endpoint.ended.values()) == endpoint.attempts
            told = sum(n for (address, _), n in self.seen.by_address.items() if address == where)
            called_off = self.seen.by_address[where, Outcome.CANCELLED]
            # A slot that came together with the end of the waiting for it never became an attempt.
            assert endpoint.attempts <= told <= endpoint.attempts + called_off
            assert self.seen.by_address[where, Outcome.OK] <= endpoint.attempts - endpoint.ended["cancelled"]
        assert sum(self.seen.by_address.values()) == sum(self.seen.attempts.values())


async def run(clock: VirtualClock, work: Awaitable[T]) -> T:
    """Return what `work` returns, moving time to the next timer whenever nothing else can be done."""
    task = asyncio.ensure_future(work)
    limit_s = clock.now_s() + LONGEST_S
    try:
        while True:
            await settle(15)
            if task.done():
                return task.result()
            due_s = clock.next_timer_s()
            assert due_s is not None, "nothing will ever happen"
            assert due_s < limit_s, "it hangs"
            clock.advance(max(0.0, due_s - clock.now_s()))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def world(count: int = 2, *, seed: int = 1, push: bool = True, **options: Any) -> AsyncIterator[World]:
    """A fleet of `count` endpoints, each probed once; `options` replace those of `OPTIONS`."""
    clock = VirtualClock()
    endpoints = {address(i): Endpoint(address(i), clock) for i in range(max(count, 4))}
    seen, source = Seen(), Pushed()
    fleet = Fleet(
        replace(OPTIONS, **options),
        lambda where: Wire(endpoints[where]),
        clock,
        seen,
        source=source,
        random=random.Random(seed).random,
    )
    async with fleet:
        if push:
            source.push([address(i) for i in range(count)])
            await run(clock, fleet.wait_probed())
        yield World(clock, endpoints, fleet, seen, source)
    assert clock.next_timer_s() is None, "a timer is left"
    assert all(e.connections == e.closed for e in endpoints.values()), "a connection is left open"
    assert all(e.running == 0 for e in endpoints.values())
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == [], "a task is left"
