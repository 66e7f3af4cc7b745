"""A model on a fleet of fake Tritons."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from gateway._proto import model_config_pb2 as config_pb
from gateway._proto import open_inference_pb2 as pb
from gateway.backends.triton.failures import VersionNotThere
from gateway.backends.triton.versions import Loaded
from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    InvalidRequest,
    ModelLoadError,
    Overloaded,
)
from gateway.core.interfaces import SettledModel
from gateway.core.options import BatchingOptions, LoadOptions, ModelSpec
from gateway.core.remote import Outcome
from gateway.core.types import Batch, TraceContext
from tests.backends.triton.fake import Failure, FakeTriton, model
from tests.backends.triton.fleets import NOTHING, Scene, fleet_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INTERNAL = Failure(grpc.StatusCode.INTERNAL, "division by zero in /models/m/1/model.py")
DYNAMIC = config_pb.ModelDynamicBatching()


def batch(rows: int = 1, start: float = 0.0, **fields: Any) -> Batch:
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) + np.float32(start)
    return Batch({"x": x}, rows, ("y",), **fields)


@pytest.fixture
async def fakes() -> AsyncIterator[list[FakeTriton]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeTriton({"m": model(1, 2)})) for _ in range(3)]


@pytest.fixture
async def scene(fakes: list[FakeTriton]) -> AsyncIterator[Scene]:
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        yield scene


def sent(fakes: list[FakeTriton]) -> list[int]:
    return [len(fake.seen) for fake in fakes]


async def test_it_answers_like_a_model_of_this_process(scene: Scene, fakes: list[FakeTriton]) -> None:
    """With its values, from the version it was loaded as, which runs elsewhere."""
    found = await scene.load(version=1)
    given = batch(3, request_id="7")
    result = await found.infer(given)
    np.testing.assert_array_equal(result.outputs["y"], given.inputs["x"])
    assert result.compute_infer_ns > 0
    (seen,) = [seen for fake in fakes for seen in fake.seen]
    assert (seen.request.model_name, seen.request.model_version, seen.request.id) == ("m", "1", "7")
    assert (found.remote, found.memory_bytes, found.platform) == (True, 0, "fake_platform")
    assert isinstance(found, SettledModel)


async def test_outputs_outlive_later_runs(scene: Scene) -> None:
    """And cannot be written to."""
    found = await scene.load()
    first = (await found.infer(batch(2))).outputs["y"]
    for start in range(1, 5):
        await found.infer(batch(2, start))
    np.testing.assert_array_equal(first, batch(2).inputs["x"])
    assert not first.flags.writeable


async def test_the_newest_version_is_loaded_where_none_is_named(scene: Scene) -> None:
    """Unless the load has a number."""
    assert (await scene.load()).served.loaded == Loaded("m", 2)
    spec = ModelSpec(name="digits", backend_options={"fleet": "f", "model": "m"})
    found = await scene.backend.load(NOTHING, LoadOptions(spec=spec, number=1))
    assert found.served.loaded == Loaded("m", 1)


async def test_a_failing_endpoint_is_not_the_clients_trouble(scene: Scene, fakes: list[FakeTriton]) -> None:
    """The request is sent to another."""
    found = await scene.load()
    fakes[0].failures["ModelInfer"] = INTERNAL
    fakes[1].failures["ModelInfer"] = Failure(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    for start in range(6):
        await found.infer(batch(1, start))
    assert {outcome for _, outcome in scene.observed.attempts} <= {
        Outcome.OK,
        Outcome.FAILED,
        Outcome.REFUSED,
    }
    assert len(fakes[2].seen) == 6


async def test_what_every_endpoint_says_of_the_model_is_the_answer(
    scene: Scene, fakes: list[FakeTriton]
) -> None:
    """Then the request may be to blame: it is no fault of the backend as a whole."""
    found = await scene.load()
    for fake in fakes:
        fake.failures["ModelInfer"] = INTERNAL
    with pytest.raises(BackendError) as caught:
        await found.infer(batch())
    assert type(caught.value) is BackendError
    assert str(caught.value) == "model 'digits': division by zero in <path>"
    assert sum(sent(fakes)) == 3


async def test_other_failures_are_the_backends_fault(scene: Scene, fakes: list[FakeTriton]) -> None:
    """Nothing of theirs is shown."""
    found = await scene.load()
    for fake in fakes:
        fake.failures["ModelInfer"] = Failure(grpc.StatusCode.UNKNOWN, "at 10.0.0.1:80")
    with pytest.raises(BackendUnavailable, match=r"model 'digits'.*3 of 3 endpoints") as caught:
        await found.infer(batch())
    assert "10.0.0.1" not in str(caught.value)


async def test_a_model_that_fails_on_some_endpoints_may_be_theirs(fakes: list[FakeTriton]) -> None:
    """One that failed otherwise leaves open what it would have said."""
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        found = await scene.load()
        for fake in fakes:
            fake.failures["ModelInfer"] = INTERNAL
        fakes[1].failures["ModelInfer"] = Failure(grpc.StatusCode.UNKNOWN, "odd")
        with pytest.raises(BackendUnavailable):
            await found.infer(batch())


async def test_all_full(scene: Scene, fakes: list[FakeTriton]) -> None:
    """Overload there is overload here."""
    found = await scene.load()
    for fake in fakes:
        fake.failures["ModelInfer"] = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    with pytest.raises(Overloaded):
        await found.infer(batch())


async def test_a_bad_request_is_tried_once(scene: Scene, fakes: list[FakeTriton]) -> None:
    """No endpoint can do better."""
    found = await scene.load()
    for fake in fakes:
        fake.failures["ModelInfer"] = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no")
    with pytest.raises(InvalidRequest, match=r"^model 'digits': no$"):
        await found.infer(batch())
    assert sum(sent(fakes)) == 1


async def test_requests_stay_on_their_version(scene: Scene, fakes: list[FakeTriton]) -> None:
    """An endpoint without it gets none, though it has another."""
    found = await scene.load(version=1)
    for fake in fakes[:2]:
        fake.models["m"].versions.discard(1)
    for start in range(8):
        await found.infer(batch(1, start))
    assert len(fakes[2].seen) == 8
    asked = [seen for fake in fakes for seen in fake.seen]
    assert {seen.request.model_version for seen in asked} == {"1"}
    assert len(asked) <= 10, "each endpoint is found out once"


async def test_a_version_that_is_nowhere_any_more(scene: Scene, fakes: list[FakeTriton]) -> None:
    """It fails here, and is never another version's to answer."""
    found = await scene.load(version=1)
    for fake in fakes:
        fake.models["m"].versions.discard(1)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await found.infer(batch())
    assert sum(sent(fakes)) == 3


async def test_an_answer_from_another_version_is_none(scene: Scene, fakes: list[FakeTriton]) -> None:
    """Whatever the endpoint thinks it did."""
    found = await scene.load(version=1)

    def other(request: pb.ModelInferRequest) -> None:
        request.model_version = "2"

    for fake in fakes:
        fake.models["m"].behave = other
    with pytest.raises(BackendUnavailable, match="asked version 1, version 2 answered"):
        await found.infer(batch())


async def test_deadlines_go_on_less_a_margin(fakes: list[FakeTriton]) -> None:
    """And what is late is told so."""
    async with fleet_of(fakes[0].address, deadline_margin_s=5.0) as scene:
        found = await scene.load()
        await found.infer(batch(deadline_s=time.monotonic() + 60.0))
        assert 30.0 < (fakes[0].seen[0].remaining_s or 0) < 58.0
        fakes[0].models["m"].behave = lambda _: asyncio.Event().wait()
        with pytest.raises(DeadlineExceeded):
            await found.infer(batch(deadline_s=time.monotonic() + 5.1))


async def test_trace_contexts_go_on(scene: Scene, fakes: list[FakeTriton]) -> None:
    """As the headers of W3C."""
    found = await scene.load()
    await found.infer(batch(trace=TraceContext(0xAB, 0xCD, sampled=True, state="k=v")))
    (seen,) = [seen for fake in fakes for seen in fake.seen]
    assert seen.metadata["traceparent"] == "00-000000000000000000000000000000ab-00000000000000cd-01"
    assert seen.metadata["tracestate"] == "k=v"


async def test_cancelling_calls_it_off_there(scene: Scene, fakes: list[FakeTriton]) -> None:
    """Nothing goes on for nobody."""
    found, begun = await scene.load(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    for fake in fakes:
        fake.models["m"].behave = lambda _: wait()
    run = asyncio.ensure_future(found.infer(batch()))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    (seen,) = [seen for fake in fakes for seen in fake.seen]
    await seen.cancelled.wait()
    assert scene.observed.attempts[-1][1] is Outcome.CANCELLED


async def test_sequences_stay_on_an_endpoint_and_are_not_repeated(fakes: list[FakeTriton]) -> None:
    """Their state is there and nowhere else."""
    for fake in fakes:
        fake.models["m"].config.sequence_batching.SetInParent()
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        found = await scene.load()
        for number in range(8):
            before = sent(fakes)
            for _ in range(4):
                await found.infer(batch(parameters={"sequence_id": number}))
            assert sorted(after - old for after, old in zip(sent(fakes), before, strict=True)) == [0, 0, 4]
        for fake in fakes:
            fake.failures["ModelInfer"] = INTERNAL
        before_all = sum(sent(fakes))
        with pytest.raises(BackendError):
            await found.infer(batch(parameters={"sequence_id": 1}))
        assert sum(sent(fakes)) == before_all + 1
        assert not found.settled(ModelSpec(name="m")).batching.enabled


def response(value: int | None, *, final: bool = False) -> pb.ModelStreamInferResponse:
    message = pb.ModelStreamInferResponse()
    answer = message.infer_response
    answer.model_name, answer.model_version = "m", "2"
    answer.parameters["triton_final_response"].bool_param = final
    if value is not None:
        answer.outputs.add(name="y", datatype="FP32", shape=[1, 2])
        answer.raw_output_contents.append(np.full((1, 2), value, np.float32).tobytes())
    return message


async def decoupled(fakes: list[FakeTriton], stream: Any) -> None:
    for fake in fakes:
        fake.models["m"].config.model_transaction_policy.decoupled = True
        fake.models["m"].stream = stream


async def values(results: Any) -> list[float]:
    return [float(result.outputs["y"][0, 0]) async for result in results]


async def test_responses_of_a_decoupled_model_come_in_order(fakes: list[FakeTriton]) -> None:
    """The empty one that ends them is not given."""

    async def stream(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        for number in range(5):
            yield response(number)
        yield response(None, final=True)

    await decoupled(fakes, stream)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        found = await scene.load()
        assert await values(found.stream(batch())) == [0, 1, 2, 3, 4]


async def test_the_last_response_may_have_outputs_or_be_the_only_one(fakes: list[FakeTriton]) -> None:
    """Both are Triton's to choose."""

    async def stream(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        if request.id == "two":
            yield response(7)
            yield response(8, final=True)
        else:
            yield response(None, final=True)

    await decoupled(fakes, stream)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        found = await scene.load()
        assert await values(found.stream(batch(request_id="two"))) == [7, 8]
        assert await values(found.stream(batch())) == []


async def test_a_stream_is_sent_elsewhere_only_before_its_first_response(fakes: list[FakeTriton]) -> None:
    """Afterwards the reader is told."""
    broken = Failure(grpc.StatusCode.OK, "division by zero")

    async def late(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield response(1)
        raise broken

    async def early(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        for number in range(len(request.id)):
            yield response(number)
        raise broken

    async def well(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield response(2, final=True)

    await decoupled(fakes, early)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        found = await scene.load()
        fakes[0].models["m"].stream = well
        assert await values(found.stream(batch())) == [2]
        await decoupled(fakes, late)
        before = sum(sent(fakes))
        results = found.stream(batch())
        assert float((await anext(results)).outputs["y"][0, 0]) == 1
        with pytest.raises(BackendError, match=r"^model 'digits': division by zero$"):
            await anext(results)
        assert sum(sent(fakes)) == before + 1


async def test_a_stream_that_ends_too_early_failed(fakes: list[FakeTriton]) -> None:
    """Without its last response nobody knows what is missing."""

    async def stream(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield response(1)

    await decoupled(fakes, stream)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        results = (await scene.load()).stream(batch())
        await anext(results)
        with pytest.raises(BackendUnavailable, match="ended before its last response"):
            await anext(results)


async def test_closing_a_stream_calls_it_off(fakes: list[FakeTriton]) -> None:
    """A reader that goes away stops the model."""

    async def stream(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield response(1)
        await asyncio.Event().wait()

    await decoupled(fakes, stream)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        async with aclosing((await scene.load()).stream(batch())) as results:
            await anext(results)
        (seen,) = [seen for fake in fakes for seen in fake.seen]
        await seen.cancelled.wait()


async def test_a_plain_model_streams_its_one_answer(scene: Scene) -> None:
    """As every model does."""
    assert await values((await scene.load()).stream(batch())) == [0]


async def test_instances_are_what_the_fleet_takes_where_triton_batches(fakes: list[FakeTriton]) -> None:
    """Where batches are formed here, few enough that there is something to form."""
    for fake in fakes:
        fake.models["m"].config.dynamic_batching.CopyFrom(DYNAMIC)
        fake.models["m"].config.instance_group.add(count=2)
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        passing = await scene.load()
        assert passing.choice is not None
        assert passing.instances == scene.fleet.fleet.capacity > 9
        assert (await scene.load(batching="gateway")).instances == 9
        passing.choice.gateway = True
        assert passing.instances == 9
        scene.fleet.versions.lose(fakes[0].address, Loaded("m", 2))
        assert passing.instances == 6


async def test_settled_batching_fits_the_model_there(scene: Scene) -> None:
    """Its max_batch_size bounds the batches formed here."""
    spec = ModelSpec(name="digits", batching=BatchingOptions(max_batch_rows=64))
    assert (await scene.load()).settled(spec).batching.max_batch_rows == 8


async def test_loading_waits_for_enough_endpoints(fakes: list[FakeTriton]) -> None:
    """Until as many have it as must."""
    for fake in fakes:
        fake.models["m"].versions = {1}
    async with fleet_of(*(fake.address for fake in fakes), probe_interval_s=0.02) as scene:
        loading = asyncio.ensure_future(scene.load(version=2, min_ready=2))
        changes = scene.fleet.versions.changes()
        await anext(changes)
        fakes[0].models["m"].versions.add(2)
        await anext(changes)
        assert not loading.done()
        fakes[1].models["m"].versions.add(2)
        assert (await loading).served.loaded == Loaded("m", 2)


async def test_too_few_endpoints_fail_the_load_and_may_be_tried_again(scene: Scene) -> None:
    """The reason counts them, and shows no address."""
    for options in ({"version": 7}, {"model": "other"}):
        with pytest.raises(ModelLoadError, match="3 endpoints, of which 1 must be ready") as caught:
            await scene.load(ready_timeout_s=0.05, **options)
        assert isinstance(caught.value.__cause__, BackendUnavailable)
        assert "127.0.0.1" not in str(caught.value)
    assert scene.fleet.versions.watched() == ()


async def test_endpoints_must_agree_on_what_a_version_is(fakes: list[FakeTriton]) -> None:
    """Answers of two models are never mixed under one version."""
    fakes[1].models["m"] = model(1, 2, dims=(3,))
    async with fleet_of(*(fake.address for fake in fakes)) as scene:
        with pytest.raises(ModelLoadError, match=r"different models.*'x': FP32 \[-1, \d\] and FP32"):
            await scene.load()


async def test_wrong_options_fail_the_load(scene: Scene) -> None:
    """And name the model."""
    with pytest.raises(ModelLoadError, match=r"^model 'digits': no fleet 'g', there are: f$"):
        await scene.load(fleet="g")
    with pytest.raises(ModelLoadError, match="nothing here publishes"):
        await scene.load(control=True)


async def test_a_closed_model_leaves_the_fleet_running(scene: Scene) -> None:
    """Others go on."""
    one, other = await scene.load(), await scene.load()
    await one.aclose()
    await other.infer(batch())
    assert scene.fleet.versions.watched() == (Loaded("m", 2),)


async def test_nothing_reaches_triton_but_inference(scene: Scene, fakes: list[FakeTriton]) -> None:
    """Loading and running ask for no repository change, region, trace or log."""
    found = await scene.load()
    await found.infer(batch())
    await found.aclose()
    questions = {"RepositoryIndex", "ModelMetadata", "ModelConfig", "ModelStatistics"}
    assert {name for fake in fakes for name in fake.asked} <= questions


def test_a_version_that_is_not_there_was_not_run() -> None:
    """So that even what must not be repeated may go elsewhere."""
    assert not VersionNotThere("x").sent
