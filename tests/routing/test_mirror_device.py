"""What a device's scheduler says of its spare room."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.batching.scheduler import DeviceScheduler
from gateway.core.types import CPU
from gateway.testing import settle


@dataclass
class Runner:
    """Starts so many runs."""

    work: int

    def start_run(self) -> bool:
        self.work -= 1
        return self.work >= 0


async def test_spare_slots_are_what_nobody_runs_in_or_waits_for() -> None:
    """A runner that waits takes all of the spare room, until it has nothing to start any more."""
    scheduler = DeviceScheduler(CPU, 3)
    share = scheduler.join(Runner(1))
    assert scheduler.spare_slots == 3
    share.wake()
    assert scheduler.spare_slots == 0
    await settle()
    assert scheduler.spare_slots == 2
    share.release(0.1)
    assert scheduler.spare_slots == 3


async def test_who_waits_for_room_is_told_once_and_later() -> None:
    """Not while the device is full or wanted, and not in the middle of what made room."""
    scheduler = DeviceScheduler(CPU, 1)
    share = scheduler.join(Runner(2))
    told: list[int] = []
    share.wake()
    await settle()
    scheduler.when_spare(lambda: told.append(scheduler.spare_slots))
    share.release(0.1)
    await settle()
    assert (scheduler.running, told) == (1, [])
    share.release(0.1)
    assert told == []
    await settle()
    assert told == [1]
    share.wake()
    await settle()
    assert told == [1]


async def test_a_wait_that_comes_to_nothing_makes_room_too() -> None:
    """A runner that wanted the device and has nothing to start leaves it to others."""
    scheduler = DeviceScheduler(CPU, 1)
    told: list[int] = []
    scheduler.join(Runner(0)).wake()
    scheduler.when_spare(lambda: told.append(scheduler.spare_slots))
    await settle()
    assert told == [1]
