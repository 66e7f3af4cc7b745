"""HTTP methods that run models: infer and generate, answered by callback, and generate_stream by events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.api.arms import arm_headers
from gateway.api.classified import classified, version_meant
from gateway.api.cold import begin_when_ready, when_ready
from gateway.api.decoding import HEAVY_BYTES, takes_bytes
from gateway.api.event_stream import EVENT_STREAM_TYPE, EventStream
from gateway.api.http_models import model_version
from gateway.api.response_streams import close
from gateway.api.timing import (
    TIMEOUT_HEADER,
    TIMING_HEADER,
    header_deadline_s,
    server_timing,
    wants_timing,
)
from gateway.core.calls import HttpResponse
from gateway.core.errors import GatewayError, NotReady, Unsupported
from gateway.core.types import InferRequest, InferResponse
from gateway.protocol.generate import decode_generate, generate_json
from gateway.protocol.head_memo import MAX_HEAD_BYTES, HeadMemo
from gateway.protocol.json_infer import HEADER_LENGTH, HttpInferCall, decode_request, header_length
from gateway.protocol.json_response import ResponseHeads, encode_response
from gateway.protocol.limits import DecodeContext, check_body_size, check_name
from gateway.protocol.parameters import earlier_deadline

if TYPE_CHECKING:
    from gateway.api.context import ApiContext
    from gateway.api.errors import ErrorTranslator
    from gateway.core.calls import CancelHook, HttpHead, HttpReply, HttpRequest
    from gateway.core.interfaces import ServedVersion
    from gateway.core.pending import Pending


class _Prepared:
    """A decoded request, what makes an HTTP response of its answer, and whether that tells the timing."""

    __slots__ = (
        "encode",
        "request",
        "wants_timing",
    )

    def __init__(
        self,
        request: InferRequest,
        encode: Callable[[InferResponse], HttpResponse],
        wants_timing: bool,
    ) -> None:
        self.request = request
        self.encode = encode
        self.wants_timing = wants_timing


class _Plan(NamedTuple):
    """How a body becomes a request: `prepare` runs in a thread when it is `heavy`."""

    prepare: Callable[[], _Prepared]
    heavy: bool = False


class _HeadFacts:
    """What the infer method knows of requests by the HTTP head that they have in common.

    Attributes:
        model: from the path.
        version: likewise.
        text_bytes: how much of the body is JSON; 0 when it has no binary tensors behind it, or is too
            large to be remembered.
    """

    __slots__ = (
        "model",
        "text_bytes",
        "version",
    )

    def __init__(
        self,
        model: str,
        version: str,
        text_bytes: int,
    ) -> None:
        self.model = model
        self.version = version
        self.text_bytes = text_bytes


class InferHttp:
    """Handlers that run models."""

    def __init__(self, context: ApiContext, errors: ErrorTranslator) -> None:
        self._context = context
        self._errors = errors
        self._heads = HeadMemo(context.limits.max_name_bytes)
        self._response_heads = ResponseHeads()

    def infer(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        """Begin one inference; the hook takes it out of the queue."""
        if request.head is not None:
            hook = self._infer_known(request, reply, request.head)
            if hook is not None:
                return hook
        return self._begin(request, reply, self._plan_infer)

    def _infer_known(self, request: HttpRequest, reply: HttpReply, head: HttpHead) -> CancelHook | None:
        """Begin an inference whose HTTP and JSON heads are both known; None, having done nothing, if not."""
        facts = head.facts
        if not isinstance(facts, _HeadFacts):
            facts = head.facts = self._head_facts(request)
        model, version, text_bytes = facts.model, facts.version, facts.text_bytes
        body, headers = request.body, request.headers
        recognised = self._heads.get(bytes(body[:text_bytes])) if text_bytes else None
        if recognised is None:
            return None
        known = recognised.head
        if known.tail_bytes != len(body) - text_bytes or known.classifies:
            return None
        meant = version_meant(self._context.catalog, model, version)
        if meant is not None and meant.signature.decoupled:
            return None
        arrived_s, timeout_us = request.arrived_s, known.timeout_us
        try:
            deadline_s = header_deadline_s(headers, arrived_s) if TIMEOUT_HEADER in headers else None
        except GatewayError:
            return None  # said when it is decoded
        inference = InferRequest(
            model_name=model,
            model_version=version,
            request_id=recognised.request_id,
            inputs=known.tensors(body, text_bytes),
            outputs=known.outputs,
            parameters=known.parameters,
            priority=known.priority,
            deadline_s=earlier_deadline(deadline_s, arrived_s, timeout_us) if timeout_us else deadline_s,
            arrived_s=arrived_s,
            received_bytes=len(body),
            headers=headers,
            kind=known.kind,
        )
        form, heads = known.form, self._response_heads
        timing = TIMING_HEADER in headers and wants_timing(headers)
        prepared = _Prepared(inference, lambda answer: encode_response(answer, form, heads), timing)
        return self._submit(request, reply, prepared)

    def _head_facts(self, request: HttpRequest) -> _HeadFacts:
        headers = request.headers
        model, version = model_version(request)
        try:
            check_name("the model's name", model, DecodeContext(model, self._context.limits))
            text_bytes = header_length(headers, len(request.body), model)
        except GatewayError:
            text_bytes = 0  # it is said why when the request is decoded
        binary = HEADER_LENGTH in headers and text_bytes <= MAX_HEAD_BYTES
        return _HeadFacts(model, version, text_bytes if binary else 0)

    def generate(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        """Begin one inference on a JSON object; the hook takes it out of the queue."""
        return self._begin(request, reply, self._plan_generate)

    async def generate_stream(self, request: HttpRequest) -> HttpResponse:
        """Answer with one event per response; an error before the first one gets its own status.

        Cancelling the caller, or closing the response's stream, cancels the request.

        Raises:
            GatewayError: refused, or failed before the first response.
        """
        responses = self._context.service.stream(await self._generate_request(request))
        try:
            first = await anext(responses, None)
        except BaseException:
            await close(responses)
            raise
        events = EventStream(first, responses, self._errors)
        arm = () if first is None else arm_headers(first)
        headers = (("Cache-Control", "no-cache"), *arm)
        return HttpResponse(200, (), EVENT_STREAM_TYPE, headers, compressible=False, stream=events)

    def _begin(
        self, request: HttpRequest, reply: HttpReply, plan: Callable[[HttpRequest], _Plan]
    ) -> CancelHook:
        try:
            return self._started(request, reply, plan(request))
        except NotReady as refused:
            return begin_when_ready(
                self._context,
                _asked(request),
                refused,
                lambda: self._started(request, reply, plan(request)),
                lambda error: self._refuse(request, reply, error),
            )
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._refuse(request, reply, error)

    def _started(self, request: HttpRequest, reply: HttpReply, planned: _Plan) -> CancelHook:
        if planned.heavy:
            then = partial(self._go_on, request, reply)
            return self._context.decode_pool.begin(planned.prepare, len(request.body), then)
        return self._submit(request, reply, planned.prepare())

    def _go_on(self, request: HttpRequest, reply: HttpReply, prepare: Callable[[], _Prepared]) -> CancelHook:
        """Submit what `prepare` returns, or answer what it raises."""
        try:
            prepared = prepare()
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._refuse(request, reply, error)
        return self._submit(request, reply, prepared)

    def _submit(self, request: HttpRequest, reply: HttpReply, prepared: _Prepared) -> CancelHook:
        try:
            pending = self._context.service.submit(prepared.request)
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            reply(self._errors.http_response(error))
            return _nothing
        pending.add_done_callback(lambda done: reply(self._response(request, prepared, done)))
        return pending.cancel

    def _refuse(self, request: HttpRequest, reply: HttpReply, error: Exception) -> CancelHook:
        """Count and answer a request that never gets to the service."""
        self._context.refused(_unread(request), error)
        reply(self._errors.http_response(error))
        return _nothing

    def _response(self, request: HttpRequest, prepared: _Prepared, done: Pending) -> HttpResponse:
        try:
            answer = done.result()
            response = prepared.encode(answer)
            if answer.parameters:
                response.headers = (*response.headers, *arm_headers(answer))
            if prepared.wants_timing:
                total_s = self._context.clock.now_s() - request.arrived_s
                timing = server_timing(answer.timing, total_s)
                response.headers = (*response.headers, ("Server-Timing", timing))
                response.kind = None
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._errors.http_response(error)
        return response

    def _plan_infer(self, request: HttpRequest) -> _Plan:
        catalog, call = self._context.catalog, _call(request)
        meant = version_meant(catalog, call.model_name, call.model_version)
        if meant is not None and meant.signature.decoupled:
            raise Unsupported("HTTP end point doesn't support models with decoupled transaction policy")
        if len(request.body) >= HEAVY_BYTES:
            return self._plan_large(request, call)
        return _Plan(partial(self._decoded, request, call, meant, self._heads))

    def _plan_large(self, request: HttpRequest, call: HttpInferCall) -> _Plan:
        """Look at whom a large body is for, and at what its data is said to be, before it is decoded."""
        size = len(request.body)
        check_body_size(size, self._context.limits)
        meant = self._context.catalog.get(call.model_name, call.model_version)
        text_bytes = header_length(call.headers, size, call.model_name)
        call = replace(call, datatypes={spec.name: spec.datatype for spec in meant.signature.inputs})
        if text_bytes >= HEAVY_BYTES or (text_bytes and takes_bytes(meant.signature)):
            return _Plan(partial(self._decoded, request, call, meant, None), heavy=True)
        return _Plan(partial(self._decoded, request, call, meant, self._heads))

    def _decoded(
        self, request: HttpRequest, call: HttpInferCall, meant: ServedVersion | None, memo: HeadMemo | None
    ) -> _Prepared:
        """Decode; on any thread when there is a version and no memo."""
        catalog = self._context.catalog
        decoded = decode_request(
            request.body,
            call,
            signature=lambda: (meant or catalog.get(call.model_name, call.model_version)).signature,
            limits=self._context.limits,
            memo=memo,
        )
        return _Prepared(
            decoded.request,
            lambda answer: encode_response(
                classified(catalog, decoded.request, answer, meant), decoded.form, self._response_heads
            ),
            wants_timing(request.headers),
        )

    def _plan_generate(self, request: HttpRequest) -> _Plan:
        model, version = model_version(request)
        if self._context.catalog.get(model, version).signature.decoupled:
            msg = f"model '{model}' may answer with any number of responses: use generate_stream"
            raise Unsupported(msg)
        decode = self._generate_decoder(request)
        timing = wants_timing(request.headers)
        return _Plan(lambda: _Prepared(decode(), _generated, timing), len(request.body) >= HEAVY_BYTES)

    def _generate_decoder(self, request: HttpRequest) -> Callable[[], InferRequest]:
        """Return what decodes the body, on any thread."""
        call = _call(request)
        signature = self._context.catalog.get(call.model_name, call.model_version).signature
        return partial(decode_generate, request.body, call, signature, limits=self._context.limits)

    async def _generate_request(self, request: HttpRequest) -> InferRequest:
        try:
            decode = await when_ready(
                self._context, partial(_asked, request), partial(self._generate_decoder, request)
            )
            if len(request.body) < HEAVY_BYTES:
                return decode()
            return await self._context.decode_pool.run(decode, len(request.body))
        except Exception as error:
            self._context.refused(_unread(request), error)
            raise


def _generated(answer: InferResponse) -> HttpResponse:
    return HttpResponse(200, (generate_json(answer),))


def _call(request: HttpRequest) -> HttpInferCall:
    model, version = model_version(request)
    return HttpInferCall(
        model_name=model,
        model_version=version,
        arrived_s=request.arrived_s,
        deadline_s=header_deadline_s(request.headers, request.arrived_s),
        headers=request.headers,
    )


def _unread(request: HttpRequest) -> InferRequest:
    """Return what is known of a request whose body cannot be decoded: all but the body."""
    return InferRequest(
        model_name=request.path_params.get("model", ""),
        model_version=request.path_params.get("version", ""),
        inputs=(),
        arrived_s=request.arrived_s,
        headers=request.headers,
        received_bytes=len(request.body),
    )


def _asked(request: HttpRequest) -> InferRequest:
    """Return likewise what decides how long it may wait."""
    known = _unread(request)
    try:
        known.deadline_s = header_deadline_s(request.headers, request.arrived_s)
    except GatewayError:
        known.deadline_s = None  # said when it is decoded
    return known


def _nothing() -> None:
    """Cancel nothing: the exchange is over."""
