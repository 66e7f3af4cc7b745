"""How much of what was served is said to have arrived."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from gateway.monitor.panes.coverage import Books, Source
from gateway.predlog.rows import Accounting, Produced
from tests.monitor.panes.making import START_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.monitor.values import Coverage

MINUTE = START_S // 60
ONE = Source("one", "fraud", 3, "")


@pytest.fixture
def books() -> Iterator[Books]:
    """Books over a database in memory, which are flushed now and then."""
    made, database = Books(), sqlite3.connect(":memory:", isolation_level=None)
    made.create(database)
    made.restore(database)
    yield made
    database.close()


def account(books: Books, at_s: float, produced: dict[Source, int], epoch: int = 1, **dropped: int) -> None:
    """Have cumulative figures of producer `one` taken in."""
    rows = tuple(Produced(s.model, s.version, s.arm, n) for s, n in produced.items())
    accounting = Accounting(rows, tuple(dropped.items()), int(at_s * 1e9))
    books.account("one", epoch, accounting, at_s + 1)


def seen(books: Books, source: Source = ONE, minutes: int = 1) -> Coverage:
    """Return the coverage of the first minutes."""
    return books.coverage(source.model, source.version, source.arm, START_S, START_S + 60 * minutes)


def test_everything_arrived(books: Books) -> None:
    """Produced and applied agree: all is covered, again and again told or not."""
    account(books, START_S + 1, {ONE: 0})
    for again in range(3):
        account(books, START_S + 30, {ONE: 100})
        del again
    books.applied(ONE, MINUTE, 100, 100)
    found = seen(books)
    assert (found.produced, found.applied, found.ratio) == (100, 100, 1.0)


def test_what_sampling_left_out_is_no_loss(books: Books) -> None:
    """Rows not applied because they were not sampled are covered."""
    account(books, START_S + 1, {ONE: 0})
    account(books, START_S + 30, {ONE: 1000}, sampled=900)
    books.applied(ONE, MINUTE, 100, 1000)
    found = seen(books)
    assert found.dropped == {"sampled": 900}
    assert found.ratio == 1.0


def test_what_was_dropped_is_lost_by_reason(books: Books) -> None:
    """The ratio falls by what was dropped or has not come."""
    account(books, START_S + 1, {ONE: 0})
    account(books, START_S + 30, {ONE: 1000}, ring_full=200)
    books.applied(ONE, MINUTE, 500, 500)
    found = seen(books)
    assert found.dropped == {"ring_full": 200, "in_flight": 300}
    assert found.ratio == 0.5


@pytest.mark.parametrize("weight", [9_500, 10_000, 10_030])
def test_a_sampled_model_does_not_hide_anothers_loss(books: Books, weight: float) -> None:
    """Loss is laid to the model whose rows and weights fall short."""
    whole, sampled = ONE, Source("one", "big", 1, "")
    account(books, START_S + 1, {whole: 0, sampled: 0})
    account(books, START_S + 30, {whole: 100, sampled: 10_000}, sampled=9_000, ring_full=50)
    books.applied(whole, MINUTE, 50, 50)
    books.applied(sampled, MINUTE, 1000, weight)
    assert seen(books, whole).ratio == pytest.approx(0.5, abs=0.05)
    assert seen(books, sampled).ratio > 0.99


def test_a_sampled_models_loss_is_its_own(books: Books) -> None:
    """Of sampled models the one whose weights fall short is the one that lost rows."""
    one, two = Source("one", "a", 1, ""), Source("one", "b", 1, "")
    account(books, START_S + 1, {one: 0, two: 0})
    account(books, START_S + 30, {one: 10_000, two: 10_000}, sampled=17_000, ring_full=1000)
    books.applied(one, MINUTE, 1000, 10_050)
    books.applied(two, MINUTE, 1000, 5000)
    assert seen(books, one).ratio == 1.0
    assert seen(books, two).ratio == pytest.approx(0.9)


def test_a_new_epoch_begins_at_nothing(books: Books) -> None:
    """Figures of a new process are added to those of the one before; older ones that come late are not."""
    account(books, START_S + 1, {ONE: 0}, epoch=1)
    account(books, START_S + 10, {ONE: 70}, epoch=1)
    account(books, START_S + 20, {ONE: 30}, epoch=2)
    account(books, START_S + 15, {ONE: 75}, epoch=1)
    books.applied(ONE, MINUTE, 100, 100)
    assert (seen(books).produced, seen(books).ratio) == (100, 1.0)


def test_rows_between_two_accounts_are_spread(books: Books) -> None:
    """Rows of an account that spans minutes are laid over them, and not held against a window's edge."""
    account(books, START_S, {ONE: 0})
    account(books, START_S + 120, {ONE: 1200})
    books.applied(ONE, MINUTE, 500, 500)
    books.applied(ONE, MINUTE + 1, 700, 700)
    assert seen(books).produced == 600
    assert seen(books).ratio == 1.0
    assert seen(books, minutes=3).produced == 1200


def test_flushed_and_not_flushed_figures_add_up(books: Books) -> None:
    """A flush changes nothing that is read; one that was rolled back counts once."""
    database = books._database
    account(books, START_S + 1, {ONE: 0})
    account(books, START_S + 30, {ONE: 100}, ring_full=10)
    books.applied(ONE, MINUTE, 60, 60)
    before = seen(books)
    books.flush(database)
    assert seen(books) == before
    books.applied(ONE, MINUTE, 10, 10)
    account(books, START_S + 40, {ONE: 110}, ring_full=20)
    books.committed()
    database.execute("BEGIN")
    books.flush(database)
    database.execute("ROLLBACK")
    books.rolled_back()
    books.flush(database)
    found = seen(books)
    assert (found.produced, found.applied) == (110, 70)
    assert found.dropped == {"ring_full": 20, "in_flight": 20}
    again = Books()
    again.restore(database)
    assert seen(again) == found
    account(again, START_S + 40, {ONE: 110}, ring_full=20)
    assert seen(again) == found


def test_a_gateway_heard_of_late_is_not_judged_by_its_past(books: Books) -> None:
    """What an old process did before its first account is nobody's; what a young one did is."""
    account(books, START_S + 30, {ONE: 1_000_000}, epoch=1)
    assert seen(books).produced == 0
    account(books, START_S + 31, {ONE: 50}, epoch=int((START_S + 1) * 1e9))
    assert seen(books).produced == 50


def test_reasons_and_sources_are_bounded(books: Books) -> None:
    """Hostile names are counted together."""
    account(books, START_S + 1, {})
    account(books, START_S + 30, {ONE: 100}, **{f"reason{i}": 1 for i in range(100)})
    assert len(seen(books).dropped) <= 19
    for i in range(9000):
        books.applied(Source("one", f"m{i}", 1, ""), MINUTE, 1, 1)
    assert books.refused > 0
