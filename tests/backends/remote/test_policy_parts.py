"""The parts of the policy: budgets, hedging's quantile, limits, slow start, usual times."""

import random

import pytest

from gateway.backends.remote.balancing import GoodShare, choice_of_two
from gateway.backends.remote.concurrency import ConcurrencyLimit
from gateway.backends.remote.hedging import KEPT, LEAST, MAX_KEYS, MAX_SAVED, Hedging
from gateway.backends.remote.outliers import ejection_s, open_s
from gateway.backends.remote.retry_budget import KEPT_S, RetryBudget
from gateway.backends.remote.slow_start import slow_start_weight
from gateway.backends.remote.usual_time import UsualTime
from gateway.core.remote import ConcurrencyOptions, EjectionOptions, HedgingOptions, RetryOptions


def taken(budget: RetryBudget, now_s: float) -> int:
    """Take all that there is."""
    count = 0
    while budget.take(now_s):
        count += 1
    return count


def test_retries_are_a_share_of_requests() -> None:
    """A tenth of a hundred requests is ten; then there are none."""
    budget = RetryBudget(RetryOptions(budget_share=0.1, budget_floor_per_s=0.0))
    for _ in range(100):
        budget.request()
    assert taken(budget, 1.0) == 10
    assert taken(budget, 2.0) == 0


def test_saved_retries_are_forgotten() -> None:
    """What was not used is gone after ten seconds, not after five."""
    for after_s, left in ((KEPT_S / 2, 10), (KEPT_S, 0)):
        budget = RetryBudget(RetryOptions(budget_share=0.1, budget_floor_per_s=0.0))
        budget.turn(0.0)
        for _ in range(100):
            budget.request()
        budget.turn(KEPT_S / 2)
        assert taken(budget, after_s) == left


def test_a_few_retries_are_always_allowed() -> None:
    """Two a second, and no more saved up than one second's."""
    budget = RetryBudget(RetryOptions(budget_share=0.0, budget_floor_per_s=2.0))
    assert taken(budget, 0.0) == 2
    assert taken(budget, 0.5) == 1
    assert taken(budget, 100.0) == 2


def test_a_floor_below_one_a_second_still_allows_the_first() -> None:
    """A rare retry is a retry."""
    budget = RetryBudget(RetryOptions(budget_share=0.0, budget_floor_per_s=0.1))
    assert [taken(budget, now_s) for now_s in (0.0, 5.0, 10.0)] == [1, 0, 1]


def test_hedging_waits_for_the_quantile_of_its_key() -> None:
    """Nothing is known at first; then 95 % of what was seen, and of the latest alone."""
    hedging = Hedging(HedgingOptions(enabled=True))
    for n in range(LEAST - 1):
        hedging.note("m", n / 100)
    assert hedging.after_s("m") is None
    assert hedging.after_s("other") is None
    for n in range(KEPT):
        hedging.note("m", n / KEPT)
    assert hedging.after_s("m") == pytest.approx(0.95, abs=0.01)
    for _ in range(KEPT):
        hedging.note("m", 0.001)
    assert hedging.after_s("m") == HedgingOptions().min_delay_s


def test_hedging_off_knows_nothing() -> None:
    """And keeps nothing."""
    hedging = Hedging(HedgingOptions())
    for _ in range(LEAST):
        hedging.note("m", 1.0)
    assert hedging.after_s("m") is None


def test_hedging_forgets_keys() -> None:
    """Those not used for the longest go."""
    hedging = Hedging(HedgingOptions(enabled=True))
    for n in range(MAX_KEYS + 1):
        for _ in range(LEAST):
            hedging.note(str(n), 1.0)
    assert hedging.after_s("0") is None
    assert hedging.after_s("1") == 1.0


def test_hedges_are_saved_up_to_a_bound() -> None:
    """A long calm allows no burst."""
    hedging = Hedging(HedgingOptions(enabled=True))
    assert not hedging.take()
    for _ in range(100_000):
        hedging.request()
    assert sum(hedging.take() for _ in range(100)) == MAX_SAVED


def full(limit: ConcurrencyLimit) -> None:
    limit.began(limit.limit)


def test_a_limit_is_one_step_from_right() -> None:
    """Kept busy at a limit of 16, four at once wait three times as long as they run: eight is right."""
    limit = ConcurrencyLimit(ConcurrencyOptions(), 0.0)
    for now_s in range(1, 6):
        full(limit)
        limit.reported(limit.limit / 4 - 1, 1.0, 100, float(now_s))
    assert limit.limit in {8, 9}


def test_limits_of_several_gateways_become_equal() -> None:
    """Wherever they began, as they share what one endpoint can do."""
    limits = [ConcurrencyLimit(ConcurrencyOptions(initial=n), 0.0) for n in (2, 30)]
    for now_s in range(1, 90):
        wait_s = max(0.0, sum(limit.limit for limit in limits) / 8 - 1)
        for limit in limits:
            full(limit)
            limit.reported(wait_s, 1.0, 100, float(now_s))
    assert [limit.limit for limit in limits] == pytest.approx([9, 9], abs=1)


def test_a_limit_that_is_not_reached_is_not_raised() -> None:
    """Nothing was learned about more; what is too much is lowered all the same."""
    limit = ConcurrencyLimit(ConcurrencyOptions(), 0.0)
    limit.began(3)
    limit.reported(0.0, 1.0, 100, 1.0)
    assert limit.limit == 16
    limit.reported(10.0, 1.0, 100, 2.0)
    assert limit.limit < 16


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("initial", [1, 16])
def test_waiting_for_a_batch_to_fill_is_no_queue(initial: int, reached: bool) -> None:
    """A server that gathers requests five times as long as it runs them keeps its limit."""
    limit = ConcurrencyLimit(ConcurrencyOptions(initial=initial), 0.0)
    for now_s in range(1, 60):
        limit.began(limit.limit if reached else 0)
        queued_s = max(0.0, limit.limit / 8 - 1) if reached else 0.0
        limit.reported(5.0 + queued_s, 1.0, 100, float(now_s))
    assert limit.limit in ({16, 17, 18} if reached else {initial})


def test_a_limit_falls_all_the_way_where_that_helps() -> None:
    """From a hundred times too much to what is right."""
    limit = ConcurrencyLimit(ConcurrencyOptions(initial=200), 0.0)
    for now_s in range(1, 30):
        full(limit)
        limit.reported(max(0.0, limit.limit / 2 - 1), 1.0, 100, float(now_s))
    assert limit.limit in {4, 5}


def test_reports_are_gathered_over_an_interval() -> None:
    """Neither a report too soon nor one about few requests changes anything by itself."""
    limit = ConcurrencyLimit(ConcurrencyOptions(), 0.0)
    full(limit)
    limit.reported(0.0, 1.0, 100, 0.5)
    assert limit.limit == 16
    limit.reported(2.0, 1.0, 100, 1.0)
    assert limit.limit in {16, 17}, "waiting once as long as it ran, on average, is what is aimed at"
    before = limit.limit
    full(limit)
    limit.reported(0.0, 1.0, 3, 2.0)
    assert limit.limit == before
    limit.reported(0.0, 1.0, 1, 2.1)
    assert limit.limit > before


@pytest.mark.parametrize(("wait_s", "bound"), [(0.0, 20), (1000.0, 2)])
def test_a_limit_keeps_its_bounds(wait_s: float, bound: int) -> None:
    """However long one side pulls."""
    limit = ConcurrencyLimit(ConcurrencyOptions(min=2, max=20), 0.0)
    for now_s in range(1, 60):
        full(limit)
        limit.reported(wait_s * limit.limit, 1.0, 100, float(now_s))
    assert limit.limit == bound


def test_a_refusal_lowers_the_limit_once_an_interval() -> None:
    """From what was under way then, and without reports it comes back with answers, to where it began."""
    limit = ConcurrencyLimit(ConcurrencyOptions(), 0.0)
    limit.refused(10, 1.0)
    limit.refused(10, 1.5)
    assert limit.limit == 8
    limit.refused(5, 2.0)
    assert limit.limit == 4
    for _ in range(1000):
        limit.answered(3.0)
    assert limit.limit == 4, "it may still report"
    for _ in range(1000):
        limit.answered(10.0)
    assert limit.limit == 16


def test_a_fixed_limit_is_fixed() -> None:
    """Nothing moves it."""
    limit = ConcurrencyLimit(ConcurrencyOptions(adaptive=False, initial=7), 0.0)
    limit.refused(7, 1.0)
    full(limit)
    limit.reported(0.0, 1.0, 100, 2.0)
    assert limit.limit == 7


def test_slow_start_grows_to_all() -> None:
    """A tenth at least, half after half the time; at once where there is none."""
    assert [slow_start_weight(10.0, 10.0 + t, 5.0) for t in (0.0, 2.5, 5.0, 50.0)] == [0.1, 0.5, 1.0, 1.0]
    assert slow_start_weight(10.0, 10.0, 0.0) == 1.0


@pytest.mark.parametrize("scale", [0.001, 10.0])
def test_the_usual_time_is_what_nine_in_ten_take(scale: float) -> None:
    """Within a third, of exponential times, also after they changed a hundredfold."""
    dice, usual = random.Random(1), UsualTime()
    for _ in range(1000):
        usual.note(0.1 * dice.expovariate(1.0))
    for _ in range(1000):
        usual.note(scale * dice.expovariate(1.0))
    assert usual.value_s == pytest.approx(2.3 * scale, rel=0.4)


def test_good_shares_are_lost_and_forgiven() -> None:
    """A failure costs a tenth of it; ten seconds later two thirds of that are forgiven."""
    good = GoodShare()
    good.note(False, 1.0)
    assert good.share(1.0) == pytest.approx(0.9)
    assert good.share(11.0) == pytest.approx(1 - 0.1 * 0.368, abs=0.001)


class Idle:
    """Something to choose, with its weight."""

    def __init__(self, weight: float, inflight: int = 0) -> None:
        self.inflight = inflight
        self._weight = weight

    def weight(self, now_s: float) -> float:
        return self._weight


def test_the_idle_are_chosen_by_weight() -> None:
    """A quarter of the weight is a fifth of two idle endpoints' requests."""
    heavy, light = Idle(1.0), Idle(0.25)
    dice = random.Random(1)
    chosen = [choice_of_two([heavy, light], 0.0, dice.random) for _ in range(5000)]
    assert chosen.count(light) / 5000 == pytest.approx(0.2, abs=0.02)


def test_choice_needs_candidates() -> None:
    """None of none, the one of one."""
    one = Idle(1.0)
    assert choice_of_two([], 0.0, random.random) is None
    assert choice_of_two([one], 0.0, random.random) is one


def test_two_choices_spread_load_far_better_than_one() -> None:
    """10 000 balls in 100 bins: the fullest has a few more than the mean, with one choice some thirty."""
    dice = random.Random(1)
    bins = [Idle(1.0) for _ in range(100)]
    for _ in range(10_000):
        chosen = choice_of_two(bins, 0.0, dice.random)
        assert chosen is not None
        chosen.inflight += 1
    assert max(b.inflight for b in bins) <= 104
    one = [0] * 100
    for _ in range(10_000):
        one[int(dice.random() * 100)] += 1
    assert max(one) > 115


def test_ejections_grow_and_differ() -> None:
    """By the base each, to the longest, and by up to a tenth more."""
    options = EjectionOptions()
    assert [ejection_s(options, n, lambda: 0.0) for n in (1, 2, 12, 50)] == [10.0, 20.0, 120.0, 120.0]
    assert ejection_s(options, 1, lambda: 1.0) == 11.0
    assert [open_s(options, n, lambda: 0.0) for n in (1, 2, 3, 1000)] == [0.25, 0.5, 1.0, 5.0]
