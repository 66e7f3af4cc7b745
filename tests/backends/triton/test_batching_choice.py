"""Choosing by trial who forms batches."""

from __future__ import annotations

import pytest

from gateway.backends.triton.batching_choice import BatchingChoice, ChoiceOptions

OPTIONS = ChoiceOptions(trial_rows=100, trial_busy_s=0.5, again_s=5.0, longest_again_s=20.0)


def run(choice: BatchingChoice, seconds: float, *, here_s: float, there_s: float, company: int = 8) -> int:
    """Simulate a full load of `company` requests under way; return rows answered while batched here.

    Args:
        choice: what is tested.
        seconds: simulated time.
        here_s: time between two answers while batches are formed here.
        there_s: likewise while Triton forms them.
        company: requests under way.
    """
    now_s = run.now_s  # type: ignore[attr-defined]
    until_s, here = now_s + seconds, 0
    for _ in range(company):
        choice.began(1, now_s)
    while now_s < until_s:
        now_s += here_s if choice.gateway else there_s
        here += choice.gateway
        choice.ended(1, now_s)
        choice.began(1, now_s)
    for _ in range(company):
        choice.ended(1, now_s)
    run.now_s = now_s  # type: ignore[attr-defined]
    return here


@pytest.fixture(autouse=True)
def _at_zero() -> None:
    run.now_s = 0.0  # type: ignore[attr-defined]


def test_it_begins_by_passing_through() -> None:
    """Before anything is measured Triton forms its batches."""
    assert not BatchingChoice(OPTIONS).gateway


def test_the_faster_way_is_taken() -> None:
    """Batches formed here are taken when they need clearly less time per row."""
    choice = BatchingChoice(OPTIONS)
    run(choice, 10.0, here_s=0.002, there_s=0.004)
    assert choice.gateway
    assert choice.changes == 1


@pytest.mark.parametrize("here_s", [0.004, 0.0038, 0.008])
def test_what_is_not_clearly_faster_is_not_taken(here_s: float) -> None:
    """Equal or slower: passing through stays, and is tried rarely."""
    choice = BatchingChoice(OPTIONS)
    run(choice, 200.0, here_s=here_s, there_s=0.004)
    assert choice.changes == 0
    assert 8 <= choice.trials <= 13


def test_trials_of_a_bad_way_cost_little() -> None:
    """A way that always loses carries few of the rows."""
    choice = BatchingChoice(OPTIONS)
    here = run(choice, 300.0, here_s=0.008, there_s=0.004)
    assert 0 < here < 0.03 * 300.0 / 0.004


def test_lone_requests_try_nothing() -> None:
    """Without company there are no batches to compare."""
    choice = BatchingChoice(OPTIONS)
    run(choice, 60.0, here_s=0.001, there_s=0.004, company=1)
    assert (choice.gateway, choice.trials) == (False, 0)


def test_it_changes_back_when_the_load_changes() -> None:
    """What was faster once is tried against the other again."""
    choice = BatchingChoice(OPTIONS)
    run(choice, 10.0, here_s=0.002, there_s=0.004)
    run(choice, 60.0, here_s=0.004, there_s=0.002)
    assert not choice.gateway
    assert choice.changes == 2


def test_failures_take_time_and_answer_nothing() -> None:
    """A way that fails fast is not a fast way."""
    choice = BatchingChoice(OPTIONS)
    now_s = 0.0
    for _ in range(4):
        choice.began(1, now_s)
    for step in range(4000):
        now_s += 0.001 if choice.gateway else 0.004
        choice.ended(1, now_s, answered=not choice.gateway or step % 10 == 0)
        choice.began(1, now_s)
    assert choice.trials
    assert choice.changes == 0


def test_a_trial_that_answers_nothing_ends() -> None:
    """It is not waited for rows that never come."""
    choice = BatchingChoice(OPTIONS)
    now_s, here_s = 0.0, 0.0
    for _ in range(4):
        choice.began(1, now_s)
    for _ in range(4000):
        now_s += 0.004
        here_s += 0.004 * choice.gateway
        choice.ended(1, now_s, answered=not choice.gateway)
        choice.began(1, now_s)
    assert choice.trials
    assert choice.changes == 0
    assert here_s < 6.0
