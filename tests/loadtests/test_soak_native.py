"""The long counts of the native transport, a small part of each; `make soak` does all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtests.soak_native_idle import allow_files, idle_http1, idle_http2
from loadtests.soak_native_load import cancels, serving
from loadtests.soak_wire_fuzz import CORE, Fuzzed, generated, read_libfuzzer
from tests.transport.grpc_wire.coverage_fuzz import check, seeds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadtests.soak_native_idle import IdleReport
    from loadtests.soak_server import GatewayProcess

REQUESTS, WARM_UP = 8000, 2000
IDLE = 200
GUIDED = """#401 INITED cov: 426 ft: 1771 corp: 118/66Kb exec/s: 200 rss: 74Mb
#500 NEW cov: 430 ft: 1780 corp: 119/66Kb exec/s: 250 rss: 75Mb
stat::number_of_executed_units: 1200
stat::peak_rss_mb: 79
"""


@pytest.mark.soak
@pytest.mark.slow
def test_calls_beside_broken_ones_are_right_and_nothing_is_left() -> None:
    with serving() as server:
        report = cancels(server, REQUESTS, WARM_UP)
    traffic = report.traffic
    assert not traffic.problems
    assert traffic.started >= REQUESTS + WARM_UP
    assert traffic.unaccounted == 0
    assert min(traffic.right, traffic.broken_off, traffic.lost) > 0
    assert (report.left, report.limits) == (0, {})
    assert report.fds <= 2
    assert report.threads <= 2


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("hold", [idle_http1, idle_http2])
async def test_idle_connections_harm_nobody(
    hold: Callable[[GatewayProcess, int], Awaitable[IdleReport]],
) -> None:
    with serving() as server:
        report = await hold(server, allow_files(IDLE))
    assert report.problems == []
    assert report.connections == IDLE


@pytest.mark.soak
@pytest.mark.slow
def test_generated_input_is_tried_for_the_time_asked_for() -> None:
    assert generated(CORE, 1.0) == Fuzzed("25 examples", "")


def test_the_inputs_that_guided_fuzzing_begins_with_hold() -> None:
    found = list(seeds(60))
    assert {seed[0] for seed in found} == {1, 3}
    for seed in found:
        for way in range(4):
            check(bytes((way,)) + seed[1:])


def test_what_libfuzzer_says_is_read() -> None:
    assert read_libfuzzer(GUIDED, 0) == Fuzzed("1,200 inputs, 430 edges", "", 5 << 20)


@pytest.mark.parametrize(("said", "code"), [(GUIDED, 77), ("Traceback", 0), (GUIDED[:70], 0)])
def test_a_run_of_libfuzzer_that_failed_or_never_began_is_a_problem(said: str, code: int) -> None:
    assert said[-50:] in read_libfuzzer(said, code).problem
