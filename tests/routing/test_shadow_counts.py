"""The totals of a shadow: every copy counted once, slices bounded."""

from __future__ import annotations

from gateway.routing.shadow_counts import MOST_VALUE_CHARS, MOST_VALUES, OTHER, Dropped, ShadowCounter
from tests.routing.shadow_scene import balanced


def test_each_copy_is_counted_once() -> None:
    """At every moment mirrored is what has ended and what is under way."""
    counter = ShadowCounter()
    for _ in range(5):
        counter.begin()
        assert balanced(counter.counts())
    counter.compared((), disagreed=False)
    counter.compared((), disagreed=True)
    counter.failed(alone=True)
    counter.dropped(Dropped.REFUSED)
    counts = counter.counts()
    assert balanced(counts)
    assert (counts.mirrored, counts.compared, counts.disagreed) == (5, 2, 1)
    assert (counts.failed, counts.failed_alone) == (1, 1)
    assert (dict(counts.dropped), counts.under_way) == ({"refused": 1}, 1)


def test_what_was_told_stays_as_it_was() -> None:
    """Totals once given do not change when more is counted."""
    counter = ShadowCounter(("country",))
    counter.begin()
    before = counter.counts()
    counter.compared(("de",), disagreed=True)
    assert (before.compared, dict(before.slices["country"])) == (0, {})


def test_values_of_a_slice_are_bounded() -> None:
    """The first values are told apart, all further ones count as others; nothing is lost."""
    counter = ShadowCounter(("user",))
    for number in range(MOST_VALUES + 10):
        for _ in range(2):
            counter.begin()
            counter.compared((f"u{number}",), disagreed=number % 2 == 0)
    values = counter.counts().slices["user"]
    assert len(values) == MOST_VALUES + 1
    assert values["u0"] == (2, 2)
    assert values[OTHER] == (20, 10)
    assert sum(pairs for pairs, _ in values.values()) == 2 * (MOST_VALUES + 10)


def test_a_client_that_says_other_takes_no_place() -> None:
    """It is counted with the rest, and as many values are told apart as without it."""
    counter = ShadowCounter(("user",))
    for value in [OTHER, *(f"u{number}" for number in range(MOST_VALUES + 1))]:
        counter.begin()
        counter.compared((value,), disagreed=False)
    values = counter.counts().slices["user"]
    assert (len(values), values[OTHER]) == (MOST_VALUES + 1, (2, 0))


def test_long_values_are_cut() -> None:
    """A header of any length takes bounded memory."""
    counter = ShadowCounter(("user",))
    counter.begin()
    counter.compared(("x" * 10_000,), disagreed=False)
    assert list(counter.counts().slices["user"]) == ["x" * MOST_VALUE_CHARS]
