"""Requests to models that are loaded on first use, by every way in: waiting, answers, and early ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.core.calls import RpcFailure
from gateway.core.errors import Cancelled
from gateway.core.options import BatchingOptions
from gateway.protocol.protobuf_infer import LARGE_BYTES
from gateway.protocol.status import GrpcCode
from gateway.routing.cold_starts import ColdStartOptions
from gateway.testing import settle
from tests.api.cold_stage import ColdStage
from tests.api.drivers import DECOUPLED, StreamCall, UnaryCall, call
from tests.api.messages import infer, rows_of, stream_response
from tests.models import lazy_stage
from tests.models import stage as models_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.models.desired import DesiredVersion

MANY_ROWS = LARGE_BYTES // 4

ANY_ROWS = BatchingOptions(max_batch_rows=MANY_ROWS)


def sleeper(model: str, digest: str = "d") -> DesiredVersion:
    return lazy_stage.sleeper(model, digest=digest, batching=ANY_ROWS)


def wanted(model: str) -> DesiredVersion:
    return models_stage.wanted(model, 1, batching=ANY_ROWS)


@dataclass(frozen=True)
class Body:
    """One way to ask model `m` for something."""

    path: str
    content: bytes
    headers: Mapping[str, str]


def tensor(rows: int, **parameters: int) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [rows, 2], "parameters": parameters}


def json_body(rows: int) -> Body:
    content = orjson.dumps({"inputs": [{**tensor(rows), "data": [1.5] * (2 * rows)}]})
    return Body("/v2/models/m/infer", content, {})


def binary_body(rows: int) -> Body:
    head = orjson.dumps({"inputs": [tensor(rows, binary_data_size=8 * rows)]})
    content = head + np.full((rows, 2), 1.5, np.float32).tobytes()
    return Body("/v2/models/m/infer", content, {"inference-header-content-length": str(len(head))})


def raw_body() -> Body:
    content = np.full((1, 2), 1.5, np.float32).tobytes()
    return Body("/v2/models/m/infer", content, {"inference-header-content-length": "0"})


def generate_body(rows: int) -> Body:
    return Body("/v2/models/m/generate", orjson.dumps({"x": [[1.5, 1.5]] * rows}), {})


BODIES = {
    "json": json_body(1),
    "large json": json_body(MANY_ROWS),
    "binary": binary_body(1),
    "large binary": binary_body(MANY_ROWS),
    "raw": raw_body(),
    "generate": generate_body(1),
    "large generate": generate_body(MANY_ROWS),
}
MESSAGES = {"small": infer(model="m"), "large": infer([[1.0, 2.0]] * MANY_ROWS, model="m")}
every_body = pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BODIES.items()])
every_message = pytest.mark.parametrize("message", [pytest.param(m, id=name) for name, m in MESSAGES.items()])


@every_body
async def test_an_http_request_waits_for_its_model_and_is_answered_by_it(body: Body) -> None:
    """Two of them load it once; what they ask for gets to it unharmed, and nothing counts as refused."""
    async with ColdStage().serving(sleeper("m")) as stage:
        exchanges = [stage.begin(body.path, body.content, dict(body.headers)) for _ in range(2)]
        await stage.waiting(2)
        assert not any(exchange.replies for exchange in exchanges)
        stage.load()
        await stage.until(lambda: all(exchange.replies for exchange in exchanges))
        assert [exchange.answer()[0] for exchange in exchanges] == [200, 200]
        for pending in stage.queues[0].pendings:
            assert np.all(pending.request.inputs[0].array == 1.5)
        assert (len(stage.backend.loaded), stage.refusals) == (1, [])
        assert stage.catalog.loaded_versions("m")[0].leases == 0


@every_body
async def test_an_http_client_that_goes_leaves_the_waiting_room(body: Body) -> None:
    """The model never sees the request, and its reply is nobody's."""
    async with ColdStage().serving(sleeper("m")) as stage:
        gone = stage.begin(body.path, body.content, dict(body.headers))
        await stage.waiting(1)
        gone.cancel()
        assert stage.cold.waiting() == 0
        stage.load()
        await stage.catalog.wait_settled()
        await settle()
        assert stage.asked() == 0


@every_body
async def test_an_http_deadline_holds_while_a_model_is_loaded(body: Body) -> None:
    """At the time that the header sets the request fails as late, and its model goes on loading."""
    async with ColdStage().serving(sleeper("m")) as stage:
        late = stage.begin(body.path, body.content, {**body.headers, "x-request-timeout-ms": "500"})
        await stage.waiting(1)
        stage.clock.advance(0.4)
        assert not late.replies
        stage.clock.advance(0.2)
        status, answer = late.answer()
        assert status == 504
        assert b"0.500 s of waiting for the model to be loaded" in answer
        stage.load()
        await stage.catalog.wait_settled()
        assert stage.asked() == 0
        assert stage.catalog.is_model_ready("m")


@every_body
async def test_an_http_request_hears_why_its_model_could_not_be_loaded(body: Body) -> None:
    """Those that wait, and those that come soon after and wait for nothing."""
    stage = ColdStage()
    stage.backend.failures["d"] = "the file is no model"
    async with stage.serving(sleeper("m")):
        waits = stage.begin(body.path, body.content, dict(body.headers))
        await stage.waiting(1)
        stage.load()
        await stage.catalog.wait_settled()
        comes_later = stage.begin(body.path, body.content, dict(body.headers))
        for exchange in (waits, comes_later):
            status, answer = exchange.answer()
            assert status == 503
            assert b"model 'm' could not be loaded" in answer
            assert b"the file is no model" in answer


@every_body
async def test_no_more_http_requests_wait_than_may(body: Body) -> None:
    """One more is refused at once, whether it waits decoded or as it came."""
    stage = ColdStage(cold_options=ColdStartOptions(max_requests=1))
    async with stage.serving(sleeper("m")):
        first = stage.begin(body.path, body.content, dict(body.headers))
        second = stage.begin(body.path, body.content, dict(body.headers))
        assert not first.replies
        status, answer = second.answer()
        assert status == 429
        assert b"too many requests wait for model 'm'" in answer


@every_body
async def test_a_request_that_has_waited_is_cancelled_where_it_is_now(body: Body) -> None:
    """The hook that its client's end was given at first reaches the model's queue."""
    async with ColdStage(answers=False).serving(sleeper("m")) as stage:
        exchange = stage.begin(body.path, body.content, dict(body.headers))
        await stage.waiting(1)
        stage.load()
        await stage.until(lambda: stage.asked() == 1)
        exchange.cancel()
        assert isinstance(stage.queues[0].pendings[0].error, Cancelled)
        assert stage.catalog.loaded_versions("m")[0].leases == 0


async def test_what_is_refused_after_its_wait_is_counted_once() -> None:
    """A body that proves to be wrong when its model is there to read it for."""
    async with ColdStage().serving(sleeper("m")) as stage:
        wrong = stage.begin("/v2/models/m/generate", b"[]")
        await stage.waiting(1)
        assert stage.refusals == []
        stage.load()
        await stage.until(lambda: bool(wrong.replies))
        assert wrong.answer()[0] == 400
        assert [request.model_name for request, _ in stage.refusals] == ["m"]


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/config", "/v2/models/m/versions/1/config"])
async def test_what_a_model_takes_can_be_asked_while_it_sleeps(path: str) -> None:
    """Clients read metadata before they send anything; that loads the model, too."""
    async with ColdStage().serving(sleeper("m")) as stage:
        answer = asyncio.ensure_future(stage.http.fetch("GET", path))
        await stage.waiting(1)
        stage.load()
        assert (await answer).json["name"] == "m"


async def test_a_question_given_up_leaves_nobody_waiting() -> None:
    """The client of a metadata request went while the model was being loaded."""
    async with ColdStage().serving(sleeper("m")) as stage:
        asking = asyncio.ensure_future(stage.http.fetch("GET", "/v2/models/m"))
        await stage.waiting(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert stage.cold.waiting() == 0


async def test_readiness_and_statistics_wake_nobody() -> None:
    """A prober that goes through all models must not load them all."""
    async with ColdStage().serving(sleeper("m")) as stage:
        assert (await stage.http.fetch("GET", "/v2/models/m/ready")).status == 200
        assert (await stage.http.fetch("GET", "/v2/models/m/stats")).status in {200, 400}
        await stage.http.fetch("GET", "/v2/models/stats")
        await stage.http.fetch("POST", "/v2/repository/index")
        await settle()
        assert stage.lazy.awake() == frozenset()


@pytest.mark.parametrize("rows", [1, MANY_ROWS])
async def test_generate_stream_waits_and_keeps_its_deadline(rows: int) -> None:
    """It is answered by the model that it woke; a deadline before that ends it, and its size counts."""
    body = orjson.dumps({"x": [[1.5, 1.5]] * rows})
    stage = ColdStage(cold_options=ColdStartOptions(max_bytes=len(body) + 1))
    async with stage.serving(sleeper("m")):
        late = asyncio.ensure_future(
            stage.http.fetch("POST", "/v2/models/m/generate_stream", body, {"x-request-timeout-ms": "500"})
        )
        await stage.waiting(1)
        assert (await stage.http.fetch("POST", "/v2/models/m/generate_stream", body)).status == 429
        stage.clock.advance(1)
        assert (await late).status == 504
        answered = asyncio.ensure_future(stage.http.fetch("POST", "/v2/models/m/generate_stream", body))
        await stage.waiting(1)
        stage.load()
        reply = await answered
        assert reply.status == 200
        assert reply.body.startswith(b"data: ")


async def test_a_model_that_sleeps_no_more_because_it_is_gone_is_not_found() -> None:
    """Withdrawn while two ways in wait for it."""
    async with ColdStage().serving(sleeper("m")) as stage:
        asking = asyncio.ensure_future(stage.http.fetch("GET", "/v2/models/m"))
        large = stage.begin(BODIES["large json"].path, BODIES["large json"].content)
        await stage.waiting(2)
        stage.catalog.apply("source", [])
        stage.load()
        await stage.until(lambda: bool(large.replies))
        assert (await asking).status == 404
        assert large.answer()[0] == 404


async def test_a_model_that_is_loaded_at_start_is_refused_while_it_loads() -> None:
    """Nobody waits for what is not loaded on first use."""
    async with ColdStage().serving(wanted("m")) as stage:
        for body in BODIES.values():
            assert stage.begin(body.path, body.content, dict(body.headers)).answer()[0] == 503
        for message in MESSAGES.values():
            with pytest.raises(RpcFailure):
                await call(stage.grpc, "ModelInfer", message)
        assert (await stage.http.fetch("GET", "/v2/models/m")).status == 503
        assert stage.cold.waiting() == 0


# gRPC.


@every_message
async def test_an_rpc_waits_for_its_model(message: bytes) -> None:
    """It gets the model's answer; one that is cancelled meanwhile never gets to the model."""
    async with ColdStage().serving(sleeper("m")) as stage:
        kept, gone = UnaryCall(message), UnaryCall(message)
        for rpc in (kept, gone):
            stage.grpc.begin["ModelInfer"](rpc)
        await stage.waiting(2)
        for cancel in gone.cancel_callbacks:
            cancel()
        stage.load()
        answer = pb.ModelInferResponse.FromString((await kept.outcome())[0])
        assert rows_of(answer)[0] == [1.0, 2.0]
        assert (stage.asked(), len(stage.backend.loaded)) == (1, 1)
        assert stage.refusals == []


@every_message
async def test_an_rpc_that_is_late_or_fails_says_so(message: bytes) -> None:
    """The deadline of the call holds; the reason of a load that failed is the status."""
    stage = ColdStage()
    stage.backend.failures["d"] = "the file is no model"
    async with stage.serving(sleeper("m")):
        late, failed = UnaryCall(message, deadline_s=1000.5), UnaryCall(message, deadline_s=1009.0)
        for rpc in (late, failed):
            stage.grpc.begin["ModelInfer"](rpc)
        await stage.waiting(2)
        stage.clock.advance(1)
        with pytest.raises(RpcFailure) as caught:
            await late.outcome()
        assert caught.value.status.code == GrpcCode.DEADLINE_EXCEEDED
        stage.load()
        with pytest.raises(RpcFailure, match="the file is no model") as caught:
            await failed.outcome()
        assert caught.value.status.code == GrpcCode.UNAVAILABLE


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
async def test_an_rpc_that_asks_what_a_model_takes_keeps_its_deadline(method: str) -> None:
    """It wakes the model; the call's deadline ends the wait."""
    async with ColdStage().serving(sleeper("m")) as stage:
        message = getattr(pb, f"{method}Request")(name="m").SerializeToString()
        late = asyncio.ensure_future(call(stage.grpc, method, message, deadline_s=1000.5))
        kept = asyncio.ensure_future(call(stage.grpc, method, message))
        await stage.waiting(2)
        stage.clock.advance(1)
        with pytest.raises(RpcFailure) as caught:
            await late
        assert caught.value.status.code == GrpcCode.DEADLINE_EXCEEDED
        stage.load()
        assert b"m" in await kept


class Streaming:
    """A ModelStreamInfer under way."""

    def __init__(self, stage: ColdStage, deadline_s: float | None = None) -> None:
        self.call = StreamCall(deadline_s=deadline_s)
        self.task = asyncio.ensure_future(stage.grpc.stream["ModelStreamInfer"](self.call))

    async def next(self) -> Any:
        return stream_response(await self.call.receive())

    async def finish(self) -> list[Any]:
        self.call.half_close()
        await self.task
        return [stream_response(message) for message in self.call.received()]


@every_message
async def test_a_stream_waits_for_a_model_and_keeps_its_order(message: bytes) -> None:
    """A request to a model that sleeps holds those behind it up; all are answered, and it is loaded once."""
    async with ColdStage().serving(sleeper("m"), wanted("n")) as stage:
        stage.load()
        await stage.catalog.wait_settled()
        assert stage.backend.gate is not None
        stage.backend.gate.clear()
        stream = Streaming(stage)
        stream.call.write(infer(model="n", request_id="before"), message, message, infer(model="n"))
        assert (await stream.next()).infer_response.id == "before"
        await stage.waiting(1)
        stage.load()
        answers = await stream.finish()
        assert [a.infer_response.model_name for a in answers] == ["m", "m", "n"]
        assert [a.error_message for a in answers] == ["", "", ""]
        assert (len(stage.backend.loaded), stage.refusals) == (2, [])


@every_message
async def test_a_stream_tells_why_a_model_could_not_be_loaded_and_goes_on(message: bytes) -> None:
    """The reason is that request's answer; a deadline is one, too; each is counted once."""
    stage = ColdStage()
    stage.backend.failures["d"] = "the file is no model"
    async with stage.serving(sleeper("m"), sleeper("n", digest="n")):
        stream = Streaming(stage, deadline_s=1000.5)
        stream.call.write(message)
        await stage.waiting(1)
        stage.load()
        assert "the file is no model" in (await stream.next()).error_message
        assert stage.backend.gate is not None
        stage.backend.gate.clear()
        stream.call.write(infer(model="n"))
        await stage.waiting(1)
        stage.clock.advance(1)
        assert "reached its deadline" in (await stream.next()).error_message
        stage.load()
        assert await stream.finish() == []
        assert len(stage.refusals) == 2


@every_message
async def test_a_stream_that_is_cancelled_while_a_model_is_loaded_leaves_nobody(message: bytes) -> None:
    """Nothing waits any more, and nothing gets to the model."""
    async with ColdStage().serving(sleeper("m")) as stage:
        stream = Streaming(stage)
        stream.call.write(message, message)
        await stage.waiting(1)
        stream.task.cancel()
        await asyncio.gather(stream.task, return_exceptions=True)
        assert stage.cold.waiting() == 0
        stage.load()
        await stage.catalog.wait_settled()
        assert stage.asked() == 0


async def test_a_stream_finds_out_that_a_model_that_slept_is_decoupled() -> None:
    """Its responses come as a stream's do, and a unary call to it is refused when that is known."""
    stage = ColdStage(signatures={"many": DECOUPLED})
    async with stage.serving(sleeper("m", digest="many"), gated=False):
        stream = Streaming(stage)
        stream.call.write(infer(model="m", request_id="a"))
        answers = await stream.finish()
        assert [(a.infer_response.id, a.error_message) for a in answers] == [("a", "")]
        assert stage.asked() == 0, "it was streamed, not submitted"


async def test_a_stream_leaves_unknown_models_to_the_service() -> None:
    """Where there is nothing to wait for, the service says what is wrong, and counts it."""
    async with ColdStage().serving(sleeper("m"), gated=False) as stage:
        stream = Streaming(stage)
        stream.call.write(infer(model="x"), infer(model="m", version="7"))
        answers = await stream.finish()
        assert ["is not found" in a.error_message for a in answers] == [True, True]
        assert stage.refusals == []


async def test_without_a_waiting_room_a_model_that_is_not_ready_is_refused() -> None:
    """As it was before models could be loaded on first use."""
    async with ColdStage().serving(sleeper("m")) as stage:
        stage.waits_nowhere()
        for body in BODIES.values():
            assert stage.begin(body.path, body.content, dict(body.headers)).answer()[0] == 503
        assert (await stage.http.fetch("GET", "/v2/models/m")).status == 503
        stream = Streaming(stage)
        stream.call.write(*MESSAGES.values())
        answers = await stream.finish()
        assert all("no available versions" in a.error_message for a in answers)
        assert len(answers) == len(MESSAGES)
