"""Edits of the file in the middle of a rollout, by class."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.rollout import (
    Assignment,
    CrashesGate,
    FreezeWindow,
    HashSpec,
    KeyKind,
    KeySource,
    Target,
)
from gateway.rollouts.edits import Edit, begins_another, classify
from tests.rollouts.invariants.world import spec

OLD = spec(weights=(10_000, 500_000))


@pytest.mark.parametrize(
    ("changes", "edit"),
    [
        ({"paused": True}, Edit.OVERLAY),
        ({"author": "another"}, Edit.OVERLAY),
        ({"freeze": (FreezeWindow("0 0 * * *", 60.0),)}, Edit.OVERLAY),
        ({"gates": {"safety": (CrashesGate(3),)}}, Edit.REGATE),
        ({"steps": OLD.steps[:2] + OLD.steps[3:]}, Edit.REGATE),
        ({"steps": spec(weights=(10_000, 20_000)).steps}, Edit.EASE),
        ({"steps": spec(weights=(10_000, 600_000)).steps}, Edit.RESTART),
        ({"steps": OLD.steps[1:]}, Edit.RESTART),
        ({"canary": Target("3")}, Edit.RESTART),
        ({"stable": Target("3")}, Edit.REFUSED),
        ({"model": "other"}, Edit.REFUSED),
        ({"assign": Assignment(HashSpec("another salt"))}, Edit.REFUSED),
        ({"assign": Assignment(OLD.assign.hash, (KeySource(KeyKind.HEADER, "x"),))}, Edit.REFUSED),
    ],
)
def test_an_edit_at_the_second_weight(changes: dict[str, Any], edit: Edit) -> None:
    """What may be changed, and at what price, while the second weight bakes."""
    assert classify(OLD, replace(OLD, **changes), 1, 1)[0] is edit


def test_after_a_promotion_only_another_target_or_other_steps_begin_a_rollout() -> None:
    """Other gates are taken note of."""
    assert not begins_another(OLD, replace(OLD, gates={}), promoted=True)
    assert begins_another(OLD, replace(OLD, canary=Target("3")), promoted=True)
    assert begins_another(OLD, replace(OLD, gates={}), promoted=False)
    assert not begins_another(OLD, replace(OLD, paused=True), promoted=False)
