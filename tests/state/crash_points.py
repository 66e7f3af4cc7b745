"""Break a journal and a chain at every step of what they do, and look what the next process makes of it.

Run as a program, `python -m tests.state.crash_points SEEDS`, for as many seeds as wanted: each decides
otherwise what of the unflushed survives a loss of power.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.state import AuditEntry, StateUnavailable
from gateway.state.audit_files import ChainFiles
from gateway.state.chain import Head
from gateway.state.errors import OutcomeUnknown
from gateway.state.journal import Entry, Journal, JournalOptions, encode
from gateway.state.verification import read_records, verify
from tests.state.simulated_disk import Fault, Killed, SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Path("/state")
OPTIONS = JournalOptions(compact_bytes=6_000)
Documents = dict[str, Entry]


@dataclass(frozen=True)
class Point:
    """Where and how one run is broken."""

    step: int
    fault: Fault
    power_lost: bool
    seed: int

    def __str__(self) -> str:
        power = ", then the power fails" if self.power_lost else ""
        return f"step {self.step}: {self.fault.value}{power} (seed {self.seed})"


def points(steps: int, seeds: int) -> Iterator[Point]:
    """Yield every point of a run of so many steps."""
    for step, fault, power_lost, seed in itertools.product(
        range(1, steps + 1), Fault, (False, True), range(seeds)
    ):
        yield Point(step, fault, power_lost, seed)


# The journal.


class JournalRun:
    """Writes documents and keeps account of what must be there, and of what may."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.known: Documents = {}
        self.may_be: Documents = {}
        self._number = 0

    def open(self) -> Journal:
        journal = Journal(PLACE, OPTIONS, self.disk)
        journal.open()
        return journal

    def write(self, journal: Journal, count: int) -> None:
        """Write and delete, as far as the disk lets."""
        for _ in range(count):
            self._number += 1
            key = f"rollouts/{self._number % 3}"
            text = encode({"n": self._number, "fill": "x" * (self._number * 397 % 1900)})
            self._put(journal, key, None if self._number % 7 == 0 and self._is_there(key) else text)

    def _is_there(self, key: str) -> bool:
        return key in self.known and self.known[key].text is not None

    def _put(self, journal: Journal, key: str, text: str | None) -> None:
        before = self.known.get(key, Entry(0, None))
        wanted = Entry(before.revision + 1, text)
        earlier, self.may_be = self.may_be, {**self.may_be, key: wanted}
        try:
            entry = journal.put(key, text, before.revision if before.text is not None else 0)
        except OutcomeUnknown:
            pass
        except StateUnavailable:
            # Of this one nothing is there; of an earlier one that is not mended yet, maybe.
            self.may_be = earlier
        else:
            assert entry == wanted
            self.known[key] = entry
            self.may_be = {}

    def check(self, journal: Journal) -> None:
        """See that every document is what it was, or what it was just becoming."""
        for key in self.known.keys() | journal.entries.keys():
            now = journal.entries.get(key)
            assert now in {self.known.get(key), self.may_be.get(key)}, f"{key} is {now}"
        self.known = dict(journal.entries)
        self.may_be = {}


def journal_steps() -> int:
    """Return how many steps a run takes that nothing breaks."""
    run = JournalRun(SimulatedDisk())
    run.write(run.open(), 12)
    return len(run.disk.steps)


def break_journal(point: Point) -> None:
    """Raise AssertionError, or whatever a reader would, if the journal is not what it must be then."""
    run = JournalRun(SimulatedDisk(str(point)))
    run.disk.fail(point.step, point.fault)
    with contextlib.suppress(Killed, StateUnavailable):
        run.write(run.open(), 12)
    run.disk.crash(power_lost=point.power_lost)
    run.check(run.open())
    # What was read once is there ever after.
    run.disk.crash(power_lost=True)
    journal = run.open()
    run.check(journal)
    run.write(journal, 4)
    assert not run.may_be
    run.disk.crash(power_lost=True)
    run.check(run.open())


# The chain.


class ChainRun:
    """Appends entries and keeps account of which must be there, and which may."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.known: list[int] = []
        self.may_be: list[int] = []
        self._number = 0

    def open(self) -> ChainFiles:
        files = ChainFiles(PLACE, self.disk, max_file_bytes=3_000, tail_records=1000)
        files.open(lambda: 1.5)
        return files

    def append(self, files: ChainFiles, count: int) -> None:
        for _ in range(count):
            numbers = [self._number + 1, self._number + 2][: 1 + self._number % 2]
            self._number += len(numbers)
            earlier, self.may_be = self.may_be, numbers
            try:
                files.append([entry(number) for number in numbers], lambda: 1.5)
            except OutcomeUnknown:
                pass
            except StateUnavailable:
                self.may_be = earlier
            else:
                self.known += numbers
                self.may_be = []

    def check(self, files: ChainFiles, place: Path) -> None:
        """See that the chain is sound, holds what it must, in order, and nothing else but what it may."""
        self._export(place)
        found = verify(place)
        assert found.fault is None, found.fault
        assert found.head == files.head
        there = [record.entry.detail["n"] for record in read_records(place) if record.entry.what == "advance"]
        extra = there[len(self.known) :]
        assert there[: len(self.known)] == self.known, f"{there} instead of {self.known}"
        assert extra == self.may_be[: len(extra)], f"{extra} may not be there"
        self.known = there
        self.may_be = []

    def _export(self, place: Path) -> None:
        for old in place.iterdir():
            old.unlink()
        for name in self.disk.names(PLACE):
            (place / name).write_bytes(self.disk.read(PLACE / name))


def entry(number: int) -> AuditEntry:
    detail = {"n": number, "fill": "x" * (number * 397 % 1300)}
    return AuditEntry(kind="transition", what="advance", who="controller", detail=detail)


def chain_steps() -> int:
    """Return how many steps a run takes that nothing breaks."""
    run = ChainRun(SimulatedDisk())
    run.append(run.open(), 10)
    return len(run.disk.steps)


def break_chain(point: Point, place: Path) -> None:
    """Raise AssertionError, or whatever a reader would, if the chain is not what it must be then."""
    run = ChainRun(SimulatedDisk(str(point)))
    run.disk.fail(point.step, point.fault)
    with contextlib.suppress(Killed, StateUnavailable):
        run.append(run.open(), 10)
    run.disk.crash(power_lost=point.power_lost)
    run.check(run.open(), place)
    run.disk.crash(power_lost=True)
    files = run.open()
    run.check(files, place)
    run.append(files, 3)
    assert not run.may_be
    run.disk.crash(power_lost=True)
    files = run.open()
    assert files.head != Head()
    run.check(files, place)


def faults(seeds: int) -> tuple[int, list[str]]:
    """Return how many points were tried, and what went wrong at which."""
    found: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory() as directory:
        for point in points(journal_steps(), seeds):
            tried += 1
            try:
                break_journal(point)
            except Exception as error:  # noqa: BLE001 - any is a finding
                found.append(f"documents, {point}: {type(error).__name__}: {error}")
        for point in points(chain_steps(), seeds):
            tried += 1
            try:
                break_chain(point, Path(directory))
            except Exception as error:  # noqa: BLE001 - any is a finding
                found.append(f"chain, {point}: {type(error).__name__}: {error}")
    return tried, found


if __name__ == "__main__":
    count, wrong = faults(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(json.dumps({"points": count, "faults": wrong[:20]}, indent=1))  # noqa: T201 - its output
    sys.exit(bool(wrong))
