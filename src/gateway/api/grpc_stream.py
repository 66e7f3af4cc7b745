"""One ModelStreamInfer stream: plain models answered in request order, decoupled ones as answers come."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway._proto.open_inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from gateway.api.classified import classified, version_meant
from gateway.api.cold import when_ready
from gateway.api.grpc_decoding import is_large, large_asked, large_request, request_id, small_request
from gateway.api.response_streams import closing
from gateway.core.calls import RpcFailure
from gateway.core.errors import Draining, InvalidRequest, NotFound
from gateway.core.types import InferRequest
from gateway.protocol.parameters import EMPTY_FINAL_RESPONSE, FINAL_RESPONSE
from gateway.protocol.protobuf_infer import Arrival, encode_stream_error, encode_stream_response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from gateway.api.context import ApiContext
    from gateway.api.errors import ErrorTranslator
    from gateway.core.calls import Buffer, RpcStream
    from gateway.core.interfaces import ServedVersion
    from gateway.core.pending import Pending
    from gateway.core.types import InferResponse

CLOSE_ON_ERROR_METADATA: Final = "triton_grpc_error"


class _Admitted(NamedTuple):
    """A request under way, with the version it meant when it came."""

    pending: Pending
    meant: ServedVersion | None


class _Refused(NamedTuple):
    """The answer to a request that was never admitted."""

    request_id: str
    error: Exception


def unread(message: Buffer, metadata: Mapping[str, str], arrived_s: float) -> InferRequest:
    """Return what is known of a request whose message cannot be decoded: its size, what came beside it."""
    return InferRequest(
        model_name="", inputs=(), headers=metadata, arrived_s=arrived_s, received_bytes=len(message)
    )


class StreamSession:
    """Runs one stream to its end: the client's half-close, or the server's end.

    Plain models are answered in request order, whichever finishes first; responses of decoupled models are
    sent when they come. An error is a message and the stream lives on, unless the client's metadata asks for
    a status. At most `max_stream_inflight` requests are unanswered at once, with one more read; the slot
    of a request is free again when its last response has been sent. Cancelling `run` cancels them all.
    """

    def __init__(self, context: ApiContext, errors: ErrorTranslator, stream: RpcStream) -> None:
        self._context = context
        self._errors = errors
        self._stream = stream
        self._slots = asyncio.Semaphore(context.max_stream_inflight)
        self._answers: asyncio.Queue[_Admitted | _Refused | None] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._half_closed = False
        self._ending = asyncio.Event()  # set by the half-close, or when the server goes
        self._close_on_error = stream.metadata.get(CLOSE_ON_ERROR_METADATA, "").lower() == "true"

    async def run(self) -> None:
        """Answer until the client half-closes or the server goes, and all that was asked is answered.

        Raises:
            RpcFailure: the first error, if the client wants a status for it.
            Draining: the server went first; a stream that idles does not hold it up.
        """
        unsubscribe = self._context.readiness.subscribe(self._look_at_server)
        self._look_at_server()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._answer_in_order())
                group.create_task(self._read(group))
                await self._ending.wait()
                await self._finish()
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            unsubscribe()
            self._cancel_unanswered()

    def _look_at_server(self) -> None:
        if self._context.readiness.closed:
            self._ending.set()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        async for message in self._stream:
            await self._slots.acquire()
            await self._begin(message, group)
        self._half_closed = True
        self._ending.set()

    async def _finish(self) -> None:
        """Wait until every slot is free: then all is answered."""
        for _ in range(self._context.max_stream_inflight):
            await self._slots.acquire()
        if not self._half_closed:
            raise Draining("the server is shutting down")
        self._answers.put_nowait(None)

    async def _begin(self, message: Buffer, group: asyncio.TaskGroup) -> None:
        answer: _Admitted | _Refused
        try:
            request, meant = await self._read_of(message)
            if meant is not None and meant.signature.decoupled:
                group.create_task(self._answer_as_they_come(request, meant))
                return
            answer = _Admitted(self._context.service.submit(request), meant)
        except Exception as error:  # noqa: BLE001 - translated where it is sent; the stream must live on
            answer = _Refused(request_id(self._context, message), error)
        self._answers.put_nowait(answer)

    async def _read_of(self, message: Buffer) -> tuple[InferRequest, ServedVersion | None]:
        """Decode a message, and look at whom it is for; a model that is loaded on first use is waited for.

        The stream is not read on meanwhile, so that requests keep their order.
        """
        try:
            request = await self._decode(message)
            return request, await self._meant(request)
        except Exception as error:
            arrived_s = self._context.clock.now_s()
            self._context.refused(unread(message, self._stream.metadata, arrived_s), error)
            raise

    async def _decode(self, message: Buffer) -> InferRequest:
        context, stream = self._context, self._stream
        arrival = Arrival(context.clock.now_s(), stream.deadline_s, stream.metadata)
        if not is_large(message):
            return small_request(context, message, arrival)
        asked = partial(large_asked, context, message, arrival)
        large = await when_ready(context, asked, lambda: large_request(context, message, arrival))
        return await context.decode_pool.run(large.decode, len(message)) if large.heavy else large.decode()

    async def _meant(self, request: InferRequest) -> ServedVersion | None:
        """Return as `version_meant` what decides how a request is answered, once its model is loaded."""
        catalog, model, version = self._context.catalog, request.model_name, request.model_version
        if self._context.cold_starts is None:
            return version_meant(catalog, model, version)
        try:
            return await when_ready(self._context, lambda: request, lambda: catalog.get(model, version))
        except (NotFound, InvalidRequest):
            return None  # the service says it

    async def _answer_in_order(self) -> None:
        while (answer := await self._answers.get()) is not None:
            await self._send(await self._outcome(answer))
            self._slots.release()

    async def _outcome(self, answer: _Admitted | _Refused) -> bytes:
        if isinstance(answer, _Refused):
            return self._failure(answer.request_id, answer.error)
        request = answer.pending.request
        try:
            return self._encode(request, await answer.pending, answer.meant)
        except Exception as error:  # noqa: BLE001 - becomes the answer
            return self._failure(request.request_id, error)

    async def _answer_as_they_come(self, request: InferRequest, meant: ServedVersion) -> None:
        try:
            async with aclosing(self._decoupled_messages(request, meant)) as messages:
                async for message in messages:
                    await self._send(message)
        finally:
            self._slots.release()

    async def _decoupled_messages(
        self, request: InferRequest, meant: ServedVersion
    ) -> AsyncGenerator[bytes, None]:
        wants_empty = request.parameters.get(EMPTY_FINAL_RESPONSE) is True
        final = False
        try:
            async with closing(self._context.service.stream(request)) as responses:
                async for response in responses:
                    final = response.final
                    if response.outputs or not final or wants_empty:
                        yield self._encode(request, response, meant)
        except Exception as error:  # noqa: BLE001 - becomes the last answer
            yield self._failure(request.request_id, error)
            return
        if wants_empty and not final:
            yield _empty_final(request)

    def _encode(self, request: InferRequest, response: InferResponse, meant: ServedVersion | None) -> bytes:
        marked = response.replaced(parameters={**response.parameters, FINAL_RESPONSE: response.final})
        return encode_stream_response(classified(self._context.catalog, request, marked, meant))

    def _failure(self, request_id: str, error: Exception) -> bytes:
        status = self._errors.rpc_status(error)
        if self._close_on_error:
            raise RpcFailure(status)
        return encode_stream_error(status.message, request_id)

    async def _send(self, message: bytes) -> None:
        async with self._sending:
            await self._stream.send(message)

    def _cancel_unanswered(self) -> None:
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if isinstance(answer, _Admitted):
                answer.pending.cancel()


def _empty_final(request: InferRequest) -> bytes:
    response = ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version, id=request.request_id
    )
    response.parameters[FINAL_RESPONSE].bool_param = True
    return ModelStreamInferResponse(infer_response=response).SerializeToString()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
