"""Where endpoints are: written down, behind a name, in a file; what keeps the last set."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from gateway.backends.remote.addresses import MAX_ADDRESSES, WrongAddresses, parse_address, parse_lines
from gateway.backends.remote.discovery import (
    DnsAddresses,
    FileAddresses,
    StaticAddresses,
    address_source,
    resolve,
)
from gateway.core.clock import LoopClock
from gateway.core.remote import Address, FleetOptions
from gateway.testing import VirtualClock, settle

A, B, C = Address("10.0.0.1", 8001), Address("10.0.0.2", 8001), Address("::1", 8001)
NAME = Address("triton.svc", 8001)


class Names:
    """A name server whose answers a test writes down; the last one stays."""

    def __init__(self, clock: VirtualClock, *answers: Sequence[Address] | OSError) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.asked_s: list[float] = []

    async def __call__(self, name: Address) -> Sequence[Address]:
        assert name == NAME
        self.asked_s.append(self.clock.now_s())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


async def watched(
    clock: VirtualClock, source: DnsAddresses, looks: int, names: Names
) -> list[Sequence[Address]]:
    """Return every set given until the name server was asked `looks` times."""
    sets: list[Sequence[Address]] = []

    async def follow() -> None:
        async for addresses in source.watch():
            sets.append(addresses)  # noqa: PERF401 - it never ends

    task = asyncio.ensure_future(follow())
    await settle()
    while len(names.asked_s) < looks:
        due_s = clock.next_timer_s()
        assert due_s is not None
        clock.advance(due_s - clock.now_s())
        await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert clock.next_timer_s() is None
    return sets


def dns(clock: VirtualClock, *answers: Sequence[Address] | OSError) -> tuple[DnsAddresses, Names]:
    names = Names(clock, *answers)
    return DnsAddresses(NAME, 10.0, clock, resolve=names, random=random.Random(1).random), names


async def test_a_set_is_given_when_it_changes() -> None:
    """Order and duplicates are no change."""
    clock = VirtualClock()
    source, names = dns(clock, [B, A], [A, B, A], [A], [A], [A, B])
    assert await watched(clock, source, 5, names) == [(A, B), (A,), (A, B)]


async def test_an_empty_or_failed_answer_keeps_the_last_set(caplog: pytest.LogCaptureFixture) -> None:
    """A name server that is away takes nothing away; it is said once, and once that it is back."""
    clock = VirtualClock()
    down = OSError("name server is away")
    source, names = dns(clock, [A], [], [], down, down, [A], [A])
    with caplog.at_level(logging.INFO):
        assert await watched(clock, source, 7, names) == [(A,)]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "endpoints of triton.svc:8001: no address in it; the last 1 stay",
        "endpoints of triton.svc:8001: name server is away; the last 1 stay",
        "endpoints of triton.svc:8001: readable again",
    ]


async def test_looks_are_jittered_and_sooner_after_a_failure() -> None:
    """Gateways do not ask all at once, and one that failed asks again after 1, 2, 4 ... seconds."""
    clock = VirtualClock()
    source, names = dns(clock, OSError("away"))
    assert await watched(clock, source, 8, names) == []
    pauses = [b - a for a, b in zip(names.asked_s, names.asked_s[1:], strict=False)]
    for pause_s, nominal_s in zip(pauses, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert 0.9 * nominal_s <= pause_s <= 1.1 * nominal_s
    assert len({round(pause_s, 6) for pause_s in pauses[4:]}) == 3


async def test_a_good_answer_makes_the_next_failure_the_first() -> None:
    """A name server that fails now and then is asked again soon each time."""
    clock = VirtualClock()
    source, names = dns(clock, *[OSError("away")] * 2, [A], OSError("away"), [A])
    await watched(clock, source, 5, names)
    pauses = [b - a for a, b in zip(names.asked_s, names.asked_s[1:], strict=False)]
    assert pauses == pytest.approx([1, 2, 10, 1], rel=0.1)


async def test_more_addresses_than_make_sense_are_a_mistake() -> None:
    """They would take all memory for connections."""
    clock = VirtualClock()
    many = [Address(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 1) for i in range(MAX_ADDRESSES + 1)]
    source, names = dns(clock, [A], many, [A])
    assert await watched(clock, source, 3, names) == [(A,)]


async def test_a_name_that_cannot_be_one_is_no_end() -> None:
    """Python refuses some names before it asks anybody; a fleet goes on looking all the same."""
    clock = VirtualClock()
    source = DnsAddresses(Address("a..b", 1), 10.0, clock)
    sets = source.watch()
    waiting = asyncio.ensure_future(first(sets))
    while clock.next_timer_s() is None:  # it is asked in a thread
        assert not waiting.done()
        await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()


async def test_a_real_name_is_resolved() -> None:
    """`localhost` has at least one address of this machine, with the port asked for."""
    found = await resolve(Address("localhost", 8001))
    assert {address.port for address in found} == {8001}
    assert {address.host for address in found} & {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r"."):
        await resolve(Address("no-such-host.invalid", 1))


async def first(sets: AsyncIterator[Sequence[Address]]) -> Sequence[Address]:
    return await anext(sets)


async def test_written_down_endpoints_are_given_once() -> None:
    """In order and without duplicates."""
    assert [s async for s in StaticAddresses([A, B, A]).watch()] == [(A, B)]


class Following:
    """A FileAddresses that is read on; `looked` moves virtual time until it has looked again."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock()
        self.sets: list[Sequence[Address]] = []
        self.source = FileAddresses(path, 10.0, self.clock)
        self.task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        async for addresses in self.source.watch():
            self.sets.append(addresses)

    async def __aenter__(self) -> Self:
        await self.rested()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.clock.next_timer_s() is None

    async def rested(self) -> None:
        """Wait until the file has been read and the next look is planned."""
        while self.clock.next_timer_s() is None:  # noqa: ASYNC110 - the clock has no event
            await asyncio.sleep(0.001)  # it is read in a thread

    async def looked(self) -> list[Sequence[Address]]:
        """Return the sets given so far, after a look that began later than this call.

        A look that was under way may end first; the second one cannot have begun before.
        """
        for _ in range(2):
            self.clock.advance(10.0)
            await self.rested()
        return self.sets


def put(path: Path, content: bytes) -> None:
    """Write a file as a whole: looks may come at any time."""
    other = path.with_name("new")
    other.write_bytes(content)
    other.replace(path)


async def test_a_file_is_followed(tmp_path: Path) -> None:
    """A changed file gives another set; one that says the same does not."""
    path = tmp_path / "endpoints.txt"
    path.write_text("10.0.0.1:8001  # the first\n\n# 10.0.0.9:8001\n10.0.0.2:8001\n")
    async with Following(path) as following:
        assert following.sets == [(A, B)]
        put(path, b"10.0.0.2:8001\n10.0.0.1:8001")
        assert await following.looked() == [(A, B)]
        put(path, b"[::1]:8001")
        assert await following.looked() == [(A, B), (C,)]


async def test_a_wrong_file_keeps_the_last_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Missing, empty, unreadable or wrong in one line: nothing changes, and it is said once."""
    path = tmp_path / "endpoints.txt"
    path.write_text("10.0.0.1:8001")
    async with Following(path) as following:
        with caplog.at_level(logging.INFO):
            for content in (b"10.0.0.2:8001\nnonsense\n", b"", b"\xff\xfe", b"# nobody\n", None):
                if content is None:
                    path.unlink()
                else:
                    put(path, content)
                for _ in range(2):
                    assert await following.looked() == [(A,)]
            put(path, b"10.0.0.2:8001")
            assert await following.looked() == [(A,), (B,)]
    said = [record.getMessage() for record in caplog.records if "endpoints of" in record.getMessage()]
    assert len(said) == 6
    assert "line 2: 'nonsense' is not host:port" in said[0]
    assert all("the last 1 stay" in text for text in said[:5])
    assert said[5].endswith("readable again")


async def test_a_file_that_comes_late_is_found(tmp_path: Path) -> None:
    """A gateway may start before its endpoints are written down, even before the directory is there."""
    path = tmp_path / "later" / "endpoints.txt"
    async with Following(path) as following:
        assert following.sets == []
        path.parent.mkdir()
        put(path, b"10.0.0.1:8001")
        while not following.sets:
            await following.looked()
        assert following.sets == [(A,)]


async def test_a_change_is_noticed_before_the_next_look(tmp_path: Path) -> None:
    """Where the system tells of changes no interval has to pass: here it never does."""
    path = tmp_path / "endpoints.txt"
    path.write_text("10.0.0.1:8001")
    source = FileAddresses(path, 1e6, LoopClock())
    sets = source.watch()
    assert await anext(sets) == (A,)
    seen = asyncio.ensure_future(first(sets))
    number = 0
    while not seen.done():  # the watch may not be set up yet: write until one change is noticed
        number += 1
        put(path, f"10.0.1.{number % 250}:8001".encode())
        await asyncio.wait([seen], timeout=0.3)
    (address,) = seen.result()
    assert address.host.startswith("10.0.1.")
    await sets.aclose()  # type: ignore[attr-defined]


def test_the_source_is_what_the_options_name(tmp_path: Path) -> None:
    """A name before a file before what is written down."""
    clock = VirtualClock()
    assert isinstance(address_source(FleetOptions(name="f", endpoints=(A,)), clock), StaticAddresses)
    assert isinstance(address_source(FleetOptions(name="f", dns=NAME), clock), DnsAddresses)
    assert isinstance(address_source(FleetOptions(name="f", file=tmp_path / "x"), clock), FileAddresses)


@pytest.mark.parametrize("text", ["a:1", "10.0.0.1:8001", "[::1]:65535", "triton.svc.cluster.local:8001"])
def test_an_address_reads_as_it_is_written(text: str) -> None:
    """`str` gives back what was read."""
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:1x", "a:\u0661"),
        *("::1:8001", "[a:1", "a]:1", "http://a:1", "a b:1", "a:99999999999999999999", "[a]:1", "u@h:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the text in the message."""
    with pytest.raises(WrongAddresses):
        parse_address(text)


def test_a_file_without_an_address_is_wrong() -> None:
    """An empty file is one that is being written."""
    with pytest.raises(WrongAddresses, match="no address"):
        parse_lines("\n# only this\n")
    assert parse_lines("a:1\r\na:1\r\n b:2 # two\r\n") == (Address("a", 1), Address("b", 2))
