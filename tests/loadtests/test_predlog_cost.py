"""What decides whether the prediction log costs too much."""

import argparse

import numpy as np
import pytest

from loadtests.noninterference import Stretch
from loadtests.predlog_cost import load, report


def _stretch(p99_us: float, cpu_us: float) -> Stretch:
    latencies_s = np.repeat([p99_us / 2e6, p99_us / 1e6], [980, 20])
    return Stretch(latencies_s=latencies_s, cpu_s=cpu_us / 1e6)


def test_load_names_a_rate_or_is_closed() -> None:
    """A number is requests per second; `closed` is none."""
    assert load("250.5") == 250.5
    assert load("closed") is None


@pytest.mark.parametrize("text", ["open", "0", "-1", "nan", "inf", ""])
def test_load_refuses_what_is_no_rate(text: str) -> None:
    """Nothing can be sent at such a rate."""
    with pytest.raises(argparse.ArgumentTypeError):
        load(text)


def test_a_slow_moment_of_the_machine_does_not_fail_the_log() -> None:
    """Neighbours that were both held up differ no more than others do."""
    pairs = [(_stretch(1000, 100), _stretch(1000, 101)) for _ in range(18)]
    held_up = [(_stretch(9000, 100), _stretch(9500, 101)), (_stretch(9500, 100), _stretch(9000, 101))]
    assert report([*pairs, *held_up], judge_latency=True)


def test_a_log_that_delays_quiet_stretches_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Over all requests, whose slowest are those of a slow machine, the ratio is 1."""
    quiet = [(_stretch(1000, 100), _stretch(1500, 101)) for _ in range(8)]
    slow = [(_stretch(9000, 100), _stretch(9000, 101)) for _ in range(12)]
    assert not report([*quiet, *slow], judge_latency=True)
    assert "p99 by pair" in capsys.readouterr().out


def test_processor_time_beyond_the_limit_fails() -> None:
    """6 us more of each request are too much, at whatever latency; 4 are not."""
    assert not report([(_stretch(1000, 100), _stretch(1000, 106)) for _ in range(10)], judge_latency=False)
    assert report([(_stretch(1000, 100), _stretch(1500, 104)) for _ in range(10)], judge_latency=False)
