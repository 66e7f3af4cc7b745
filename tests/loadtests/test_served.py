"""What a load test reads from a gateway's metrics page."""

import os
from pathlib import Path

import pytest

from gateway.core.errors import BackendError
from gateway.core.types import VersionId, VersionState
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.outcome import Outcome
from gateway.testing import VirtualClock
from loadtests.served import Counters, ServedGateway, read_counters
from tests.telemetry.builders import DIGITS, batch, request, status


def served() -> GatewayMetrics:
    metrics = GatewayMetrics(VirtualClock())
    for version in (DIGITS, VersionId("digits", 2, "b"), VersionId("other", 1, "c")):
        metrics.lifecycle.on_transition(status(VersionState.READY, version))
    return metrics


async def test_counters_of_a_model_are_summed_over_its_versions_and_others_left_out() -> None:
    """Requests by outcome, runs and rows, sizes by bucket and not cumulated, reasons."""
    metrics = served()
    for version, outcome in (("1", Outcome.OK), ("2", Outcome.OK), ("2", Outcome.OVERLOADED)):
        metrics.requests.finished("digits", version, outcome, 0.1)
    metrics.requests.finished("other", "1", Outcome.OK, 0.1)
    metrics.batches.on_batch(batch([request()]))
    metrics.batches.on_batch(batch([request()] * 3))
    metrics.batches.on_batch(
        batch([request()] * 3, version=VersionId("digits", 2, "b"), error=BackendError(""))
    )
    metrics.batches.on_batch(batch([request()], version=VersionId("other", 1, "c")))
    found = read_counters((await metrics.render_aside()).body.decode(), "digits")
    assert found.answered == {"ok": 2, "overloaded": 1}
    assert (found.batches, found.rows, found.closed) == (3, 7, {"full": 3})
    assert {bound: count for bound, count in found.sizes.items() if count} == {"1.0": 1, "4.0": 2}


def test_counters_since_others_are_what_came_between() -> None:
    """What did not change is left out, what is new counts whole."""
    before = Counters({"ok": 2.0}, 1, 2, {"1.0": 1.0}, {"full": 1.0})
    after = Counters({"ok": 5.0, "invalid": 1.0}, 4, 12, {"1.0": 1.0, "4.0": 3.0}, {"full": 1.0, "idle": 3.0})
    between = Counters({"ok": 3, "invalid": 1}, 3, 10, {"4.0": 3}, {"idle": 3})
    assert after.since(before) == between


def test_a_gateway_may_be_of_another_build(tmp_path: Path) -> None:
    """The package comes from the folder named; a folder without one is refused by name."""
    package = tmp_path / "build"
    core = min(os.sched_getaffinity(0))
    with pytest.raises(RuntimeError, match=f"no package in {package}"), served_by(package, core, tmp_path):
        pass
    (package / "gateway").mkdir(parents=True)
    (package / "gateway" / "__init__.py").touch()
    (package / "gateway" / "cli.py").write_text(ANOTHER_BUILD)
    with served_by(package, core, tmp_path) as gateway:
        assert gateway.http_port == 12345


def served_by(package: Path, core: int, folder: Path) -> ServedGateway:
    return ServedGateway([], core, folder, package=package)


ANOTHER_BUILD = """
import signal

def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print('{"ready": true, "http_port": 12345}', flush=True)
    signal.sigwait({signal.SIGTERM})
"""
