"""Differences and sums of counts."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.evidence import ArmCounts, Evidence, ShadowCounts
from gateway.core.rollout import CANARY
from gateway.rollouts.gates import CRASH, Delta, delta, merge

counts = st.integers(0, 1000)
arm_counts = st.builds(
    ArmCounts,
    requests=counts,
    units=counts,
    errors=counts,
    exceeded=st.lists(counts, max_size=3).map(tuple),
    measured=counts,
    crashes=counts,
    fallbacks=counts,
    requests_all=counts,
    keys=counts,
)
slice_counts = st.dictionaries(st.sampled_from("abc"), st.tuples(counts, counts), max_size=3)
shadow_counts = st.builds(
    ShadowCounts,
    mirrored=counts,
    compared=counts,
    disagreed=counts,
    failed=counts,
    dropped=st.dictionaries(st.sampled_from(["inflight", "headroom"]), counts),
    slices=st.dictionaries(st.sampled_from(["country"]), slice_counts),
    failed_alone=counts,
)
deltas = st.builds(
    Delta,
    st.dictionaries(st.sampled_from(["stable", "canary"]), arm_counts),
    st.dictionaries(st.sampled_from(["canary", "next"]), shadow_counts),
)


def _evidence(counted: Delta, **others: Any) -> Evidence:
    plain: dict[str, Any] = {"rollout_id": "r", "step": 0, "replica": "a", "boot_id": "b", "seq": 1}
    return Evidence(**(plain | others), arms=counted.arms, shadows=counted.shadows)


@given(deltas, deltas)
def test_a_difference_added_to_the_old_totals_gives_the_new(old: Delta, grown: Delta) -> None:
    """The first report and the difference to the second sum up to the second."""
    new = merge(old, grown)
    assert merge(delta(None, _evidence(old)), delta(_evidence(old), _evidence(new))) == merge(new)


@given(st.lists(deltas, max_size=4))
def test_the_order_of_replicas_does_not_matter(parts: list[Delta]) -> None:
    """A sum is the same in any order, and however it is grouped."""
    whole = merge(*parts)
    assert merge(*parts[::-1]) == whole
    assert merge(merge(*parts[:2]), merge(*parts[2:])) == whole


@given(deltas)
def test_the_same_report_again_counts_nothing(counted: Delta) -> None:
    """Reports are idempotent."""
    again = delta(_evidence(counted), _evidence(counted))
    assert all(
        replace(arm, exceeded=()) == ArmCounts() and not any(arm.exceeded) for arm in again.arms.values()
    )
    assert not any(shadow.compared or shadow.mirrored for shadow in again.shadows.values())


def test_totals_that_shrink_count_nothing() -> None:
    """No count is ever taken back."""
    old, new = (_evidence(Delta({CANARY: ArmCounts(requests=n, crashes=n)})) for n in (5, 3))
    assert delta(old, new).arm(CANARY) == ArmCounts()


def test_a_crash_is_one_of_the_canary() -> None:
    """A crash that nobody could count any more can be added."""
    assert merge(CRASH, CRASH).arm(CANARY).crashes == 2
