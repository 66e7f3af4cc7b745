"""When an open loop's requests are due."""

from pathlib import Path

import numpy as np
import pytest

from loadtests.arrivals import Bursts, Closed, Constant, Poisson, Ramp, Replay, offsets_s


def test_constant() -> None:
    """Equal distances, from the first instant."""
    due = offsets_s(Constant(kind="constant", rate=4), 1.0)
    assert due.tolist() == [0, 0.25, 0.5, 0.75]


def test_poisson() -> None:
    """The rate on average, gaps as of an exponential distribution, and the same again for the same seed."""
    arrival = Poisson(kind="poisson", rate=1000, seed=7)
    due = offsets_s(arrival, 100.0)
    assert abs(len(due) - 100_000) < 5 * np.sqrt(100_000)
    gaps = np.diff(due)
    assert np.all(gaps >= 0)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, abs=0.02)
    assert np.array_equal(due, offsets_s(arrival, 100.0))
    assert not np.array_equal(due, offsets_s(arrival.model_copy(update={"seed": 8}), 100.0))


def test_bursts() -> None:
    """So many at one instant, at distances that give the rate."""
    due = offsets_s(Bursts(kind="bursts", rate=20, size=5), 1.0)
    assert due.tolist() == [at for at in (0, 0.25, 0.5, 0.75) for _ in range(5)]


@pytest.mark.parametrize(("start", "end"), [(0, 100), (100, 0), (20, 80), (50, 50)])
def test_ramp(start: float, end: float) -> None:
    """Up to any time there are as many as the rate's integral says."""
    due = offsets_s(Ramp(kind="ramp", start_rate=start, end_rate=end), 10.0)
    assert len(due) == (start + end) * 5
    for at in (1.0, 4.0, 9.0):
        expected = start * at + (end - start) * at * at / 20
        assert abs(np.count_nonzero(due < at) - expected) <= 1
    assert np.all(np.diff(due) > 0)


def test_trace(tmp_path: Path) -> None:
    """From its first line on, at the speed asked for, as far as the run goes."""
    file = tmp_path / "trace.csv"
    file.write_text("100.0, infer\n100.5, infer\n\n104.0, infer\n120.0, infer\n")
    due = offsets_s(Replay(kind="replay", file=file, speed=2), 5.0)
    assert due.tolist() == [0, 0.25, 2.0]


@pytest.mark.parametrize(("text", "complaint"), [("x\n", "no trace"), ("", "no times"), ("2\n1\n", "ascend")])
def test_what_is_no_trace(tmp_path: Path, text: str, complaint: str) -> None:
    """Is refused with the file's name."""
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        offsets_s(Replay(kind="replay", file=file), 1.0)


def test_a_closed_loop_has_no_schedule() -> None:
    """Its requests wait for answers."""
    with pytest.raises(TypeError, match="Closed"):
        offsets_s(Closed(kind="closed", in_flight=1), 1.0)


def test_connections_of_a_closed_loop() -> None:
    """Over HTTP one for each request in flight; gRPC shares eight."""
    loop = Closed(kind="closed", in_flight=32)
    assert (loop.connections_for(http=True), loop.connections_for(http=False)) == (32, 8)
    assert Closed(kind="closed", in_flight=32, connections=4).connections_for(http=False) == 4
