"""Which runs the event loop may make itself."""

from __future__ import annotations

from gateway.backends.onnxruntime.run_times import SHORT_NS, RunTimes


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
    """Fifty times too long takes some hundred short ones."""
    times = RunTimes()
    times.note(1, SHORT_NS // 2)
    times.note(1, 50 * SHORT_NS)
    short_after = 0
    while not times.are_short(1):
        times.note(1, SHORT_NS // 2)
        short_after += 1
    assert 300 < short_after < 500


def test_what_takes_as_long_as_a_hand_off_is_not_short() -> None:
    """The bound itself is long."""
    times = RunTimes()
    times.note(1, SHORT_NS)
    assert not times.are_short(1)
