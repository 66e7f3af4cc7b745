"""ModelStreamInfer: order, errors in band, decoupled models, half-close, cancellation, back pressure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.api.grpc_inference import inference_service
from gateway.core.calls import RpcFailure
from gateway.core.errors import BackendError, Draining, InvalidRequest
from gateway.protocol.status import GrpcCode
from gateway.testing import EchoService, settle
from tests.api.drivers import StreamCall
from tests.api.messages import infer, rows_of, stream_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.api.context import ApiContext
    from gateway.api.readiness import ReadinessNotifier
    from gateway.core.types import InferRequest, InferResponse


@pytest.fixture
def held() -> EchoService:
    return EchoService(held=True)


class Session:
    """A stream under way."""

    def __init__(self, context: ApiContext, service: Any, metadata: dict[str, str] | None = None) -> None:
        self.call = StreamCall(metadata, deadline_s=1005.0)
        run = inference_service(replace(context, service=service)).stream["ModelStreamInfer"]
        self.task = asyncio.ensure_future(run(self.call))

    async def next(self) -> Any:
        return stream_response(await self.call.receive())

    def received(self) -> list[Any]:
        return [stream_response(message) for message in self.call.received()]

    async def finish(self) -> list[Any]:
        """Half-close, wait for the end and return what has come."""
        self.call.half_close()
        await self.task
        return self.received()


async def test_answers_come_in_request_order(context: ApiContext, held: EchoService) -> None:
    """A response that is ready early waits for those before it."""
    session = Session(context, held)
    session.call.write(*(infer([[i, i]], request_id=str(i)) for i in range(3)))
    await settle()
    held.answer(held.pendings[2])
    held.answer(held.pendings[1])
    await settle()
    assert not session.received()
    held.answer(held.pendings[0])
    answers = await session.finish()
    assert [a.infer_response.id for a in answers] == ["0", "1", "2"]
    assert [rows_of(a.infer_response) for a in answers] == [[[i, i]] for i in range(3)]
    assert all(a.infer_response.parameters["triton_final_response"].bool_param for a in answers)
    assert held.pendings[0].request.deadline_s == 1005.0


async def test_half_close_waits_for_what_is_under_way(context: ApiContext, held: EchoService) -> None:
    """The stream ends only when every request has been answered."""
    session = Session(context, held)
    session.call.write(infer(request_id="a"))
    session.call.half_close()
    await settle()
    assert not session.task.done()
    held.answer(held.pendings[0])
    await session.task
    assert [a.infer_response.id for a in session.received()] == ["a"]


async def test_errors_are_answers(context: ApiContext, held: EchoService) -> None:
    """Failed, refused and undecodable requests are answered in their places, and the stream goes on."""
    session = Session(context, held)
    session.call.write(infer(request_id="failed"), infer(request_id="ok"))
    await settle()
    held.answer(held.pendings[1])
    held.answer(held.pendings[0], BackendError("it broke"))
    assert [(await session.next()).error_message for _ in range(2)] == ["it broke", ""]
    held.refuse = Draining("the server is shutting down")
    session.call.write(infer(request_id="refused"))
    session.call.write(infer(request_id="unknown", triton_other=True), b"\xff\xff")
    answers = await session.finish()
    assert [a.infer_response.id for a in answers] == ["refused", "unknown", ""]
    assert answers[0].error_message == "the server is shutting down"
    assert "triton_other" in answers[1].error_message
    assert all(a.error_message for a in answers)
    assert all(a.infer_response.parameters["triton_final_response"].bool_param for a in answers)


async def test_errors_as_a_status(context: ApiContext, held: EchoService) -> None:
    """With `triton_grpc_error: true` the first error ends the stream, after the answers before it."""
    session = Session(context, held, {"triton_grpc_error": "true"})
    session.call.write(*(infer(request_id=str(i)) for i in range(3)))
    await settle()
    held.answer(held.pendings[1], InvalidRequest("no good"))
    held.answer(held.pendings[0])
    with pytest.raises(RpcFailure, match="no good") as caught:
        await session.task
    assert caught.value.status.code == GrpcCode.INVALID_ARGUMENT
    assert [a.infer_response.id for a in session.received()] == ["0"]
    assert held.pendings[2].error is not None


async def test_cancel_cancels_every_request(context: ApiContext, held: EchoService) -> None:
    """A client that goes takes all its requests along, the one being waited for and those behind it."""
    session = Session(context, held)
    session.call.write(*(infer() for _ in range(3)))
    await settle()
    session.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session.task
    assert [p.done for p in held.pendings] == [True] * 3


async def test_a_server_that_goes_ends_streams(
    context: ApiContext, held: EchoService, readiness: ReadinessNotifier
) -> None:
    """When the server goes a stream ends as UNAVAILABLE once it is answered, an idle one at once."""
    idle, busy = Session(context, held), Session(context, held)
    busy.call.write(infer(request_id="a"))
    await settle()
    readiness.begin_drain()
    await settle()
    assert not idle.task.done()
    readiness.close()
    with pytest.raises(RpcFailure) as caught:
        await idle.task
    assert caught.value.status.code == GrpcCode.UNAVAILABLE
    await settle()
    assert not busy.task.done()
    held.answer(held.pendings[0])
    with pytest.raises(RpcFailure):
        await busy.task
    assert [a.infer_response.id for a in busy.received()] == ["a"]
    late = Session(context, held)
    with pytest.raises(RpcFailure):
        await late.task
    assert not readiness._callbacks


async def test_back_pressure(context: ApiContext, held: EchoService) -> None:
    """With the bound reached the stream is not read on, until an answer has been sent."""
    session = Session(context, held)  # the fixture allows three
    session.call.write(*(infer(request_id=str(i)) for i in range(6)))
    await settle()
    assert (len(held.pendings), session.call.read) == (3, 4)
    session.call.writable.clear()
    held.answer(held.pendings[0])
    await settle()
    assert len(held.pendings) == 3
    session.call.writable.set()
    await settle()
    assert len(held.pendings) == 4
    for _ in range(6):
        for pending in held.pendings:
            if not pending.done:
                held.answer(pending)
        await settle()
    assert len(await session.finish()) == 6


async def test_decoupled_responses(context: ApiContext, service: EchoService) -> None:
    """A decoupled model sends one message per response, and only the last is marked final."""
    session = Session(context, service)
    session.call.write(infer([[1, 1], [2, 2], [3, 3]], model="many", request_id="d"))
    answers = await session.finish()
    assert [rows_of(a.infer_response) for a in answers] == [[[1, 1]], [[2, 2]], [[3, 3]]]
    finals = [a.infer_response.parameters["triton_final_response"].bool_param for a in answers]
    assert finals == [False, False, True]


async def test_a_decoupled_request_holds_up_no_other(context: ApiContext) -> None:
    """While a decoupled request is under way, plain ones behind it are answered."""
    service = Scripted()
    session = Session(context, service)
    session.call.write(infer(model="many", request_id="d"), infer(request_id="plain"))
    assert (await session.next()).infer_response.id == "plain"
    service.go.set()
    assert (await session.next()).infer_response.id == "d"
    await session.finish()


class Scripted(EchoService):
    """Streams that wait to be let go, then give responses with and without outputs."""

    def __init__(self, *, script: str = "x", failure: Exception | None = None) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.closed = 0
        self._script = script
        self._failure = failure

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Give a response per letter: `x` with outputs, `.` without; the last is final unless it is `-`."""
        try:
            await self.go.wait()
            for index, letter in enumerate(self._script):
                if letter == "-":
                    return
                final = index == len(self._script) - 1
                outputs = request.inputs if letter == "x" else ()
                yield self._response(request, outputs, final=final)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed += 1


@pytest.mark.parametrize(
    ("script", "wanted", "expected"),
    [
        ("xx", False, [("x", False), ("x", True)]),
        ("xx", True, [("x", False), ("x", True)]),
        ("x.", False, [("x", False)]),
        ("x.", True, [("x", False), (".", True)]),
        ("x-", True, [("x", False), (".", True)]),
        ("x-", False, [("x", False)]),
        ("-", True, [(".", True)]),
    ],
)
async def test_empty_final_response(
    context: ApiContext, script: str, wanted: bool, expected: list[tuple[str, bool]]
) -> None:
    """An empty last response is sent only to who asked for it; who asked always gets a final one."""
    service = Scripted(script=script)
    service.go.set()
    session = Session(context, service)
    session.call.write(infer(model="many", request_id="d", triton_enable_empty_final_response=wanted))
    answers = [a.infer_response for a in await session.finish()]
    got = [("x" if a.outputs else ".", a.parameters["triton_final_response"].bool_param) for a in answers]
    assert got == expected
    assert {a.id for a in answers} == {"d"}


async def test_a_decoupled_request_that_fails(context: ApiContext) -> None:
    """Responses before a failure arrive, then the failure as a message, and the stream goes on."""
    service = Scripted(script="xx", failure=BackendError("it broke"))
    service.go.set()
    session = Session(context, service)
    session.call.write(infer(model="many", request_id="d"))
    first, second, failed = [await session.next() for _ in range(3)]
    assert not first.error_message
    assert not second.error_message
    assert (failed.error_message, failed.infer_response.id) == ("it broke", "d")
    session.call.write(infer(request_id="after"))
    assert [a.infer_response.id for a in await session.finish()] == ["after"]


async def test_a_decoupled_failure_as_a_status(context: ApiContext) -> None:
    """With `triton_grpc_error: true` a decoupled request's failure ends the stream too."""
    service = Scripted(failure=BackendError("it broke"))
    service.go.set()
    session = Session(context, service, {"triton_grpc_error": "true"})
    session.call.write(infer(model="many"))
    with pytest.raises(RpcFailure, match="it broke"):
        await session.task


async def test_cancel_closes_decoupled_requests(context: ApiContext) -> None:
    """A client that goes closes the streams of its decoupled requests, whether waiting or sending."""
    service = Scripted(script="xxxx")
    session = Session(context, service)
    session.call.write(infer(model="many"), infer(model="many"))
    await settle()
    session.call.writable.clear()
    service.go.set()
    await settle()
    session.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session.task
    assert service.closed == 2
