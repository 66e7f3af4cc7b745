"""Probes of endpoints: how often, what they tell, and that a half-open connection is found."""

import asyncio
import random

import pytest

from gateway.backends.remote.connection import QueueReport
from gateway.backends.remote.probing import Prober
from gateway.backends.remote.timing import pause
from gateway.core.errors import NotReady
from gateway.core.remote import AttemptError, ConcurrencyOptions, FleetOptions, Outcome
from gateway.testing import VirtualClock, settle
from tests.backends.remote.endpoints import Endpoint, Wire, address, hang, run, world

OPTIONS = FleetOptions(name="f", probe_interval_s=1.0, probe_timeout_s=0.5, connect_timeout_s=2.0)


class Told:
    """What a Prober says."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.answers: list[tuple[float, bool, str]] = []
        self.reports: list[QueueReport] = []

    def probed(self, ready: bool, reason: str) -> None:
        self.answers.append((self.clock.now_s(), ready, reason))

    @property
    def times_s(self) -> list[float]:
        return [when_s - self.answers[0][0] for when_s, _, _ in self.answers]


class Probed:
    """A Prober with its endpoint; `spend` runs it for a while."""

    def __init__(self, options: FleetOptions = OPTIONS, seed: int = 1) -> None:
        self.clock = VirtualClock()
        self.endpoint = Endpoint(address(0), self.clock)
        self.told = Told(self.clock)
        self.wire = Wire(self.endpoint)
        self.prober = Prober(
            self.wire,
            options,
            self.clock,
            random.Random(seed).random,
            probed=self.told.probed,
            reported=self.told.reports.append,
        )

    async def spend(self, seconds: float) -> None:
        task = asyncio.ensure_future(self.prober.run())
        try:
            await run(self.clock, pause(self.clock, seconds))
            assert not task.done()
        finally:
            task.cancel()
            await settle()
            assert task.cancelled()


async def test_an_endpoint_is_asked_at_once_and_then_every_interval() -> None:
    """Give or take a tenth, and never twice after the same pause."""
    p = Probed()
    await p.spend(20.0)
    pauses = [b - a for a, b in zip(p.told.times_s, p.told.times_s[1:], strict=False)]
    assert p.told.answers[0][0] == 1000.0
    assert all(0.9 <= pause <= 1.1 for pause in pauses)
    assert len(set(pauses)) == len(pauses) >= 18
    assert all(ready for _, ready, _ in p.told.answers)


async def test_one_that_never_answers_is_found_by_the_time_limit() -> None:
    """A connection that is half open takes the question and gives no answer."""
    p = Probed()
    p.endpoint.hangs = True
    await p.spend(2.2)
    when_s, ready, reason = p.told.answers[0]
    assert (when_s, ready) == (1002.0, False), "the first time it may still have to connect"
    assert reason == "no answer to a probe in 2 s"
    p = Probed()
    await p.spend(0.1)
    p.endpoint.hangs = True
    await p.spend(0.6)
    assert p.told.answers[-1][1:] == (False, "no answer to a probe in 0.5 s")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AttemptError("connection refused", Outcome.FAILED), "connection refused"),
        (NotReady("loading"), "loading"),
        (ValueError("secret"), "probe failed: ValueError"),
    ],
)
async def test_a_probe_that_fails_says_why(error: Exception, reason: str) -> None:
    """Whatever a connection raises, probing goes on."""
    p = Probed()

    async def ready(timeout_s: float) -> None:
        raise error

    p.wire.ready = ready  # type: ignore[method-assign]
    await p.spend(3.0)
    assert len(p.told.answers) >= 3
    assert all(answer[1:] == (False, reason) for answer in p.told.answers)


async def test_a_hint_asks_soon_but_not_without_pause() -> None:
    """A thousand failures a second are no thousand probes."""
    p = Probed()

    async def ready(timeout_s: float) -> None:
        p.prober.hint()

    p.wire.ready = ready  # type: ignore[method-assign]
    await p.spend(1.05)
    assert p.told.times_s == pytest.approx([number * 0.1 for number in range(11)])


async def test_queues_are_asked_for_where_limits_adapt() -> None:
    """Only a report of finished requests is passed on, and only where somebody uses it."""
    p = Probed()
    p.endpoint.says = QueueReport(0.1, 0.2, 3)
    await p.spend(0.5)
    assert p.told.reports == [QueueReport(0.1, 0.2, 3)]
    p = Probed()
    p.endpoint.says = QueueReport(0.0, 0.0, 0)
    await p.spend(0.5)
    assert p.told.reports == []
    p = Probed(FleetOptions(name="f", concurrency=ConcurrencyOptions(adaptive=False)))
    p.endpoint.says = QueueReport(0.1, 0.2, 3)
    await p.spend(0.5)
    assert p.told.reports == []


@pytest.mark.parametrize("error", [AttemptError("no", Outcome.FAILED), KeyError("x"), None])
async def test_a_report_that_cannot_be_had_is_no_failed_probe(error: Exception | None) -> None:
    """It fails or hangs; the endpoint was ready all the same."""
    p = Probed()

    async def queue_report() -> QueueReport | None:
        if error is not None:
            raise error
        await hang()
        return None

    p.wire.queue_report = queue_report  # type: ignore[method-assign]
    await p.spend(5.0)
    assert len(p.told.answers) >= 3
    assert all(ready for _, ready, _ in p.told.answers)


async def test_a_failed_attempt_has_the_endpoint_probed() -> None:
    """What requests meet is looked into before the interval is over."""
    async with world(1, probe_interval_s=1000.0) as w:
        await w.spend(200.0)
        before = w[0].probes
        w[0].errors = (AttemptError("it broke", Outcome.FAILED), None)
        await w.run(w.call())
        await w.spend(0.001)
        assert w[0].probes == before + 1
        await w.spend(500.0)
        assert w[0].probes == before + 1, "one failure is one more probe"
