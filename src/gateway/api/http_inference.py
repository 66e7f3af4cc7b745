"""HTTP methods that run models: infer and generate, answered by callback, and generate_stream by events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.api.classified import classified, version_meant
from gateway.api.event_stream import EVENT_STREAM_TYPE, EventStream
from gateway.api.http_models import model_version
from gateway.api.response_streams import close
from gateway.api.timing import header_deadline_s, server_timing, wants_timing
from gateway.core.calls import HttpResponse
from gateway.core.errors import Unsupported
from gateway.protocol.generate import decode_generate, generate_json
from gateway.protocol.head_memo import HeadMemo
from gateway.protocol.json_infer import HttpInferCall, decode_request
from gateway.protocol.json_response import encode_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.context import ApiContext
    from gateway.api.errors import ErrorTranslator
    from gateway.core.calls import CancelHook, HttpReply, HttpRequest
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


class _Prepared(NamedTuple):
    """A decoded request and what makes an HTTP response of its answer."""

    request: InferRequest
    encode: Callable[[InferResponse], HttpResponse]


class InferHttp:
    """Handlers that run models."""

    def __init__(self, context: ApiContext, errors: ErrorTranslator) -> None:
        self._context = context
        self._errors = errors
        self._heads = HeadMemo()

    def infer(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        """Begin one inference; the hook takes it out of the queue."""
        return self._begin(request, reply, self._prepare_infer)

    def generate(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        """Begin one inference on a JSON object; the hook takes it out of the queue."""
        return self._begin(request, reply, self._prepare_generate)

    async def generate_stream(self, request: HttpRequest) -> HttpResponse:
        """Answer with one event per response; an error before the first one gets its own status.

        Cancelling the caller, or closing the response's stream, cancels the request.

        Raises:
            GatewayError: refused, or failed before the first response.
        """
        responses = self._context.service.stream(self._decode_generate(request))
        try:
            first = await anext(responses, None)
        except BaseException:
            await close(responses)
            raise
        events = EventStream(first, responses, self._errors)
        headers = (("Cache-Control", "no-cache"),)
        return HttpResponse(200, (), EVENT_STREAM_TYPE, headers, compressible=False, stream=events)

    def _begin(
        self, request: HttpRequest, reply: HttpReply, prepare: Callable[[HttpRequest], _Prepared]
    ) -> CancelHook:
        try:
            prepared = self._prepared(request, prepare)
            pending = self._context.service.submit(prepared.request)
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            reply(self._errors.http_response(error))
            return _nothing

        def cancel() -> None:
            pending.cancel()

        pending.add_done_callback(lambda done: reply(self._response(request, prepared, done)))
        return cancel

    def _prepared(self, request: HttpRequest, prepare: Callable[[HttpRequest], _Prepared]) -> _Prepared:
        try:
            return prepare(request)
        except Exception as error:
            seconds = self._context.clock.now_s() - request.arrived_s
            self._context.refused(request.path_params.get("model", ""), error, seconds)
            raise

    def _response(self, request: HttpRequest, prepared: _Prepared, done: Pending) -> HttpResponse:
        try:
            answer = done.result()
            response = prepared.encode(answer)
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._errors.http_response(error)
        if wants_timing(request.headers):
            total_s = self._context.clock.now_s() - request.arrived_s
            response.headers = (*response.headers, ("Server-Timing", server_timing(answer.timing, total_s)))
        return response

    def _prepare_infer(self, request: HttpRequest) -> _Prepared:
        catalog = self._context.catalog
        call = _call(request)
        decoded = decode_request(
            request.body,
            call,
            signature=lambda: catalog.get(call.model_name, call.model_version).signature,
            limits=self._context.limits,
            memo=self._heads,
        )
        meant = version_meant(catalog, decoded.request)
        if meant is not None and meant.signature.decoupled:
            raise Unsupported("HTTP end point doesn't support models with decoupled transaction policy")
        return _Prepared(
            decoded.request,
            lambda answer: encode_response(classified(catalog, decoded.request, answer, meant), decoded.form),
        )

    def _prepare_generate(self, request: HttpRequest) -> _Prepared:
        model, version = model_version(request)
        if self._context.catalog.get(model, version).signature.decoupled:
            msg = f"model '{model}' may answer with any number of responses: use generate_stream"
            raise Unsupported(msg)
        return _Prepared(
            self._decode_generate(request), lambda answer: HttpResponse(200, (generate_json(answer),))
        )

    def _decode_generate(self, request: HttpRequest) -> InferRequest:
        call = _call(request)
        signature = self._context.catalog.get(call.model_name, call.model_version).signature
        return decode_generate(request.body, call, signature, limits=self._context.limits)


def _call(request: HttpRequest) -> HttpInferCall:
    model, version = model_version(request)
    return HttpInferCall(
        model_name=model,
        model_version=version,
        arrived_s=request.arrived_s,
        deadline_s=header_deadline_s(request.headers, request.arrived_s),
        headers=request.headers,
    )


def _nothing() -> None:
    """Cancel nothing: the exchange is over."""
