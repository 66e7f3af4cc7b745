"""Random faults, cancellations, streams and hedges at once, in virtual time: nothing lost, nothing twice."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.backends.remote.timing import pause
from gateway.core.errors import GatewayError, InvalidRequest
from gateway.core.remote import AttemptError, ConcurrencyOptions, HedgingOptions, Outcome, RetryOptions
from tests.backends.remote.endpoints import Wire, World, address, world

ERRORS = (
    None,
    AttemptError("it broke", Outcome.FAILED),
    AttemptError("full", Outcome.REFUSED, sent=False),
    AttemptError("later", Outcome.REFUSED, sent=False, pushback_s=0.05),
    AttemptError("never", Outcome.FAILED, pushback_s=-1.0),
    InvalidRequest("the request's own fault"),
)
CLIENTS, REQUESTS = 16, 30


async def trouble(w: World, dice: random.Random) -> None:
    """Change something about the endpoints, or which there are, time and again."""
    while True:
        await pause(w.clock, dice.uniform(0.05, 0.5))
        endpoint = w[dice.randrange(4)]
        endpoint.down = dice.random() < 0.15
        endpoint.hangs = dice.random() < 0.15
        endpoint.delay_s = dice.choice([0.0, 0.01, 0.1, 0.6])
        endpoint.errors = [dice.choice(ERRORS) if dice.random() < 0.3 else None for _ in range(7)]
        if dice.random() < 0.2:
            w.source.push([address(n) for n in range(4) if dice.random() < 0.8])


class Client:
    """Sends requests of every kind, gives some up, and notes what came of each."""

    def __init__(self, w: World, name: int, dice: random.Random) -> None:
        self.w = w
        self.name = name
        self.dice = dice
        self.came = Counter[str]()

    async def run(self) -> None:
        for number in range(REQUESTS):
            kind = self.streamed if self.dice.random() < 0.2 else self.called
            request = asyncio.ensure_future(kind(number))
            if self.dice.random() < 0.15:
                await pause(self.w.clock, self.dice.uniform(0.0, 0.2))
                request.cancel()
            try:
                await asyncio.wait([request])
                self.came[request.result()] += 1
            except asyncio.CancelledError:
                self.came["cancelled"] += 1
            except GatewayError:
                self.came["failed"] += 1
            await pause(self.w.clock, self.dice.uniform(0.0, 0.1))

    async def called(self, number: int) -> str:
        among = self.dice.choice([None, None, frozenset({address(0), address(2)})])
        mine = (self.name, number)
        answer = await self.w.call(mine, within_s=1.0, among=among, repeatable=self.dice.random() < 0.8)
        assert answer == mine
        return "answered"

    async def streamed(self, number: int) -> str:
        async def items(wire: Wire, timeout_s: float | None) -> AsyncIterator[tuple[int, int]]:
            await wire.infer(None, timeout_s)
            for item in range(3):
                await pause(self.w.clock, 0.01)
                yield number, item

        stream = self.w.fleet.stream(items, key="m", deadline_s=self.w.clock.now_s() + 1.0)
        most = self.dice.choice([1, 5])
        got = []
        try:
            async for item in stream:
                got.append(item)
                if len(got) == most:
                    break
        finally:
            await stream.aclose()
        assert got == [(number, item) for item in range(min(3, most))]
        return "answered"


@pytest.mark.parametrize("seed", range(6))
async def test_every_request_has_one_end(seed: int) -> None:
    """Whatever endpoints do, each request is answered, failed or given up, and nothing is left of it."""
    dice = random.Random(seed)
    async with world(
        4,
        seed=seed,
        retry=RetryOptions(budget_share=0.5),
        hedging=HedgingOptions(enabled=True, max_share=0.2),
        concurrency=ConcurrencyOptions(adaptive=False, initial=3),
        drain_s=0.3,
        slow_start_s=0.0,
    ) as w:
        clients = [Client(w, name, random.Random(f"{seed} {name}")) for name in range(CLIENTS)]
        troubling = asyncio.ensure_future(trouble(w, dice))
        await w.run(asyncio.gather(*(one.run() for one in clients)))
        troubling.cancel()
        came = sum((one.came for one in clients), Counter[str]())
        assert sum(came.values()) == CLIENTS * REQUESTS
        assert came["answered"] > CLIENTS * REQUESTS // 4
        w.idle()
        assert all(endpoint.running == 0 for endpoint in w.endpoints.values())
        began = sum(endpoint.attempts for endpoint in w.endpoints.values())
        assert began <= sum(w.seen.attempts.values()) <= began + w.seen.attempts[Outcome.CANCELLED]
        w.source.push([address(n) for n in range(4)])
        for endpoint in w.endpoints.values():
            endpoint.down = endpoint.hangs = False
            endpoint.errors, endpoint.delay_s = (None,), 0.0
        await w.spend(300.0)
        assert [await w.call(n) for n in range(20)] == list(range(20))
