"""Which runs the event loop may make itself."""

from __future__ import annotations

from gateway.backends.onnxruntime.run_times import LONG_NS, SHORT_NS, RunTimes


def test_only_sizes_that_have_been_run_are_known_to_be_short() -> None:
    """By powers of two: 4 to 7 bytes are one size."""
    times = RunTimes()
    assert not times.are_short(5)
    times.note(5, SHORT_NS // 2)
    assert times.are_short(4)
    assert times.are_short(7)
    assert not times.are_short(8)
    assert not times.are_short(3)


def test_a_long_run_is_remembered_for_a_while_and_forgotten() -> None:
    """Five milliseconds are over the loop's bound until some ninety short runs have followed."""
    times = RunTimes()
    times.note(1, SHORT_NS // 20)
    times.note(1, 5 * LONG_NS // 2)
    short_after = 0
    while not times.are_short(1):
        times.note(1, SHORT_NS // 20)
        short_after += 1
    assert 60 < short_after < 120


def test_one_run_somewhat_too_long_changes_nothing() -> None:
    """A cold cache now and then is no reason for a thread."""
    times = RunTimes()
    for _ in range(100):
        times.note(1, SHORT_NS // 2)
    times.note(1, 3 * SHORT_NS)
    assert times.are_short(1)


def test_runs_that_became_longer_are_soon_not_short() -> None:
    """After a score of them."""
    times = RunTimes()
    for _ in range(100):
        times.note(1, SHORT_NS // 2)
    for _ in range(20):
        times.note(1, 3 * SHORT_NS)
    assert not times.are_short(1)


def test_what_takes_as_long_as_a_hand_off_is_not_short() -> None:
    """The bound itself is long."""
    times = RunTimes()
    times.note(1, SHORT_NS)
    assert not times.are_short(1)
