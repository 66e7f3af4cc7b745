"""Kill a gateway at every step that a rollout takes to the disk, and at every look, and see how it goes on.

Run as a program, `python -m tests.rollouts.shell.crash_points N`, for N points spread over all that there
are; `... N PART PARTS` for every PARTSth of them, from PART on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.rollout import PPM
from gateway.state.chain import Head
from gateway.state.verification import read_records, verify
from tests.rollouts.shell.scene import MODEL, MortalDisk, Scene, rollout
from tests.state.simulated_disk import Fault, Killed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rollouts.shell.scene import Life

_KILLS = (Fault.KILL_BEFORE, Fault.KILL_WITHIN, Fault.KILL_AFTER)
_LOOKS = 24
"""A run that nobody ends is over by then."""
WEIGHTS = (200_000, 500_000)
_REQUESTS = 50


@dataclass(frozen=True)
class Point:
    """Where a run is ended.

    Attributes:
        step: of the disk, or look when `fault` is None.
        fault: how; None: the process is killed between two steps.
        power_lost: what was not flushed is lost, too.
        is_harmful: the canary crashes from the second step on.
        seed: what of the unflushed survives a loss of power.
    """

    step: int
    fault: Fault | None
    power_lost: bool
    is_harmful: bool
    seed: int = 0

    def __str__(self) -> str:
        how = f"at step {self.step}: {self.fault.value}" if self.fault else f"at look {self.step}"
        more = f"{', power lost' if self.power_lost else ''}{', harmful' if self.is_harmful else ''}"
        return f"{how}{more} (seed {self.seed})"


def points(steps: int, seeds: int) -> Iterator[Point]:
    """Yield every point of runs of so many steps."""
    for seed, harmful, power in itertools.product(range(seeds), (False, True), (False, True)):
        for step, fault in itertools.product(range(1, steps + 1), _KILLS):
            yield Point(step, fault, power, harmful, seed)
        for look in range(_LOOKS):
            yield Point(look, None, power, harmful, seed)


class Run:
    """One run of the script, which may be killed."""

    def __init__(self, place: Path, point: Point | None) -> None:
        self.disk = MortalDisk(str(point))
        self.scene = Scene(place, disk=self.disk)
        self.scene.files.put(rollout(weights=WEIGHTS))
        self.scene.loses_power = point is not None and point.power_lost
        self.point = point
        self.confirmed: tuple[int, int] = (0, 0)
        self.was_withdrawn = False
        self.may_be_withdrawn = False

    async def first(self) -> None:
        """Live until the end, or to the point."""
        if self.point is not None and self.point.fault is not None:
            self.disk.fail(self.point.step, self.point.fault)
        try:
            async with self.scene.life(clean=self.point is None) as life:
                await self._go(life)
        except Killed:
            pass
        self.disk.heal()
        assert not self.scene.faults, self.scene.faults

    async def _go(self, life: Life) -> None:
        for look in range(_LOOKS):
            if self.disk.killed or (self.point and self.point.fault is None and look == self.point.step):
                return
            is_bad = self.point is not None and self.point.is_harmful and life.show()["step"]["index"] >= 1
            if is_bad:
                life.crash_canary()
            await life.tick(requests=_REQUESTS)
            self._note(life)

    def _note(self, life: Life) -> None:
        """Keep what the store has confirmed."""
        state = life.controller.rollout("line")
        if state["phase"] == "aborted":
            self.was_withdrawn = True
        elif state["phase"] == "aborting":
            # Whether that is on record nobody has heard before the end.
            self.may_be_withdrawn = True
        if not self.disk.killed:
            self.confirmed = (state["epoch"], state["history"][-1]["serial"] if state["history"] else 0)

    async def second(self) -> None:
        """Start again after it, look what is there, and go on to the end."""
        assert self.point is not None
        reached = max([w.get(2, 0) for w in self.scene.followed.get(MODEL, [])], default=0)
        last = self.scene.epochs.get("line", 0)
        async with self.scene.life() as life:
            state = life.show()
            assert state["epoch"] >= max(self.confirmed[0], last), (state["epoch"], self.confirmed, last)
            now = life.weights().get(2, 0)
            assert now <= _next(reached), (now, reached)
            is_withdrawn = state["phase"] in {"aborting", "aborted"}
            assert is_withdrawn >= self.was_withdrawn, state["phase"]
            assert is_withdrawn <= (self.was_withdrawn or self.may_be_withdrawn), state["phase"]
            await life.until("aborted" if is_withdrawn else "promoted", limit=2 * _LOOKS, requests=_REQUESTS)
            await life.tick(2)
            assert life.weights() == ({1: PPM} if is_withdrawn else {2: PPM})
            assert life.store.under_way == 0
        self._check_chain()

    def _check_chain(self) -> None:
        place = self.scene.place
        with tempfile.TemporaryDirectory() as directory:
            for name in self.disk.names(place / "audit"):
                (Path(directory) / name).write_bytes(self.disk.read(place / "audit" / name))
            found = verify(Path(directory))
            assert found.fault is None, found.fault
            assert found.head != Head()
            records = [r.entry for r in read_records(Path(directory)) if r.entry.rollout == "line"]
        serials = [entry.detail["serial"] for entry in records]
        assert len(set(serials)) == len(serials), f"doubled: {serials}"
        assert sorted(serials) == list(range(1, len(serials) + 1)), f"lost: {serials}"
        moves = [e.detail for e in records if e.kind == "transition"]
        for before, after in itertools.pairwise(moves):
            # What was withdrawn without the store hearing of it is withdrawn in the next life once more.
            again = after["to"] == "aborting" and "withdrawn before the gateway ended" in after["reason"]
            assert before["to"] == after["from"] or again, f"a transition is missing: {moves}"


def _next(weight: int) -> int:
    """Return the weight that may have been stored and not followed yet."""
    return min((w for w in (*WEIGHTS, PPM) if w > weight), default=PPM)


async def _steps(place: Path) -> int:
    run = Run(place, None)
    await run.first()
    assert run.scene.followed[MODEL][-1] == {2: PPM}
    return len(run.disk.steps)


async def _try(place: Path, point: Point) -> None:
    run = Run(place, point)
    await run.first()
    await run.second()


def steps() -> int:
    """Return how many steps of the disk a run takes that nobody ends."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_steps(Path(directory)))


def kill_at(point: Point) -> None:
    """Raise AssertionError, or whatever stops the gateway, if it does not go on as it must after a kill."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_try(Path(directory), point))


def spread(count: int) -> list[Point]:
    """Return so many points, spread evenly over all, with as many seeds as it takes."""
    disk_steps = steps()
    known = list(points(disk_steps, 1))
    known = list(points(disk_steps, -(-count // len(known))))
    return [known[i * len(known) // count] for i in range(count)]


def main(count: int, part: int = 0, parts: int = 1) -> int:
    """Try that many points, or one part of them; print what went wrong."""
    logging.disable(logging.CRITICAL)
    faults = []
    chosen = spread(count)[part::parts]
    for point in chosen:
        try:
            kill_at(point)
        except BaseException as error:  # noqa: BLE001 - any is a finding
            faults.append(f"{point}: {type(error).__name__}: {error}")
    print(json.dumps({"points": len(chosen), "faults": len(faults), "first": faults[:20]}, indent=1))  # noqa: T201
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(*[int(argument) for argument in sys.argv[1:4]] or [1000]))
