"""Durations, percentages and versions as rollout files write them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.rollout_values import (
    duration_text,
    parse_duration,
    parse_percent,
    parse_share,
    parse_target,
    parse_version,
    percent_text,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("40ms", 0.04), ("0s", 0.0), ("1.5s", 1.5), ("10m", 600.0), ("24h", 86_400.0), ("7d", 604_800.0)],
)
def test_durations(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", [10, 1.5, "10", "10 m", "-1s", "1h30m", "1w", "", None, True, "1e3s", "367d"]
)
def test_what_is_no_duration(value: object) -> None:
    """A number without its unit is refused, as is what is longer than a year."""
    with pytest.raises(ValueError, match=r"duration with its unit|longer than"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "ppm"),
    [("1%", 10_000), ("0.05%", 500), ("100%", 1_000_000), ("0.0001%", 1), ("33.3333%", 333_333)],
)
def test_percentages(text: str, ppm: int) -> None:
    """Exact in parts per million."""
    assert parse_percent(text) == ppm


@pytest.mark.parametrize("value", [1, 0.5, "1", "-1%", "101%", "0.00005%", "1e1%", "%", None, True])
def test_what_is_no_percentage(value: object) -> None:
    """Finer than a part in a million is refused, not rounded."""
    with pytest.raises(ValueError, match=r"percentage such as|more than 100|finer than"):
        parse_percent(value)


@given(st.integers(0, 1_000_000))
def test_percentages_come_back_from_their_text(ppm: int) -> None:
    """What is printed can be written into a file."""
    assert parse_percent(percent_text(ppm)) == ppm


@given(st.integers(0, 10**6).map(lambda n: n / 10**4))
def test_shares_are_exact(percent: float) -> None:
    """A YAML number means its decimal digits, not the binary fraction near them."""
    assert parse_share(percent) == Fraction(repr(percent)) * 10_000


@given(st.integers(1, 300 * 86_400).map(float) | st.sampled_from([0.04, 0.0, 0.5]))
def test_durations_come_back_from_their_text(seconds: float) -> None:
    """What is printed can be written into a file."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(("value", "text"), [(2, "2"), ("@prod", "@prod"), ("1.4.2", "1.4.2"), ("2", "2")])
def test_targets(value: object, text: str) -> None:
    """Aliases, numbers and labels."""
    assert parse_target(value) == text


@pytest.mark.parametrize("value", [1.4, True, 0, -1, "", "@", "a b", "mlflow://fraud@prod", None, "../x"])
def test_what_is_no_target(value: object) -> None:
    """Where the model comes from is not a rollout's business."""
    with pytest.raises(ValueError, match="expected an alias"):
        parse_target(value)


def test_a_plain_split_follows_no_alias() -> None:
    """Its arms are named by their versions."""
    with pytest.raises(ValueError, match="follows no alias"):
        parse_version("@prod")
