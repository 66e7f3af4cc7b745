"""The event loop lets runs finish that share its processor."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from gateway.backends.onnxruntime.preemption import yield_to_runs
from tests.backends.graphs import identity, load, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a policy of Linux")


def policy_after(work: Callable[[], object]) -> int:
    """Return the scheduling policy of a thread of its own after some work: it is the thread's alone."""
    policies: list[int] = []

    def run() -> None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever it inherits
        work()
        policies.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return policies[0]


def on_cpus(count: int) -> None:
    """Leave the calling thread, and those it starts, so many processors."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))


def chosen_by_the_operator() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    yield_to_runs()


def test_a_thread_yields_unless_the_operator_chose_otherwise() -> None:
    """The ordinary policy is replaced, another one kept."""
    assert policy_after(yield_to_runs) == os.SCHED_BATCH
    assert policy_after(chosen_by_the_operator) == os.SCHED_IDLE


@pytest.mark.parametrize(
    ("cpus", "threads", "yields"),
    [(1, 1, True), (1, 2, False), (2, 1, False)],
)
def test_the_loop_yields_to_models_that_leave_it_no_processor(
    tmp_path: Path, cpus: int, threads: int, yields: bool
) -> None:
    """Only where a run is one thread on the loop's own processor."""
    if len(os.sched_getaffinity(0)) < cpus:
        pytest.skip("needs two processors")

    async def loaded() -> None:
        options = {"providers": ["CPUExecutionProvider"], "intra_op_threads": threads}
        model = await load(save(tmp_path, identity()), backend_options=options)
        await model.aclose()

    def work() -> None:
        on_cpus(cpus)
        asyncio.run(loaded())

    assert policy_after(work) == (os.SCHED_BATCH if yields else os.SCHED_OTHER)
