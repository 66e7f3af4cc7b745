"""What a single label may hold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.monitor.labels.label import Label, Why, checked


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, None),
        ({"value": "yes", "row": 3, "revision": 2, "weight": 0.5, "at_ns": 1}, None),
        ({"id": b""}, Why.ID),
        ({"id": b"x" * 257}, Why.ID),
        ({"value": math.nan}, Why.VALUE),
        ({"value": math.inf}, Why.VALUE),
        ({"value": ""}, Why.VALUE),
        ({"value": "x" * 257}, Why.VALUE),
        ({"value": "\ud800"}, Why.VALUE),
        ({"row": -1}, Why.RANGE),
        ({"row": 1 << 32}, Why.RANGE),
        ({"revision": 1 << 63}, Why.RANGE),
        ({"at_ns": -1}, Why.RANGE),
        ({"weight": 0.0}, Why.RANGE),
        ({"weight": math.nan}, Why.RANGE),
        ({"source": "x" * 65}, Why.MALFORMED),
        ({"source": "\ud800"}, Why.MALFORMED),
    ],
)
def test_a_label_is_checked_by_itself(given: dict[str, Any], why: Why | None) -> None:
    """Every bound, from both sides where there are two."""
    fields: dict[str, Any] = {"id": b"k", "row": 0, "value": 1.0, **given}
    assert checked(Label(**fields)) is why
