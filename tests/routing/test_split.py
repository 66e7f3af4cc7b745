"""Which buckets belong to which arm: exact, monotone, whatever the order of the list."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.rollout import PPM
from gateway.routing.split import Split, split

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


def owned(made: Split, arm: int) -> list[tuple[int, int]]:
    """The pieces [start, end) of an arm."""
    ends = (*made.starts[1:], PPM)
    return [(a, b) for a, b, owner in zip(made.starts, ends, made.owners, strict=True) if owner == arm]


def size(pieces: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in pieces)


def common(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
    """How many buckets are in both."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in some for c, d in others)


def weights_of(others: list[int]) -> list[int]:
    return [PPM - sum(others), *others]


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[str], list[int], int]:
    """Names, weights and a holdout that go together."""
    names = draw(NAMES)
    cuts = sorted(draw(st.lists(st.integers(0, PPM), min_size=len(names) - 1, max_size=len(names) - 1)))
    weights = [b - a for a, b in pairwise([0, *cuts, PPM])]
    holdout = draw(st.integers(0, weights[0])) if draw(st.booleans()) else 0
    return names, weights, holdout


@given(splits())
def test_every_arm_has_its_weight_to_the_bucket(case: tuple[list[str], list[int], int]) -> None:
    """Pieces cover all buckets, none twice, and each arm's are as many as it is due."""
    names, weights, holdout = case
    made = split(names, weights, holdout)
    assert made.starts[0] == 0
    assert all(a < b for a, b in pairwise(made.starts))
    assert made.starts[-1] < PPM
    assert [size(owned(made, arm)) for arm in range(len(names))] == weights


@given(splits())
def test_the_holdout_is_the_first_arms(case: tuple[list[str], list[int], int]) -> None:
    """No other arm gets a bucket of it while the first has any weight."""
    names, weights, holdout = case
    assume(weights[0])
    assert common(owned(split(names, weights, holdout), 0), [(PPM - holdout, PPM)]) == holdout


@given(splits(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_makes_no_difference(
    case: tuple[list[str], list[int], int], random: Random
) -> None:
    """Shuffled, all arms but the first keep every bucket."""
    names, weights, holdout = case
    order = list(range(1, len(names)))
    random.shuffle(order)
    order = [0, *order]
    made = split(names, weights, holdout)
    shuffled = split([names[i] for i in order], [weights[i] for i in order], holdout)
    assert shuffled.starts == made.starts
    assert tuple(order[owner] for owner in shuffled.owners) == made.owners


@given(splits(), st.data())
def test_nobody_leaves_the_arm_that_is_raised(
    case: tuple[list[str], list[int], int], data: st.DataObject
) -> None:
    """Whatever spills, an arm that gets more keeps all that it had."""
    names, weights, holdout = case
    assume(len(names) > 1)
    arm = data.draw(st.integers(1, len(names) - 1))
    more = data.draw(st.integers(0, weights[0] - holdout))
    raised = list(weights)
    raised[0] -= more
    raised[arm] += more
    # Beginning to use the holdout, once the first arm has nothing, is a promotion, not a raise.
    assume(raised[0] or not holdout)
    before, after = owned(split(names, weights, holdout), arm), owned(split(names, raised, holdout), arm)
    assert common(before, after) == size(before)


@given(st.integers(1, 5), st.data())
def test_where_nothing_spills_only_the_first_arm_pays(count: int, data: st.DataObject) -> None:
    """Arms within their sections keep every bucket when another of them is raised, at the first's expense."""
    section = PPM // count
    names = [f"arm{index}" for index in range(count + 1)]
    others = [data.draw(st.integers(0, section)) for _ in range(count)]
    raised = [
        data.draw(st.integers(weight, section)) if i == 0 else weight for i, weight in enumerate(others)
    ]
    before, after = split(names, weights_of(others)), split(names, weights_of(raised))
    for arm in range(2, count + 1):
        assert owned(before, arm) == owned(after, arm)
    assert common(owned(before, 1), owned(after, 1)) == others[0]


@given(st.integers(0, PPM), st.integers(0, PPM))
def test_one_canary_has_the_buckets_below_its_weight(weight: int, bucket: int) -> None:
    """The whole rule where there is one: in the canary if and only if the bucket is below the weight."""
    assume(bucket < PPM)
    made = split(["stable", "canary"], [PPM - weight, weight])
    assert made.arm(bucket) == (1 if bucket < weight else 0)


def test_three_arms_by_hand() -> None:
    """Two canaries begin at 0 and in the middle; what the second has too much fills the first's tail."""
    made = split(["s", "b", "a"], [100_000, 700_000, 200_000])
    assert owned(made, 2) == [(0, 200_000)]
    assert owned(made, 1) == [(300_000, 500_000), (500_000, PPM)]
    assert owned(made, 0) == [(200_000, 300_000)]


@pytest.mark.parametrize(
    ("names", "weights", "holdout"),
    [
        ([], [], 0),
        (["a", "a"], [PPM, 0], 0),
        (["a", "b"], [PPM, 1], 0),
        (["a", "b"], [PPM + 1, -1], 0),
        (["a"], [PPM - 1], 0),
        (["a", "b"], [10, PPM - 10], 11),
        (["a", "b"], [PPM, 0], -1),
        (["a", "b"], [PPM], 0),
    ],
)
def test_what_cannot_be_split_is_refused(names: list[str], weights: list[int], holdout: int) -> None:
    """Weights are whole, not negative, PPM together, and leave the holdout alone."""
    with pytest.raises(ValueError, match=r"split|holdout"):
        split(names, weights, holdout)
