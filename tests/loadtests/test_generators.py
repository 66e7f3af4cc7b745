"""The figures of wrk and h2load, read from what they printed for a server that refused some requests."""

from pathlib import Path

import pytest

from loadtests.generators import Load, h2load_load, wrk_load

RECORDED = Path(__file__).parent / "recorded"


def text(name: str) -> str:
    return (RECORDED / name).read_text()


def test_wrk() -> None:
    """Figures come in seconds and milliseconds, and a refusal is a failure."""
    assert wrk_load(text("wrk.txt")) == Load(46, 1.000599, 43.992, 44.225, 9)


def test_wrk_without_figures() -> None:
    """A run that ended before its script could print is an error that shows what wrk said."""
    with pytest.raises(ValueError, match="unable to connect"):
        wrk_load("unable to connect to 127.0.0.1:1 Connection refused")


def test_h2load() -> None:
    """Quantiles are those of the log's third column; failures, which both files have, count once."""
    load = h2load_load(text("h2load.txt"), RECORDED / "h2load-requests.txt")
    assert (load.requests, load.failed) == (10, 2)
    assert load.seconds == pytest.approx(0.39714)
    assert load.p50_ms == pytest.approx(43.921)  # between 43.897 and 43.945
    assert 44.044 < load.p99_ms < 44.045


def test_h2load_in_seconds() -> None:
    """A run of a second or more is told in another unit."""
    longer = text("h2load.txt").replace("finished in 397.14ms", "finished in 2.01s")
    assert h2load_load(longer, RECORDED / "h2load-requests.txt").seconds == pytest.approx(2.01)


def test_statuses_in_the_log_alone_are_failures(tmp_path: Path) -> None:
    """What the summary calls a success but the log gives another status is counted."""
    log = tmp_path / "log"
    log.write_text("1\t200\t10\n2\t404\t10\n3\t503\t10\n4\t200\t10\n")
    summary = text("h2load.txt").replace("2 failed", "0 failed")
    assert h2load_load(summary, log).failed == 2


@pytest.mark.parametrize(("output", "log"), [("", "h2load-requests.txt"), ("h2load.txt", "no-log.txt")])
def test_h2load_without_figures(output: str, log: str) -> None:
    """Neither the summary nor the log alone is a result."""
    with pytest.raises(ValueError, match="no figures"):
        h2load_load(text(output) if output else "", RECORDED / log)


def test_h2load_without_an_answer(tmp_path: Path) -> None:
    """A log without a line, as of a server that accepts and never answers, has no figures either."""
    log = tmp_path / "log"
    log.touch()
    with pytest.raises(ValueError, match="no figures"):
        h2load_load(text("h2load.txt"), log)


def test_h2load_that_could_not_connect() -> None:
    """A server that is not there is no measurement."""
    with pytest.raises(ValueError, match="5 failed, 5 errored"):
        h2load_load(text("h2load-refused.txt"), RECORDED / "h2load-requests.txt")
