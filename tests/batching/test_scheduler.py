"""Sharing one device among several runners."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.batching.scheduler import DeviceScheduler
from gateway.core.types import CPU
from gateway.testing import settle


@dataclass
class ScriptedRunner:
    """Starts runs of a given cost while it has work, and keeps the order in a shared list."""

    name: str
    cost_s: float
    order: list[str] = field(default_factory=list)
    work: int = 10**9

    def start_run(self) -> bool:
        if self.work == 0:
            return False
        self.work -= 1
        self.order.append(self.name)
        return True


@pytest.mark.parametrize("slots", [1, 3])
async def test_runners_with_work_get_equal_device_time(slots: int) -> None:
    """A model whose runs take five times as long gets a fifth of the runs, not five times the device."""
    order: list[str] = []
    scheduler = DeviceScheduler(CPU, slots)
    runners = {r.name: r for r in [ScriptedRunner("long", 0.5, order), ScriptedRunner("short", 0.1, order)]}
    shares = {name: scheduler.join(runner) for name, runner in runners.items()}
    for share in shares.values():
        share.wake()
    await settle()
    seconds = dict.fromkeys(runners, 0.0)
    for ended in range(600):
        name = order[ended]
        seconds[name] += runners[name].cost_s
        shares[name].wake()
        shares[name].release(runners[name].cost_s)
        assert scheduler.running == slots
    assert seconds["long"] == pytest.approx(seconds["short"], rel=0.05)


async def test_idleness_is_not_saved_up() -> None:
    """A runner that comes back after others had the device for long does not then get it for as long."""
    order: list[str] = []
    scheduler = DeviceScheduler(CPU, 1)
    busy, late = ScriptedRunner("busy", 0.1, order), ScriptedRunner("late", 0.1, order)
    shares = {"busy": scheduler.join(busy), "late": scheduler.join(late)}
    shares["busy"].wake()
    await settle()
    for ended in range(120):
        if ended == 100:
            shares["late"].wake()
        shares[order[ended]].wake()
        shares[order[ended]].release(0.1)
    assert 8 <= order[101:].count("late") <= 12


async def test_room_is_never_exceeded_nor_left_empty_while_there_is_work() -> None:
    """Runs start up to the number of slots, and the next starts as soon as one is released."""
    scheduler = DeviceScheduler(CPU, 2)
    runner = ScriptedRunner("a", 0.1, work=5)
    share = scheduler.join(runner)
    share.wake()
    assert (scheduler.running, runner.order) == (0, []), "nothing starts before the caller has returned"
    await settle()
    assert scheduler.running == 2
    for left in [2, 2, 2, 1, 0]:
        share.release(0.1)
        assert scheduler.running == left


async def test_a_runner_that_had_nothing_is_asked_again_when_it_wakes() -> None:
    """Dropping out is not for ever."""
    scheduler = DeviceScheduler(CPU, 1)
    runner = ScriptedRunner("a", 0.1, work=0)
    share = scheduler.join(runner)
    share.wake()
    await settle()
    runner.work = 1
    await settle()
    assert scheduler.running == 0
    share.wake()
    await settle()
    assert scheduler.running == 1
