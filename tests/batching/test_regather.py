"""When the next run is formed where model and event loop share processors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gateway.batching.regather import MOST_S, MOST_SHARE, Regather
from gateway.core.options import BatchingOptions
from gateway.testing import FakeLoadedModel, settle
from tests.batching.harness import Harness, request

if TYPE_CHECKING:
    from gateway.core.pending import Pending

RUN_S = MOST_S / MOST_SHARE / 2  # below it the share decides, above it the maximum


def after_run(regather: Regather, *, answered: int = 4, waiting: int = 4, run_s: float = RUN_S) -> None:
    regather.begin(answered, waiting, run_s, now_s=100.0)


def test_it_waits_until_everybody_is_back() -> None:
    """All that were answered, beside those that waited."""
    regather = Regather()
    after_run(regather)
    assert [regather.over(rows, 64, 100.0) for rows in (4, 7, 8)] == [False, False, True]


def test_a_full_run_waits_for_nobody() -> None:
    """More rows than one run takes are of no use."""
    regather = Regather()
    after_run(regather, answered=60, waiting=4)
    assert regather.over(16, 16, 100.0)


def test_it_waits_for_a_share_of_the_run_and_never_long() -> None:
    """A fifth of a short run, 2 ms of a long one."""
    for run_s, most_s in ((RUN_S, RUN_S * MOST_SHARE), (10.0, MOST_S)):
        regather = Regather()
        after_run(regather, run_s=run_s)
        assert not regather.over(4, 64, 100.0 + 0.99 * most_s)
        assert regather.over(4, 64, 100.0 + 1.01 * most_s)


def waited(regather: Regather, came: int) -> bool:
    """Run once; whether it waited, given how many of 4 came back in time."""
    after_run(regather)
    over_at_once = regather.over(4, 64, 100.0)
    if not over_at_once:
        assert regather.over(4 + came, 64, 101.0)
    return not over_at_once


def test_waits_that_bring_nothing_become_rare_and_others_do_not() -> None:
    """Each fruitless one doubles the runs until the next, up to 64; a fruitful one starts anew."""
    regather = Regather()
    assert all(waited(regather, came=2) for _ in range(5))
    gaps: list[int] = []
    gap = 0
    while len(gaps) < 9:
        if waited(regather, came=0):
            gaps.append(gap)
            gap = 0
        else:
            gap += 1
    assert gaps == [0, 1, 3, 7, 15, 31, 63, 64, 64]
    while not waited(regather, came=4):
        pass
    assert waited(regather, came=4)


def test_requests_that_come_at_times_of_their_own_are_not_waited_for() -> None:
    """What arrives during a wait at the rate of arrivals does not make it worth its time."""
    regather = Regather()
    rate_per_s, random = 5000.0, np.random.default_rng(1)
    runs_waited = 0
    for _ in range(1000):
        rows = int(random.poisson(rate_per_s * RUN_S))
        after_run(regather, answered=rows, waiting=0)
        came = int(random.poisson(rate_per_s * RUN_S * MOST_SHARE))
        if not regather.over(0, 64, 100.0):
            runs_waited += 1
            assert regather.over(came, 64, 101.0)
    assert runs_waited < 50


def come_back(harness: Harness, again: list[Pending], _: Pending) -> None:
    again.append(harness.batcher.submit(request(3.0)))


async def test_a_model_that_overlaps_starts_its_next_run_before_it_answers() -> None:
    """One that does not answers first, and takes those who come back along."""
    for overlaps, together in ((True, 1), (False, 2)):
        model = FakeLoadedModel(held=True, overlaps=overlaps)
        harness = Harness(model, BatchingOptions())
        first = harness.batcher.submit(request(1.0))
        await settle()
        second = harness.batcher.submit(request(2.0))
        again: list[Pending] = []
        first.add_done_callback(partial(come_back, harness, again))
        model.release()
        await settle()
        assert model.batches[1].rows == together
        model.release()
        await settle()
        model.release()
        await settle()
        assert second.done
        assert again[0].done
        assert harness.batcher.queued_rows == harness.batcher.running_rows == 0


async def test_closing_does_not_wait_for_clients() -> None:
    """The room on the device is given back although nobody came."""
    model = FakeLoadedModel(held=True, overlaps=False)
    harness = Harness(model, BatchingOptions())
    pending = harness.batcher.submit(request(1.0))
    await settle()
    model.release()
    await harness.batcher.aclose()
    await settle()
    assert pending.done
    assert harness.batcher.running_rows == 0


async def test_a_model_that_takes_one_request_at_a_time_waits_for_nobody_else() -> None:
    """With one request waiting its next run can be no larger: it starts on the next turn."""
    model = FakeLoadedModel(held=True, overlaps=False)
    harness = Harness(model, BatchingOptions(enabled=False))
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(2)]
    await settle()
    model.release(1)
    await settle(4)
    assert len(model.batches) == 2
    model.release()
    await settle()
    assert all(pending.done for pending in pendings)
