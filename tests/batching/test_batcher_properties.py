"""The batcher under random traffic: nothing lost, doubled or misassigned, whatever happens on the way."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batching.scheduler import DeviceScheduler
from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    Overloaded,
)
from gateway.core.options import BatchingOptions, CutRule, PadRule
from gateway.core.types import CPU, Array, Datatype, ModelSignature, TensorSpec
from gateway.testing import FakeLoadedModel, infer_request, settle
from tests.batching.harness import Harness
from tests.properties import examples

if TYPE_CHECKING:
    from gateway.core.pending import Pending

POISON = -5.0

OPTIONS = st.builds(
    BatchingOptions,
    enabled=st.sampled_from([True, True, True, False]),
    max_batch_rows=st.integers(2, 8),
    max_batch_bytes=st.sampled_from([64, 1 << 20]),
    max_delay_s=st.sampled_from([0.0, 0.02]),
    preferred_rows=st.sampled_from([(), (2, 4)]),
    allowed_rows=st.sampled_from([(), (1, 4, 16)]),
    split_large=st.booleans(),
    max_queue_rows=st.sampled_from([6, 4096]),
    max_queue_age_s=st.sampled_from([None, 0.05]),
    priority_levels=st.sampled_from([0, 2]),
    priority_ageing_s=st.just(0.01),
    default_timeout_s=st.sampled_from([None, 0.1]),
    bisect_failures=st.booleans(),
    pad=st.sampled_from([(), (PadRule(input="x", axis=1, buckets=(2, 4)),), (PadRule(input="x", axis=1),)]),
    cut=st.just((CutRule(output="y", axis=1, input="x", input_axis=1),)),
)

SUBMIT = st.tuples(
    st.just("submit"),
    st.integers(0, 9),  # rows
    st.integers(1, 3),  # width
    st.sampled_from([0, 0, 1, 2]),  # priority
    st.sampled_from(["", "a", "b"]),  # flow
    st.sampled_from([None, None, 0.005, 0.03]),  # patience
    st.sampled_from([False] * 5 + [True]),  # poisonous
)
STEPS = st.lists(
    st.one_of(
        SUBMIT,
        SUBMIT,
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.sampled_from([0.001, 0.01, 0.04])),
        st.tuples(st.just("release"), st.integers(1, 3)),
        st.tuples(st.just("settle"), st.integers(1, 6)),
        st.tuples(st.just("break"), st.booleans()),
    ),
    max_size=40,
)


@dataclass
class Sent:
    """One admitted request and what became of it."""

    array: Array
    pending: Pending
    deadline_s: float
    poisonous: bool
    completions: list[float] = field(default_factory=list)
    cancelled: bool = False


class Traffic:
    """Plays the steps against one batcher and judges the outcome."""

    def __init__(self, options: BatchingOptions, datatype: Datatype, instances: int, slots: int) -> None:
        tensor = (-1, -1)
        self.signature = ModelSignature(
            (TensorSpec("x", datatype, tensor),), (TensorSpec("y", datatype, tensor),)
        )
        self.model = FakeLoadedModel(self.signature, instances=instances, held=True, poison=POISON)
        self.harness = Harness(self.model, options, scheduler=DeviceScheduler(CPU, slots))
        self.dtype = datatype.dtype
        self.tags = itertools.count(1)
        self.sent: list[Sent] = []
        self.refused = 0
        self.was_broken = False

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        for step in steps:
            await getattr(self, step[0] + "_")(*step[1:])
        self.harness.clock.advance(0.05)  # lets the last delay end
        self.model.release()  # a run whose requests have all gone goes on, and closing waits for it
        for _ in range(100):
            if all(sent.pending.done for sent in self.sent):
                break
            self.model.release()
            await settle()
            self.harness.clock.advance(0.02)
        await settle()
        await self.harness.batcher.aclose()

    async def submit_(self, *step: Any) -> None:
        rows, width, priority, flow, patience_s, poisonous = step
        tags = [POISON if poisonous and n == 0 else float(next(self.tags)) for n in range(rows)]
        array = np.repeat(np.array(tags, self.dtype).reshape(-1, 1), width, axis=1)
        now_s, options = self.harness.clock.now_s(), self.harness.options
        deadline_s = None if patience_s is None else now_s + patience_s
        try:
            pending = self.harness.batcher.submit(
                infer_request(array, priority=priority, flow_key=flow, deadline_s=deadline_s)
            )
        except (Overloaded, InvalidRequest):
            self.refused += 1
            return
        assert not pending.done
        limit_s = deadline_s or (
            math.inf if options.default_timeout_s is None else now_s + options.default_timeout_s
        )
        sent = Sent(array, pending, limit_s, poisonous and rows > 0)
        pending.add_done_callback(lambda _: sent.completions.append(self.harness.clock.now_s()))
        self.sent.append(sent)

    async def cancel_(self, index: int) -> None:
        if index < len(self.sent):
            self.sent[index].cancelled |= self.sent[index].pending.cancel()

    async def advance_(self, seconds: float) -> None:
        self.harness.clock.advance(seconds)

    async def release_(self, runs: int) -> None:
        self.model.release(min(runs, len(self.model._gates)))

    async def settle_(self, turns: int) -> None:
        await settle(turns)

    async def break_(self, broken: bool) -> None:
        self.model.broken = broken
        self.was_broken |= broken

    # -- judging -------------------------------------------------------------------------------------------

    def judge(self) -> None:
        for sent in self.sent:
            assert len(sent.completions) == 1, "answered exactly once"
            if sent.pending.response is not None:
                assert not sent.poisonous
                np.testing.assert_array_equal(sent.pending.response.outputs[0].array, sent.array)
            else:
                assert sent.pending.error is not None
                self.judge_failure(sent, sent.pending.error)
        self.judge_runs()
        self.judge_books()

    def judge_failure(self, sent: Sent, error: GatewayError) -> None:
        if isinstance(error, Cancelled):
            assert sent.cancelled
        elif isinstance(error, DeadlineExceeded):
            assert sent.completions[0] >= sent.deadline_s
            assert sent.completions[0] <= sent.deadline_s + 0.002, "answered within 10 ms of expiry"
        elif isinstance(error, BackendUnavailable):
            assert self.was_broken
        else:
            assert isinstance(error, BackendError)
            assert sent.poisonous or self.shared_a_run_with_poison(sent)

    def shared_a_run_with_poison(self, sent: Sent) -> bool:
        return any(POISON in tags and tags & set(sent.array[:, 0].tolist()) for tags in self.runs()) or (
            sent.array.size == 0
        )

    def runs(self) -> list[set[float]]:
        return [set(batch.inputs["x"][:, :1].ravel().tolist()) for batch in self.model.batches]

    def judge_runs(self) -> None:
        options, most = self.harness.options, self.harness.options.max_batch_rows
        sizes = [batch.rows for batch in self.model.batches]
        if options.allowed_rows:
            assert set(sizes) <= set(options.allowed_rows)
        else:
            assert max(sizes, default=0) <= most
        runs_of = Counter(tag for tags in self.runs() for tag in tags - {0.0, POISON})
        assert max(runs_of.values(), default=0) <= math.ceil(math.log2(most)) + 1
        assert self.model.most_running <= min(self.model.instances, self.harness.scheduler.slots)
        assert self.harness.scheduler.running == 0

    def judge_books(self) -> None:
        statistics, batcher = self.harness.statistics, self.harness.batcher
        well = [sent for sent in self.sent if sent.pending.response is not None]
        assert statistics.success.count == len(well)
        assert statistics.fail.count == len(self.sent) - len(well) + self.refused
        assert statistics.inference_count == sum(len(sent.array) for sent in well)
        assert statistics.execution_count == len(self.model.batches)
        assert (batcher.queued_rows, batcher.queued_requests, batcher.running_rows) == (0, 0, 0)


@settings(max_examples=examples(250), deadline=None)
@given(
    OPTIONS,
    st.sampled_from([Datatype.FP32, Datatype.INT64, Datatype.FP64]),
    st.integers(1, 2),
    st.integers(1, 2),
    STEPS,
)
def test_every_request_is_answered_once_with_its_own_rows_or_its_own_error(
    options: BatchingOptions, datatype: Datatype, instances: int, slots: int, steps: list[tuple[Any, ...]]
) -> None:
    """Over random shapes, rows, priorities, deadlines, cancellations, poison and lost devices."""

    async def scenario() -> None:
        traffic = Traffic(options, datatype, instances, slots)
        await traffic.play(steps)
        traffic.judge()

    asyncio.run(scenario())
