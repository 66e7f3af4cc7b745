"""The seeded streams of River's documentation and tests: changes found where River 0.26.1 finds them.

The points of `documentation`, `basic` and `several` are printed there. The others, of which River says less
or that its pages print as of an older release, were read off River 0.26.1, which these tests ask again.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pytest
from river.drift import ADWIN

from gateway.statistics.adwin import Adwin, Settings

RIVERS = {"min_window": "min_window_length", "grace": "grace_period"}
"""Settings that are called otherwise there."""


@dataclass(frozen=True)
class Stream:
    """A published stream, what it is looked at with, and the updates after which a change is found."""

    values: Callable[[], list[float]]
    changes: list[int]
    settings: Mapping[str, float] = field(default_factory=dict)


def documentation() -> list[float]:
    draw = random.Random(12345)
    return [*draw.choices([0, 1], k=1000), *draw.choices(range(4, 8), k=1000)]


def user_guide() -> list[float]:
    draw = np.random.RandomState(seed=42)
    parts = [(0.8, 0.05), (0.4, 0.02), (0.6, 0.1)]
    return list(chain.from_iterable(draw.normal(mean, spread, 1000).tolist() for mean, spread in parts))


def basic() -> list[float]:
    draw = np.random.RandomState(12345)
    return [*draw.randint(2, size=1000).tolist(), *draw.randint(8, size=1000).tolist()]


def binomial() -> list[float]:
    draw = np.random.RandomState(12345)
    return [float(draw.binomial(1, p)) for p in (0.2, 0.8) for _ in range(1000)]


def switching() -> list[float]:
    draw = np.random.RandomState(12345)
    parts = [draw.normal(mean, 0.1, 500) > 0 for mean in (0.0, 0.25, 0.0, 0.25)]
    return [float(value) for value in np.concatenate(parts)]


def several() -> list[float]:
    draw = random.Random(42)
    return list(chain.from_iterable(draw.choices(v, k=1000) for v in 2 * ([0, 1], range(4, 8))))


def half_a_deviation() -> list[float]:
    draw = np.random.RandomState(42)
    return [*draw.randn(500).tolist(), *(draw.randn(500) + 0.5).tolist()]


def five_deviations() -> list[float]:
    draw = random.Random(42)
    return [*(draw.gauss(0, 1) for _ in range(500)), *(draw.gauss(5, 1) for _ in range(500))]


def normal() -> list[float]:
    draw = random.Random(123)
    return [draw.gauss(0, 1) for _ in range(5000)]


def uniform() -> list[float]:
    draw = random.Random(42)
    return [draw.random() for _ in range(20_000)]


def rising() -> list[float]:
    return [*([0.0] * 1000), *([10.0] * 1000)]


STREAMS = {
    "documentation": Stream(documentation, [1023]),
    "user guide": Stream(user_guide, [1023, 2047]),
    "basic": Stream(basic, [1023]),
    "basic, every value": Stream(basic, [1004], {"clock": 1}),
    "several": Stream(several, [1023, 2015, 3007]),
    "binomial": Stream(binomial, [1055]),
    "switching": Stream(switching, [543, 1023, 1567]),
    "half a deviation, .2": Stream(half_a_deviation, [607], {"delta": 0.2}),
    "half a deviation, .01": Stream(half_a_deviation, [639], {"delta": 0.01}),
    "half a deviation, .001": Stream(half_a_deviation, [703], {"delta": 0.001}),
    "five deviations": Stream(five_deviations, [502], {"min_window": 1, "clock": 1}),
    "normal": Stream(normal, []),
    "uniform": Stream(uniform, []),
    "switching, 2 buckets": Stream(switching, [541, 1021, 1544], {"max_buckets": 2, "clock": 1}),
    "switching, 20 buckets": Stream(switching, [541, 1021, 1539], {"max_buckets": 20, "clock": 1}),
    "rising": Stream(rising, [1023]),
    "rising, 0.01": Stream(rising, [1001], {"delta": 0.01, "clock": 1}),
    "rising, grace": Stream(rising, [1100], {"grace": 1100, "clock": 1}),
    "alternating": Stream(lambda: [float(i % 2) for i in range(2000)], []),
    "constant": Stream(lambda: [1.0] * 5000, []),
}


def found(stream: Stream) -> list[int]:
    window = Adwin(Settings(**stream.settings))  # type: ignore[arg-type]  # counts are whole
    return [index for index, value in enumerate(stream.values()) if window.update(value)]


@pytest.mark.parametrize("name", STREAMS)
def test_changes_are_found_where_published(name: str) -> None:
    """Index by index."""
    assert found(STREAMS[name]) == STREAMS[name].changes


@pytest.mark.parametrize("name", STREAMS)
def test_published_points_are_rivers(name: str) -> None:
    """River itself finds the changes there."""
    stream, points = STREAMS[name], []
    settings = {RIVERS.get(key, key): value for key, value in stream.settings.items()}
    oracle = ADWIN(**settings)  # type: ignore[no-untyped-call]  # River has no types here
    for index, value in enumerate(stream.values()):
        oracle.update(value)  # type: ignore[no-untyped-call]
        if oracle.drift_detected:
            points.append(index)
    assert points == stream.changes
