"""Narrowing a failed batch down to the request at fault, within a budget."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batching.bisection import QUIET_MINUTE_S, Bisection, BisectionBudget, halves


@given(st.integers(2, 200), st.sets(st.integers(0, 199)), st.sets(st.integers(0, 199)))
def test_runs_of_each_member_are_bounded_and_exactly_the_poisonous_fail(
    size: int, poison: set[int], cancelled: set[int]
) -> None:
    """Whatever is poisonous or cancelled, nobody runs more than ceil(log2 n) + 1 times or ends twice."""
    runs: Counter[int] = Counter()
    failed, answered = Counter[int](), Counter[int]()
    parts = [list(range(size))]
    while parts:
        part = parts.pop()
        runs.update(part)
        if not poison.intersection(part):
            answered.update(part)
        elif len(part) == 1:
            failed.update(part)
        else:
            live = [member for member in part if member not in cancelled]
            parts.extend(halves(live) if live else [])
    assert max(runs.values()) <= math.ceil(math.log2(size)) + 1
    ended = failed + answered
    assert max(ended.values(), default=1) == 1
    assert set(range(size)) - cancelled <= set(ended)
    assert set(failed) <= poison


@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 3.0), st.booleans()), max_size=150),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_in_no_minute_more_is_added_than_the_budget_allows(
    steps: list[tuple[float, float, bool]], share: float
) -> None:
    """Extra seconds never pass the share of what ran ordinarily in the last minute, or of a quiet minute."""
    budget = BisectionBudget(share)
    now_s = 1000.0
    ordinary: list[tuple[float, float]] = []
    extra: list[tuple[float, float]] = []

    def last_minute(runs: list[tuple[float, float]], window_s: float) -> float:
        return sum(seconds for at_s, seconds in runs if at_s > now_s - window_s)

    for gap_s, seconds, is_extra in steps:
        now_s += gap_s
        if not is_extra:
            budget.ran(seconds, now_s)
            ordinary.append((now_s, seconds))
        elif budget.reserve(seconds, now_s):
            budget.settle(seconds, seconds, now_s)
            extra.append((now_s, seconds))
            allowed_s = share * max(last_minute(ordinary, 60.0), QUIET_MINUTE_S)
            assert last_minute(extra, 60.0) <= allowed_s + 1e-9


def test_budget_comes_back_after_a_minute() -> None:
    """What was spent is forgotten once it is out of the window."""
    budget = BisectionBudget(0.1)
    assert budget.reserve(1.0, 0.0)
    budget.settle(1.0, 1.0, 0.0)
    assert not budget.reserve(0.5, 59.0)
    assert budget.reserve(0.5, 62.0)


def test_reservations_count_until_they_are_settled() -> None:
    """Parts waiting to be run hold their share of the budget, and give back what they did not need."""
    budget = BisectionBudget(0.1)
    assert budget.reserve(0.8, 0.0)
    assert not budget.reserve(0.3, 0.0)
    budget.settle(0.8, 0.1, 0.0)
    assert budget.reserve(0.3, 0.0)


def test_a_bisection_is_under_way_until_its_last_part_is_back() -> None:
    """Neither a part handed out nor one still waiting lets another begin."""
    bisection: Bisection[str] = Bisection(0.1)
    assert bisection.divide(["a", "b"], 0.1, 0.0)
    parts = [bisection.take(), bisection.take()]
    assert bisection.take() is None
    for part in parts:
        assert bisection
        assert part is not None
        bisection.finished(part, 0.1, 0.0)
    assert not bisection


def test_without_budget_nothing_is_divided() -> None:
    """A refusal leaves nothing to run."""
    bisection: Bisection[str] = Bisection(0.1)
    assert not bisection.divide(["a", "b"], 0.6, 0.0)
    assert not bisection
    assert bisection.divide(["a", "b"], 0.5, 0.0)


def test_draining_gives_up_what_was_not_run() -> None:
    """The members of waiting parts come back, and their reservation is free again."""
    bisection: Bisection[str] = Bisection(0.1)
    assert bisection.divide(["a", "b", "c"], 0.5, 0.0)
    assert bisection.drain(0.0) == ["a", "b", "c"]
    assert not bisection
    assert bisection.divide(["d"], 1.0, 0.0)


@pytest.mark.parametrize(("size", "parts"), [(1, [1]), (2, [1, 1]), (5, [3, 2]), (8, [4, 4])])
def test_halves(size: int, parts: list[int]) -> None:
    """A batch is cut in the middle; a sole survivor is run by itself."""
    assert [len(part) for part in halves(range(size))] == parts


def test_what_is_withdrawn_from_waiting_parts_is_not_handed_out() -> None:
    """The rest of a part stays, an emptied part is gone and its reservation free again."""
    bisection: Bisection[str] = Bisection(0.1)
    assert bisection.divide(["a", "b", "c"], 0.4, 0.0)
    assert bisection.withdraw(lambda member: member in "bc", 0.0) == ["b", "c"]
    assert list(bisection.waiting()) == ["a"]
    part = bisection.take()
    assert part is not None
    assert part.members == ["a"]
    assert bisection.take() is None
    assert not bisection.divide(["d"], 0.7, 0.0)
    assert bisection.divide(["d"], 0.6, 0.0)
