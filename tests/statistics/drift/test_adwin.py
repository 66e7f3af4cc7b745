"""ADWIN alarms where River's does."""

import numpy as np
import pytest
from river.drift import ADWIN

from gateway.statistics.adwin import Adwin


def alarms(values: list[float]) -> list[int]:
    window = Adwin()
    return [index for index, value in enumerate(values) if window.update(value)]


def test_the_seeded_stream_is_cut_where_published() -> None:
    """The change at 1,000 is seen at update 1,023."""
    draw = np.random.RandomState(12345)  # the published stream is of the legacy generator
    values = np.concatenate([draw.randint(2, size=1000), draw.randint(8, size=1000)])
    assert alarms(values.tolist()) == [1023]


@pytest.mark.parametrize("seed", range(10))
def test_random_streams_are_cut_where_river_cuts_them(seed: int) -> None:
    """Streams with steps of random heights give River's alarms, index by index."""
    draw = np.random.default_rng(seed)
    steps = [draw.normal(draw.normal(0, 1.5), draw.uniform(0.2, 2), draw.integers(50, 900)) for _ in range(6)]
    values = np.concatenate(steps).tolist()
    oracle, expected = ADWIN(), []  # type: ignore[no-untyped-call]  # River has no types here
    for index, value in enumerate(values):
        oracle.update(value)  # type: ignore[no-untyped-call]
        if oracle.drift_detected:
            expected.append(index)
    assert alarms(values) == expected
    assert expected or seed
