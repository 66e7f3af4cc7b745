"""The pure parts: transitions, version policies, the routing table."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.options import ModelSpec, VersionPolicy
from gateway.core.types import VersionState
from gateway.models.desired import spec_digest
from gateway.models.lifecycle import ENDED, TRANSITIONS, IllegalTransition, check_transition
from gateway.models.policy import may_retire, served_numbers


def test_every_transition_not_drawn_raises() -> None:
    """Only the arrows of the table are legal, and the ends lead nowhere."""
    assert set(TRANSITIONS) == set(VersionState)
    for current, to in itertools.product(VersionState, VersionState):
        if to in TRANSITIONS[current]:
            assert check_transition(current, to) is to
        else:
            with pytest.raises(IllegalTransition):
                check_transition(current, to)
    assert all(not TRANSITIONS[state] for state in ENDED)


@pytest.mark.parametrize(
    ("policy", "available", "served"),
    [
        (VersionPolicy(), [], ()),
        (VersionPolicy(), [3, 1, 2], (3,)),
        (VersionPolicy(latest=2), [3, 1, 2], (2, 3)),
        (VersionPolicy(latest=9), [3, 1], (1, 3)),
        (VersionPolicy(latest=0), [3, 1], (3,)),
        (VersionPolicy(specific=(1, 7)), [3, 1, 2], (1,)),
        (VersionPolicy(all=True), [3, 1, 2, 2], (1, 2, 3)),
        (VersionPolicy(all=True, specific=(1,)), [3, 1], (1, 3)),
    ],
)
def test_policy_chooses(policy: VersionPolicy, available: list[int], served: tuple[int, ...]) -> None:
    """Each policy serves the numbers its documentation says."""
    assert served_numbers(policy, available) == served


@given(
    st.builds(
        VersionPolicy,
        latest=st.integers(0, 4),
        specific=st.lists(st.integers(1, 9), max_size=3).map(tuple),
        all=st.booleans(),
    ),
    st.lists(st.integers(1, 9)),
)
def test_policy_is_idempotent(policy: VersionPolicy, available: list[int]) -> None:
    """Applying a policy to its own choice changes nothing."""
    once = served_numbers(policy, available)
    assert served_numbers(policy, once) == once


@pytest.mark.parametrize(
    ("number", "wanted", "ready", "may"),
    [
        (1, [], [], True),
        (1, [2], [], False),
        (1, [2], [2], True),
        (1, [2, 3], [2], True),
        (1, [1], [], False),
        (1, [1, 2], [2], False),
        (1, [1, 2], [1], True),
    ],
)
def test_retiring_preserves_availability(number: int, wanted: list[int], ready: list[int], may: bool) -> None:
    """An old version goes only when its replacement, or some wanted version, is READY."""
    assert may_retire(number, wanted=wanted, ready=ready) is may


def test_spec_digest_ignores_what_reloads_nothing() -> None:
    """Policy, `required` and `allow_breaking` leave the digest alone; anything about running changes it."""
    base = ModelSpec(name="m")
    assert spec_digest(base) == spec_digest(
        ModelSpec(name="m", required=False, versions=VersionPolicy(all=True), allow_breaking=True)
    )
    assert spec_digest(base) != spec_digest(ModelSpec(name="m", backend_options={"intra_op_threads": 2}))
    assert spec_digest(base) != spec_digest(ModelSpec(name="m", batch_axes={"x": None}))
