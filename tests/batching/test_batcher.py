"""The batcher over a model under the test's control and a clock that moves when told."""

from __future__ import annotations

import asyncio
import gc
import math
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.batching.execution import OFF_LOOP_BYTES
from gateway.batching.scheduler import DeviceScheduler
from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    Draining,
    GatewayError,
    InvalidRequest,
    Overloaded,
    Unsupported,
)
from gateway.core.events import CloseReason
from gateway.core.options import BatchingOptions, CutRule, PadRule
from gateway.core.types import (
    CPU,
    Batch,
    BatchResult,
    Datatype,
    ModelSignature,
    RequestedOutput,
    Tensor,
    TensorSpec,
)
from gateway.testing import FakeLoadedModel, gather_results, identity_signature, infer_request, settle
from tests.batching.harness import VERSION, Harness, request, rows, tags_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.core.events import CompletedBatch
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, VersionId

POISON = 666.0
UNBATCHED = ModelSignature(
    (TensorSpec("x", Datatype.FP32, (-1, 1), None),), (TensorSpec("y", Datatype.FP32, (-1, 1), None),)
)


def held(options: BatchingOptions | None = None, **model: Any) -> Harness:
    return Harness(FakeLoadedModel(held=True, **model), options or BatchingOptions())


async def occupy(harness: Harness) -> Pending:
    """Let one request occupy an instance."""
    pending = harness.batcher.submit(request(-1.0))
    await settle()
    return pending


async def outcomes(pendings: Sequence[Pending]) -> list[list[float] | type[GatewayError]]:
    results = await gather_results(pendings)
    return [
        type(result) if isinstance(result, GatewayError) else tags_of(result)
        for _, result in sorted(results.items())
    ]


async def test_answered_requests_leave_nothing_for_the_garbage_collector() -> None:
    """Their tensors, and the buffers under them, are freed with the last reference."""
    harness = Harness()
    gc.collect()
    gc.disable()
    try:
        await gather_results([harness.batcher.submit(request(float(tag))) for tag in range(100)])
        await settle()
        harness.observer.batches.clear()
        assert gc.collect() < 100
    finally:
        gc.enable()


# -- forming -----------------------------------------------------------------------------------------------


async def test_requests_of_one_loop_turn_share_a_batch() -> None:
    """Nothing is formed before the turn is over, although an instance is free and no delay is declared."""
    harness = Harness()
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(5)]
    assert await outcomes(pendings) == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert harness.batch_rows() == [5]


async def test_batches_form_when_an_instance_becomes_free() -> None:
    """What arrives while the model is busy runs together afterwards."""
    harness = held()
    await occupy(harness)
    for tag in range(3):
        harness.batcher.submit(request(float(tag), float(tag)))
        await settle()
    assert (harness.batcher.queued_rows, harness.batcher.queued_requests, harness.batcher.running_rows) == (
        6,
        3,
        1,
    )
    harness.model.release(1)
    await settle()
    assert harness.batch_rows() == [1, 6]
    assert (harness.batcher.queued_rows, harness.batcher.running_rows) == (0, 6)
    harness.model.release()


@pytest.mark.parametrize(("instances", "slots", "most"), [(1, 8, 1), (3, 8, 3), (3, 2, 2)])
async def test_no_more_runs_than_instances_and_device_slots(instances: int, slots: int, most: int) -> None:
    """A run needs a free instance of the model and a free slot of the device."""
    options = BatchingOptions(max_batch_rows=1)
    harness = Harness(
        FakeLoadedModel(instances=instances, held=True), options, scheduler=DeviceScheduler(CPU, slots)
    )
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(6)]
    await settle()
    harness.model.release()
    await outcomes(pendings)
    assert harness.model.most_running == most


async def test_a_declared_delay_waits_for_company_and_no_longer() -> None:
    """The batch runs exactly when the oldest request has waited the delay."""
    harness = Harness(options=BatchingOptions(max_delay_s=0.010))
    pendings = [harness.batcher.submit(request(1.0))]
    await settle()
    harness.clock.advance(0.006)
    pendings.append(harness.batcher.submit(request(2.0)))
    await settle()
    assert harness.batch_rows() == []
    harness.clock.advance(0.004)
    assert await outcomes(pendings) == [[1.0], [2.0]]
    assert harness.batch_rows() == [2]
    assert harness.statistics.close_reasons == {"delay": 1}


async def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    """The rest waits on."""
    harness = Harness(options=BatchingOptions(max_delay_s=1.0, max_batch_rows=2))
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(3)]
    assert await outcomes(pendings[:2]) == [[0.0], [1.0]]
    assert not pendings[2].done
    harness.clock.advance(1.0)
    assert await outcomes(pendings[2:]) == [[2.0]]
    assert harness.statistics.close_reasons == {"full": 1, "delay": 1}


async def test_a_deadline_within_the_delay_is_met() -> None:
    """A request whose deadline comes first is run in time rather than expired."""
    harness = Harness(options=BatchingOptions(max_delay_s=10.0))
    pending = harness.batcher.submit(request(1.0, deadline_s=harness.clock.now_s() + 1.0))
    await settle()
    harness.clock.advance(0.999)
    assert await outcomes([pending]) == [[1.0]]
    assert harness.statistics.close_reasons == {"deadline": 1}


@pytest.mark.parametrize(
    ("signature", "enabled", "rows_run"),
    [(identity_signature(), False, 2), (UNBATCHED, True, 1)],
)
async def test_a_model_that_is_not_batched_runs_each_request_alone(
    signature: ModelSignature, enabled: bool, rows_run: int
) -> None:
    """Switched off or without a batch axis: requests still queue, never merge, and keep their parameters."""
    harness = Harness(FakeLoadedModel(signature), BatchingOptions(enabled=enabled))
    pendings = [harness.batcher.submit(request(tag, tag + 0.5, parameters={"p": tag})) for tag in (1.0, 2.0)]
    assert await outcomes(pendings) == [[1.0, 1.5], [2.0, 2.5]]
    assert harness.batch_rows() == [rows_run, rows_run]
    assert [batch.parameters for batch in harness.model.batches] == [{"p": 1.0}, {"p": 2.0}]
    assert harness.statistics.close_reasons == {"single": 2}


async def test_large_inputs_are_assembled_off_the_loop_and_come_out_right() -> None:
    """A batch beyond the threshold takes the way through a thread."""
    features = OFF_LOOP_BYTES // 4
    harness = Harness(FakeLoadedModel(identity_signature(features=features)))
    arrays = [np.full((1, features), tag, np.float32) for tag in (1, 2)]
    pendings = [harness.batcher.submit(infer_request(array)) for array in arrays]
    for pending, array in zip(pendings, arrays, strict=True):
        np.testing.assert_array_equal((await pending).outputs[0].array, array)
    assert harness.batch_rows() == [2]
    assert harness.threads.calls == 2, "the inputs together, the outputs apart"


ANY_LENGTH = TensorSpec("x", Datatype.FP32, (-1,), None)


@pytest.mark.parametrize(
    "signature",
    [
        ModelSignature((ANY_LENGTH,), (TensorSpec("y", Datatype.FP32, (-1,), None),)),
        ModelSignature(
            (ANY_LENGTH, TensorSpec("rows", Datatype.FP32, (-1, 1))),
            (TensorSpec("y", Datatype.FP32, (-1, 1)),),
        ),
    ],
    ids=["model without batch axis", "input without batch axis"],
)
async def test_large_inputs_without_a_batch_axis_are_copied_off_the_loop(signature: ModelSignature) -> None:
    """The bytes of the request decide, not those of its rows."""
    harness = Harness(RowsModel(signature))
    large = np.frombuffer(bytes(OFF_LOOP_BYTES), np.float32)
    sent = infer_request(large)
    sent.inputs = (*sent.inputs, *[Tensor("rows", Datatype.FP32, rows(1.0))][: len(signature.inputs) - 1])
    await harness.batcher.submit(sent)
    assert harness.threads.calls == 1


class RowsModel(FakeLoadedModel):
    """Answers with one row."""

    async def infer(self, batch: Batch) -> BatchResult:
        self.batches.append(batch)
        return BatchResult({"y": rows(1.0)})


async def test_large_outputs_are_copied_apart_off_the_loop() -> None:
    """Many members of a large output each get their own rows, by way of a thread."""
    features = OFF_LOOP_BYTES // 16
    harness = Harness(WideModel(features))
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(4)]
    for tag, pending in enumerate(pendings):
        array = (await pending).outputs[0].array
        assert array.base is None, "nothing else is kept alive"
        np.testing.assert_array_equal(array, np.full((1, features), tag, np.float32))
    assert harness.threads.calls == 1
    assert harness.statistics.success.count == 4


@pytest.mark.parametrize(("turns", "calls"), [(2, 0), (20, 1)], ids=["in the run", "in the copying"])
async def test_a_large_answer_on_its_way_is_waited_for_by_closing(turns: int, calls: int) -> None:
    """Closing returns when the thread is done and everybody is answered."""
    harness = Harness(WideModel(OFF_LOOP_BYTES // 8))
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(2)]
    await settle(turns)
    assert harness.threads.calls == calls
    await harness.batcher.aclose()
    assert all(pending.response is not None for pending in pendings)


async def test_parts_of_a_large_request_are_joined_off_the_loop() -> None:
    """Each part is small, what they make together is not."""
    features = OFF_LOOP_BYTES // 16
    harness = Harness(WideModel(features), BatchingOptions(max_batch_rows=1, split_large=True))
    answer = (await harness.batcher.submit(request(1.0, 2.0, 3.0, 4.0))).outputs[0].array
    np.testing.assert_array_equal(answer, np.repeat(rows(1.0, 2.0, 3.0, 4.0), features, axis=1))
    assert harness.threads.calls == 5, "each of the four parts, and their joining"


class WideModel(FakeLoadedModel):
    """Repeats its one feature many times."""

    def __init__(self, features: int) -> None:
        plain = identity_signature()
        super().__init__(
            ModelSignature(plain.inputs, (TensorSpec("y", Datatype.FP32, (-1, features)),)), instances=2
        )
        self._features = features

    async def infer(self, batch: Batch) -> BatchResult:
        self.batches.append(batch)
        await asyncio.sleep(0)
        return BatchResult({"y": np.repeat(batch.inputs["x"], self._features, axis=1)})


async def test_variable_inputs_are_padded_together_and_cut_apart() -> None:
    """Unequal lengths share a run by declaration; each gets back its own length."""
    signature = ModelSignature(
        (TensorSpec("x", Datatype.FP32, (-1, -1)),), (TensorSpec("y", Datatype.FP32, (-1, -1)),)
    )
    cut = CutRule(output="y", axis=1, input="x", input_axis=1)
    options = BatchingOptions(pad=(PadRule(input="x", axis=1, value=9),), cut=(cut,))
    harness = Harness(FakeLoadedModel(signature), options)
    arrays = [np.full((1, length), length, np.float32) for length in (3, 1, 2)]
    pendings = [harness.batcher.submit(infer_request(array)) for array in arrays]
    assert await outcomes(pendings) == [[3.0] * 3, [1.0], [2.0] * 2]
    assert harness.batch_rows() == [3]
    assert harness.statistics.pad_elements == 3
    assert harness.statistics.elements == 9


async def test_requests_of_no_rows_are_answered_with_no_rows() -> None:
    """They take their place in a batch without moving the others' rows, and run alone too."""
    harness = Harness()
    sent = [request(1.0), request(), request(2.0, 3.0), request(4.0)]
    assert await outcomes([harness.batcher.submit(r) for r in sent]) == [[1.0], [], [2.0, 3.0], [4.0]]
    assert await outcomes([harness.batcher.submit(request())]) == [[]]
    assert harness.batch_rows() == [4, 0]


async def test_only_the_outputs_asked_for_are_run_and_answered() -> None:
    """The run computes what any member wants; each member gets its own choice in its own order."""
    outputs = tuple(TensorSpec(name, Datatype.FP32, (-1, 1)) for name in "abc")
    harness = Harness(FakeLoadedModel(ModelSignature(identity_signature().inputs, outputs)))
    pendings = [
        harness.batcher.submit(request(1.0, outputs=tuple(RequestedOutput(name) for name in names)))
        for names in ("c", "ca")
    ]
    answers = [[tensor.name for tensor in (await pending).outputs] for pending in pendings]
    assert answers == [["c"], ["c", "a"]]
    assert harness.model.batches[0].output_names == ("a", "c")


async def test_group_parameters_reach_the_model_and_keep_requests_apart() -> None:
    """A batch has the parameters its members have in common, and no others."""
    harness = Harness(options=BatchingOptions(group_parameters=("p",)))
    pendings = [harness.batcher.submit(request(1.0, parameters={"p": p, "q": 9})) for p in (1, 2, 1)]
    await outcomes(pendings)
    assert sorted((batch.rows, *batch.parameters.items()) for batch in harness.model.batches) == [
        (1, ("p", 2)),
        (2, ("p", 1)),
    ]


async def test_the_response_says_who_answered_and_where_the_time_went() -> None:
    """Model as asked, the version's number, the request's id, queue time and the run's times."""
    harness = held()
    await occupy(harness)
    pending = harness.batcher.submit(request(1.0, 2.0, model="alias", request_id="r1"))
    harness.clock.advance(0.25)
    harness.model.release()
    response = await pending
    assert (response.model_name, response.model_version, response.request_id) == ("alias", "3", "r1")
    assert response.timing.queue_ns == pytest.approx(250_000_000, abs=1000)
    timing = response.timing
    assert (timing.compute_input_ns, timing.compute_infer_ns, timing.compute_output_ns) == (1, 2, 3)
    assert timing.batch_rows == 2


# -- large requests ----------------------------------------------------------------------------------------


async def test_a_request_larger_than_a_run_is_refused_unless_it_may_be_cut() -> None:
    """The message says what was got and the most."""
    harness = Harness(options=BatchingOptions(max_batch_rows=2))
    with pytest.raises(InvalidRequest, match="'fake' has 3 rows: expected at most 2"):
        harness.batcher.submit(request(1.0, 2.0, 3.0))


async def test_a_large_request_is_cut_and_joined_again() -> None:
    """It runs in parts, beside others, and comes back whole and counted once."""
    harness = Harness(options=BatchingOptions(max_batch_rows=4, split_large=True))
    tags = [float(tag) for tag in range(10)]
    pendings = [harness.batcher.submit(request(*tags)), harness.batcher.submit(request(99.0))]
    assert await outcomes(pendings) == [tags, [99.0]]
    assert harness.batch_rows() == [4, 4, 3]
    assert (harness.statistics.success.count, harness.statistics.inference_count) == (2, 11)


async def test_one_failed_part_fails_a_cut_request_once_and_takes_back_the_rest() -> None:
    """Parts that still wait are not run for nothing."""
    harness = Harness(FakeLoadedModel(poison=POISON), BatchingOptions(max_batch_rows=1, split_large=True))
    pending = harness.batcher.submit(request(POISON, 1.0, 2.0))
    assert await outcomes([pending]) == [BackendError]
    await settle()
    assert harness.batch_rows() == [1]
    assert harness.batcher.queued_requests == 0
    assert (harness.statistics.success.count, harness.statistics.fail.count) == (0, 1)


async def test_the_part_of_a_failed_request_that_waits_for_company_does_not_stay() -> None:
    """Its place in the queue is free as soon as another part has failed."""
    options = BatchingOptions(max_batch_rows=2, split_large=True, max_delay_s=10.0)
    harness = Harness(FakeLoadedModel(poison=POISON), options)
    assert await outcomes([harness.batcher.submit(request(POISON, 1.0, 2.0))]) == [BackendError]
    await settle()
    assert harness.batcher.queued_requests == 0


class LateFirst(FakeLoadedModel):
    """Its first run ends after its second."""

    async def infer(self, batch: Batch) -> BatchResult:
        if not self.batches:
            self.batches.append(batch)
            await settle(50)
            return BatchResult({"y": batch.inputs["x"].copy()})
        return await super().infer(batch)


async def test_parts_that_end_out_of_order_are_joined_in_order() -> None:
    """Rows come back as they were sent, whichever instance was quicker."""
    harness = Harness(LateFirst(instances=2), BatchingOptions(max_batch_rows=2, split_large=True))
    assert await outcomes([harness.batcher.submit(request(1.0, 2.0, 3.0, 4.0))]) == [[1.0, 2.0, 3.0, 4.0]]


async def test_a_cut_request_is_charged_its_bytes_once_until_its_last_part_has_left() -> None:
    """The buffers it keeps alive are one, however many parts refer to them."""
    harness = held(BatchingOptions(max_batch_rows=2, split_large=True, max_queue_bytes=40))
    await occupy(harness)
    harness.batcher.submit(request(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0))  # 32 bytes
    harness.batcher.submit(request(9.0, 10.0))  # 8 more
    with pytest.raises(Overloaded, match="40 bytes wait"):
        harness.batcher.submit(request(11.0))
    harness.model.release(1)
    await settle()
    with pytest.raises(Overloaded, match="40 bytes wait"):
        harness.batcher.submit(request(11.0))
    harness.model.release()
    await settle(200)


# -- leaving early -----------------------------------------------------------------------------------------


async def test_a_request_expires_at_its_deadline_however_busy_the_model_is() -> None:
    """It is answered when the time has come, not when an instance is free, and is never run."""
    harness = held()
    await occupy(harness)
    pending = harness.batcher.submit(request(1.0, deadline_s=harness.clock.now_s() + 0.5))
    later = harness.batcher.submit(request(2.0, deadline_s=harness.clock.now_s() + 0.7))
    harness.clock.advance(0.499)
    assert not pending.done
    harness.clock.advance(0.001)
    assert isinstance(pending.error, DeadlineExceeded)
    assert not later.done
    harness.clock.advance(0.2)
    assert isinstance(later.error, DeadlineExceeded)
    harness.model.release()
    await settle()
    assert harness.batch_rows() == [1]
    assert harness.statistics.rejected == {"DeadlineExceeded": 2}


async def test_an_earlier_deadline_that_arrives_later_is_kept() -> None:
    """The timer follows the earliest deadline, in whatever order they come."""
    harness = held()
    await occupy(harness)
    now_s = harness.clock.now_s()
    pendings = [
        harness.batcher.submit(request(1.0, deadline_s=now_s + after_s)) for after_s in (3.0, 1.0, 2.0)
    ]
    harness.clock.advance(1.0)
    assert [pending.done for pending in pendings] == [False, True, False]
    harness.clock.advance(1.0)
    assert [pending.done for pending in pendings] == [False, True, True]
    harness.model.release()


@pytest.mark.parametrize(
    ("options", "asked_s", "allowed_s"),
    [
        ({}, None, None),
        ({}, 5.0, 5.0),
        ({"default_timeout_s": 1.0}, None, 1.0),
        ({"default_timeout_s": 1.0}, 5.0, 5.0),
        ({"default_timeout_s": 1.0, "allow_timeout_override": False}, 5.0, 1.0),
        ({"default_timeout_s": 9.0, "allow_timeout_override": False}, 5.0, 5.0),
        ({}, math.inf, 86_400.0),
    ],
)
async def test_how_long_a_request_may_wait(
    options: dict[str, Any], asked_s: float | None, allowed_s: float | None
) -> None:
    """Its own deadline, else the default; the smaller where overriding is not allowed; never for ever."""
    harness = held(BatchingOptions(**options))
    await occupy(harness)
    deadline_s = None if asked_s is None else harness.clock.now_s() + asked_s
    pending = harness.batcher.submit(request(1.0, deadline_s=deadline_s))
    harness.clock.advance(100_000.0 if allowed_s is None else allowed_s - 0.001)
    assert not pending.done
    harness.clock.advance(0.002)
    assert pending.done is (allowed_s is not None)
    harness.model.release()
    await settle()


async def test_a_request_that_arrives_after_its_deadline_is_refused() -> None:
    """It never enters the queue."""
    harness = Harness()
    with pytest.raises(DeadlineExceeded, match="'fake' arrived after its deadline"):
        harness.batcher.submit(request(1.0, deadline_s=harness.clock.now_s()))
    assert harness.batcher.queued_requests == 0


async def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    """Its rows make room for others immediately, and it is never run."""
    harness = held(BatchingOptions(max_queue_rows=2))
    await occupy(harness)
    pendings = [harness.batcher.submit(request(float(tag))) for tag in (1, 2)]
    with pytest.raises(Overloaded):
        harness.batcher.submit(request(3.0))
    assert pendings[0].cancel()
    assert harness.batcher.queued_rows == 1
    pendings.append(harness.batcher.submit(request(3.0)))
    harness.model.release()
    assert await outcomes(pendings) == [Cancelled, [2.0], [3.0]]
    assert harness.statistics.rejected == {"Overloaded": 1, "Cancelled": 1}


async def test_cancelling_in_mid_run_harms_nobody() -> None:
    """The run goes on; the others get their rows; the batch says who had gone."""
    harness = held()
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(3)]
    await settle()
    pendings[1].cancel()
    harness.model.release()
    assert await outcomes(pendings) == [[0.0], Cancelled, [2.0]]
    (batch,) = harness.observer.batches
    assert [member.cancelled for member in batch.members] == [False, True, False]
    assert (harness.statistics.success.count, harness.statistics.fail.count) == (2, 1)
    assert harness.statistics.rejected == {}


async def test_a_batch_whose_members_have_all_gone_is_not_run() -> None:
    """Cancelling between forming and running saves the run."""
    harness = Harness()
    pending = harness.batcher.submit(request(1.0))
    asyncio.get_running_loop().call_soon(pending.cancel)
    await settle()
    assert harness.batch_rows() == []
    assert harness.statistics.execution_count == 0
    assert await outcomes([harness.batcher.submit(request(2.0))]) == [[2.0]]


async def test_what_is_refused_is_counted_and_told() -> None:
    """Observers hear of a refusal with the request and the reason."""
    harness = held(BatchingOptions(max_queue_rows=1))
    await occupy(harness)
    harness.batcher.submit(request(1.0))
    refused = request(2.0)
    with pytest.raises(Overloaded) as refusal:
        harness.batcher.submit(refused)
    assert harness.observer.rejected == [(VERSION, refused, refusal.value)]
    assert harness.statistics.rejected == {"Overloaded": 1}
    assert harness.statistics.fail.count == 1
    harness.model.release()


# -- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
async def test_a_poisonous_request_fails_alone_within_the_bound_of_runs(size: int) -> None:
    """Its neighbours are answered; nobody runs more than ceil(log2 n) + 1 times."""
    harness = Harness(FakeLoadedModel(poison=POISON))
    tags = [float(tag) for tag in range(size)]
    tags[size // 2] = POISON
    pendings = [harness.batcher.submit(request(tag)) for tag in tags]
    assert await outcomes(pendings) == [BackendError if tag == POISON else [tag] for tag in tags]
    runs = Counter(tag for batch in harness.model.batches for tag in batch.inputs["x"].ravel().tolist())
    assert max(runs.values()) <= math.ceil(math.log2(size)) + 1
    assert (harness.statistics.success.count, harness.statistics.fail.count) == (size - 1, 1)
    assert harness.statistics.close_reasons == {"idle": 1}, "parts are no batches of their own"
    assert [batch.bisection for batch in harness.observer.batches] == [False] + [True] * (
        len(harness.model.batches) - 1
    )
    answered = [member.request for batch in harness.observer.batches for member in batch.members]
    assert sorted(map(id, answered)) == sorted(id(pending.request) for pending in pendings)


async def test_a_failure_of_the_backend_as_a_whole_is_not_bisected() -> None:
    """Everybody is told at once, after one run."""
    harness = Harness()
    harness.model.broken = True
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(4)]
    assert await outcomes(pendings) == [BackendUnavailable] * 4
    assert harness.batch_rows() == [4]


async def test_bisection_can_be_switched_off() -> None:
    """Then a failed batch fails all its requests."""
    harness = Harness(FakeLoadedModel(poison=POISON), BatchingOptions(bisect_failures=False))
    pendings = [harness.batcher.submit(request(tag)) for tag in (1.0, POISON)]
    assert await outcomes(pendings) == [BackendError] * 2
    assert harness.batch_rows() == [2]


async def test_without_budget_a_failed_batch_fails_all_its_requests() -> None:
    """A run that takes more than the budget leaves is not repeated in parts."""
    harness = held(poison=POISON)
    pendings = [harness.batcher.submit(request(tag)) for tag in (1.0, POISON)]
    await settle()
    harness.clock.advance(5.0)
    harness.model.release()
    assert await outcomes(pendings) == [BackendError] * 2
    assert harness.batch_rows() == [2]


async def test_while_one_batch_is_bisected_another_that_fails_is_not() -> None:
    """One bisection at a time: the second batch's requests fail with its error."""
    harness = held(BatchingOptions(max_batch_rows=2), poison=POISON, instances=2)
    pendings = [harness.batcher.submit(request(tag)) for tag in (1.0, POISON, 2.0, POISON)]
    await settle()
    harness.model.release(2)
    await settle()
    assert [pending.done for pending in pendings] == [False, False, True, True]
    harness.model.release()
    assert await outcomes(pendings) == [[1.0], BackendError, BackendError, BackendError]


async def test_members_cancelled_during_a_bisection_are_left_out() -> None:
    """A request that has gone is not run again, and the others are still answered."""
    harness = held(poison=POISON)
    pendings = [harness.batcher.submit(request(tag)) for tag in (1.0, 2.0, 3.0, POISON)]
    await settle()
    pendings[0].cancel()
    harness.model.release()
    assert await outcomes(pendings) == [Cancelled, [2.0], [3.0], BackendError]
    assert 1.0 not in [tag for batch in harness.model.batches[1:] for tag in batch.inputs["x"].ravel()]


async def test_waiting_parts_of_a_failed_batch_keep_their_deadlines() -> None:
    """Whoever expires while the other half runs is told at once, never run again, and told of once."""
    harness = held(poison=POISON)
    until_s = harness.clock.now_s() + 1.0
    tags = (POISON, 2.0, 3.0, 4.0)
    pendings = [
        harness.batcher.submit(request(tag, deadline_s=None if tag == 3.0 else until_s)) for tag in tags
    ]
    await settle()
    hurried = harness.batcher.submit(request(5.0, deadline_s=harness.clock.now_s() + 0.4))
    harness.clock.advance(0.4)
    assert isinstance(hurried.error, DeadlineExceeded)
    harness.model.release(1)
    await settle()
    assert harness.batch_rows() == [4, 2]
    harness.clock.advance(0.6)
    assert [type(pending.error) for pending in pendings] == [type(None)] * 3 + [DeadlineExceeded]
    harness.model.release()
    await outcomes(pendings)
    ran = [batch.inputs["x"].ravel().tolist() for batch in harness.model.batches[2:]]
    assert 4.0 not in [tag for batch in ran for tag in batch]
    told = [member.request for batch in harness.observer.batches for member in batch.members]
    told += [refused for _, refused, _ in harness.observer.rejected]
    assert sorted(map(id, told)) == sorted(id(pending.request) for pending in [*pendings, hurried])


class FailingObserver:
    """Raises whatever it is told."""

    def on_batch(self, batch: CompletedBatch) -> None:
        raise ZeroDivisionError

    def on_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        raise ZeroDivisionError


async def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Requests are answered and refused as ever, later observers are told, and the log says so."""
    harness = Harness(options=BatchingOptions(max_queue_rows=1), observers=(FailingObserver(),))
    pending = harness.batcher.submit(request(1.0))
    with pytest.raises(Overloaded):
        harness.batcher.submit(request(2.0))
    assert await outcomes([pending]) == [[1.0]]
    await settle()
    assert (len(harness.observer.batches), len(harness.observer.rejected)) == (1, 1)
    assert [record.name for record in caplog.records] == ["gateway.batching.answers"] * 2


class WrongModel(FakeLoadedModel):
    """Answers with the wrong number of rows, or raises what no backend should."""

    wrong_rows = True

    async def infer(self, batch: Batch) -> BatchResult:
        self.batches.append(batch)
        if not self.wrong_rows:
            raise ZeroDivisionError("secret")
        return BatchResult({"y": rows(1.0)})


async def test_a_wrong_number_of_rows_fails_the_batch_without_bisection() -> None:
    """No part of the batch would fare better."""
    harness = Harness(WrongModel())
    pendings = [harness.batcher.submit(request(float(tag))) for tag in range(2)]
    assert await outcomes(pendings) == [BackendError] * 2
    assert "output 'y' of model 'fake' has shape [1, 1]: expected 2 rows" in str(pendings[0].error)
    assert harness.batch_rows() == [2]


async def test_an_unforeseen_exception_of_a_backend_becomes_an_error_without_its_internals() -> None:
    """Requests are answered with the kind of failure and nothing more."""
    model = WrongModel()
    model.wrong_rows = False
    harness = Harness(model)
    pending = harness.batcher.submit(request(1.0))
    assert await outcomes([pending]) == [BackendError]
    assert str(pending.error) == "model 'fake' failed: ZeroDivisionError"


# -- books -------------------------------------------------------------------------------------------------


async def test_statistics_are_those_of_the_protocol() -> None:
    """Rows, runs, times per request, batch sizes, close reasons and padding add up."""
    harness = Harness(options=BatchingOptions(allowed_rows=(1, 4)))
    await outcomes([harness.batcher.submit(request(1.0, 2.0)), harness.batcher.submit(request(3.0))])
    await outcomes([harness.batcher.submit(request(4.0))])
    statistics = harness.statistics
    assert (statistics.inference_count, statistics.execution_count) == (4, 2)
    assert (statistics.success.count, statistics.queue.count, statistics.fail.count) == (3, 3, 0)
    assert [statistics.compute_input.ns, statistics.compute_infer.ns, statistics.compute_output.ns] == [
        3,
        6,
        9,
    ]
    assert {size: s.compute_infer.count for size, s in statistics.batch_sizes.items()} == {3: 1, 1: 1}
    assert statistics.close_reasons == {"idle": 2}
    assert (statistics.elements, statistics.pad_elements) == (5, 1)
    assert statistics.last_inference_ms > 1_600_000_000_000


async def test_observers_are_told_of_a_batch_after_its_members_were_answered() -> None:
    """They get the batch as it was run: inputs, outputs, rows, members in row order, reason, times."""
    harness = Harness(options=BatchingOptions(allowed_rows=(4,)))
    pendings = [harness.batcher.submit(request(1.0, 2.0)), harness.batcher.submit(request(3.0))]
    told: list[int] = []
    pendings[1].add_done_callback(lambda _: told.append(len(harness.observer.batches)))
    await outcomes(pendings)
    await settle()
    (batch,) = harness.observer.batches
    assert told == [0]
    assert (batch.version, batch.device, batch.rows, batch.padded_rows) == (VERSION, CPU, 3, 4)
    assert [(m.request, m.start_row, m.rows, m.error) for m in batch.members] == [
        (pendings[0].request, 0, 2, None),
        (pendings[1].request, 2, 1, None),
    ]
    assert batch.inputs is not None
    assert batch.outputs is not None
    assert batch.inputs["x"].ravel().tolist() == batch.outputs["y"].ravel().tolist() == [1.0, 2.0, 3.0, 0.0]
    assert batch.close_reason is CloseReason.IDLE
    assert (batch.compute_input_ns, batch.compute_infer_ns, batch.compute_output_ns) == (1, 2, 3)


# -- sharing a device --------------------------------------------------------------------------------------


class TimedModel(FakeLoadedModel):
    """Takes virtual time for each run."""

    def __init__(self, harness_clock: list[Any], cost_s: float) -> None:
        super().__init__()
        self._clock = harness_clock
        self._cost_s = cost_s

    async def infer(self, batch: Batch) -> BatchResult:
        self._clock[0].advance(self._cost_s)
        return await super().infer(batch)


async def test_models_that_share_a_device_get_equal_time() -> None:
    """With one slot, the model whose runs cost four times as much runs a quarter as often."""
    scheduler, clocks = DeviceScheduler(CPU, 1), list[Any]()
    options = BatchingOptions(max_batch_rows=1)
    slow = Harness(TimedModel(clocks, 0.4), options, scheduler=scheduler)
    clocks.append(slow.clock)
    quick = Harness(TimedModel(clocks, 0.1), options, scheduler=scheduler, clock=slow.clock)
    first = [slow.batcher.submit(request(float(n))) for n in range(200)]
    for n in range(200):
        quick.batcher.submit(request(float(n)))
    await outcomes(first[:30])
    assert len(quick.model.batches) == pytest.approx(4 * len(slow.model.batches), rel=0.15)
    await slow.batcher.aclose()
    await quick.batcher.aclose()


# -- streams -----------------------------------------------------------------------------------------------


def decoupled(**model: Any) -> FakeLoadedModel:
    plain = identity_signature()
    return FakeLoadedModel(ModelSignature(plain.inputs, plain.outputs, decoupled=True), **model)


async def test_a_decoupled_model_streams_its_responses_and_an_empty_final_one() -> None:
    """Each comes as it is made; the instance is free again afterwards."""
    harness = Harness(decoupled())
    for _ in range(2):
        responses = [response async for response in harness.batcher.stream(request(1.0, 2.0))]
        assert [tags_of(response) for response in responses[:-1]] == [[1.0], [2.0]]
        assert [response.final for response in responses] == [False, False, True]
        assert responses[-1].outputs == ()
    assert harness.batcher.running_rows == 0
    assert (harness.statistics.success.count, harness.statistics.execution_count) == (2, 2)


async def test_a_decoupled_model_refuses_plain_calls() -> None:
    """The message says what to call instead."""
    with pytest.raises(Unsupported, match="expected a streaming call"):
        Harness(decoupled()).batcher.submit(request(1.0))


async def read(responses: AsyncIterator[Any]) -> list[Any]:
    return [response async for response in responses]


async def test_streams_wait_their_turn_and_expire_in_it() -> None:
    """An instance serves one stream at a time; who waits too long is told so."""
    harness = Harness(decoupled(held=True))
    running = asyncio.create_task(read(harness.batcher.stream(request(1.0))))
    await settle()
    late = request(2.0, deadline_s=harness.clock.now_s() + 1.0)
    waiting = asyncio.create_task(read(harness.batcher.stream(late)))
    await settle()
    assert (harness.batcher.running_rows, harness.batcher.queued_requests) == (1, 1)
    harness.clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        await waiting
    harness.model.release()
    assert len(await running) == 2


async def test_a_stream_cancelled_in_the_queue_leaves_it_at_once() -> None:
    """Even when its turn comes in the very moment of the cancellation."""
    harness = Harness(decoupled())
    async with aclosing(harness.batcher.stream(request(1.0, 2.0))) as running:  # type: ignore[type-var]
        await anext(running)
        waiting = [asyncio.create_task(read(harness.batcher.stream(request(tag)))) for tag in (3.0, 4.0, 5.0)]
        await settle()
        waiting[0].cancel()
        await settle()
        assert harness.batcher.queued_requests == 2
        waiting[1].cancel()
    assert len(await waiting[2]) == 2
    assert harness.batcher.running_rows == 0


async def test_closing_a_stream_frees_its_instance() -> None:
    """A reader that has had enough leaves the model to the next, and counts as cancelled."""
    harness = Harness(decoupled())
    async with aclosing(harness.batcher.stream(request(1.0, 2.0))) as responses:  # type: ignore[type-var]
        async for _ in responses:
            break
    assert harness.batcher.running_rows == 0
    (batch,) = harness.observer.batches
    assert [member.cancelled for member in batch.members] == [True]
    assert len(await read(harness.batcher.stream(request(3.0)))) == 2


async def test_a_slow_reader_leaves_the_device_to_others() -> None:
    """Between two responses its run has no room on the device; it waits for some before the next."""
    scheduler = DeviceScheduler(CPU, 1)
    streaming = Harness(decoupled(), scheduler=scheduler)
    other = Harness(FakeLoadedModel(held=True), scheduler=scheduler, clock=streaming.clock)
    async with aclosing(streaming.batcher.stream(request(1.0, 2.0))) as responses:  # type: ignore[type-var]
        assert tags_of(await anext(responses)) == [1.0]
        streaming.clock.advance(60.0)
        pending = other.batcher.submit(request(3.0))
        await settle()
        assert other.model.running == 1
        following = asyncio.create_task(read(responses))
        await settle()
        assert not following.done(), "the device is taken"
        other.model.release()
        assert [tags_of(response) for response in (await following)[:-1]] == [[2.0]]
    assert await outcomes([pending]) == [[3.0]]
    assert streaming.statistics.compute_infer.ns < 1e9, "its reader's time is not the model's"
    assert scheduler.running == 0


@pytest.mark.parametrize("turns", range(6))
async def test_a_stream_given_up_while_it_waits_for_the_device_leaves_nothing_taken(turns: int) -> None:
    """Be it still waiting or just told to go on."""
    scheduler = DeviceScheduler(CPU, 1)
    streaming = Harness(decoupled(), scheduler=scheduler)
    other = Harness(FakeLoadedModel(held=True), scheduler=scheduler, clock=streaming.clock)
    responses = streaming.batcher.stream(request(1.0, 2.0))
    await anext(responses)
    streaming.clock.advance(60.0)
    pending = other.batcher.submit(request(3.0))
    await settle()
    following = asyncio.create_task(read(responses))
    await settle()
    other.model.release()
    await settle(turns)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await settle()
    assert await outcomes([pending]) == [[3.0]]
    assert (scheduler.running, streaming.batcher.running_rows) == (0, 0)
    assert streaming.observer.batches[0].compute_infer_ns < 1e9, "its reader's time is not the model's"
    assert len(await read(streaming.batcher.stream(request(2.0)))) == 2


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_a_stream_anywhere_before_its_first_response_loses_no_instance(turns: int) -> None:
    """Whether it waits, has just been granted its turn, or runs: the next stream is served."""
    harness = Harness(decoupled())
    task = asyncio.create_task(read(harness.batcher.stream(request(1.0))))
    await settle(turns)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await settle()
    assert (harness.batcher.running_rows, harness.batcher.queued_requests) == (0, 0)
    assert len(await read(harness.batcher.stream(request(2.0)))) == 2


async def test_a_stream_that_fails_says_so_and_frees_its_instance() -> None:
    """The error comes from the iteration."""
    harness = Harness(decoupled(poison=POISON))
    with pytest.raises(BackendError, match="poison"):
        await read(harness.batcher.stream(request(POISON)))
    assert harness.batcher.running_rows == 0
    assert harness.statistics.fail.count == 1


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_the_waiter_anywhere_leaves_the_batcher_usable(turns: int) -> None:
    """A caller cancelled at any step of the way disturbs neither queue nor instances."""
    harness = Harness()
    task = asyncio.ensure_future(_wait(harness.batcher.submit(request(1.0))))
    other = harness.batcher.submit(request(2.0))
    await settle(turns)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await outcomes([other]) == [[2.0]]
    await settle()
    assert (harness.batcher.running_rows, harness.batcher.queued_requests) == (0, 0)


async def _wait(pending: Pending) -> None:
    await pending


# -- the end -----------------------------------------------------------------------------------------------


async def test_closing_fails_what_waits_and_waits_for_what_runs() -> None:
    """Afterwards nothing is admitted; the model itself is left to its owner."""
    harness = held()
    running = await occupy(harness)
    waiting = harness.batcher.submit(request(1.0, deadline_s=harness.clock.now_s() + 5.0))
    closing = asyncio.create_task(harness.batcher.aclose())
    await settle()
    assert isinstance(waiting.error, Draining)
    assert not closing.done()
    harness.model.release()
    await closing
    assert running.done
    assert running.error is None
    assert not harness.model.closed
    with pytest.raises(Draining):
        harness.batcher.submit(request(2.0))
    assert harness.clock.next_timer_s() is None


async def test_closing_in_mid_bisection_answers_everybody() -> None:
    """Parts not run yet fail with Draining; nothing stays open."""
    harness = held(BatchingOptions(max_batch_rows=8), poison=POISON)
    pendings = [harness.batcher.submit(request(tag)) for tag in (1.0, 2.0, 3.0, POISON)]
    await settle()
    harness.model.release(1)
    await settle()
    closing = asyncio.create_task(harness.batcher.aclose())
    await settle()
    harness.model.release()
    await closing
    assert await outcomes(pendings) == [[1.0], [2.0], Draining, Draining]
