"""Which endpoint has which version."""

from __future__ import annotations

import asyncio

from gateway.backends.triton.versions import Loaded, Versions
from gateway.core.remote import Address

A, B = Address("a", 1), Address("b", 1)
ONE, TWO = Loaded("m", 1), Loaded("m", 2)


def test_endpoints_say_what_they_have() -> None:
    """Each answer replaces the endpoint's last."""
    versions = Versions()
    versions.note(A, [ONE, TWO])
    versions.note(B, [ONE])
    assert versions.having(ONE) == {A, B}
    assert versions.numbers("m") == {1: 2, 2: 1}
    versions.note(A, [TWO, Loaded("other", 1)])
    assert versions.having(ONE) == {B}
    assert versions.of(A) == (TWO, Loaded("other", 1))
    assert versions.models() == ("m", "other")


def test_a_version_found_missing_is_lost_until_the_next_probe() -> None:
    """What a request met counts at once."""
    versions = Versions()
    versions.note(A, [ONE, TWO])
    versions.lose(A, ONE)
    versions.lose(B, ONE)
    assert not versions.having(ONE)
    assert versions.having(TWO) == {A}
    versions.note(A, [ONE, TWO])
    assert versions.having(ONE) == {A}


def test_a_gone_endpoint_has_nothing() -> None:
    """Its versions go with it."""
    versions = Versions()
    versions.note(A, [ONE])
    versions.note(B, [])
    assert versions.asked() == 2
    versions.forget(A)
    assert (versions.having(ONE), versions.asked()) == (frozenset(), 1)


def test_the_set_is_the_same_object_until_it_changes() -> None:
    """Requests may compare it cheaply."""
    versions = Versions()
    versions.note(A, [ONE])
    before = versions.having(ONE)
    versions.note(A, [ONE])
    versions.note(B, [TWO])
    assert versions.having(ONE) is before


async def test_changes_are_told_and_nothing_else() -> None:
    """An answer that changes nothing wakes nobody; several changes are one."""
    versions = Versions()
    changes = versions.changes()
    await anext(changes)
    versions.note(A, [ONE])
    versions.note(B, [ONE])
    await anext(changes)
    waiting = anext(changes)
    versions.note(A, [ONE])
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    assert not task.done()
    versions.lose(A, ONE)
    await task


def test_watching_is_counted() -> None:
    """Two models may be the same version."""
    versions = Versions()
    versions.watch(ONE)
    versions.watch(ONE)
    versions.unwatch(ONE)
    assert versions.watched() == (ONE,)
    versions.unwatch(ONE)
    assert versions.watched() == ()
