"""Inference requests over HTTP: JSON, JSON with a binary tail, or one raw tensor, to InferRequest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import simdjson

from gateway.core.errors import InvalidRequest
from gateway.core.types import (
    NO_HEADERS,
    NO_PARAMETERS,
    Datatype,
    InferRequest,
    ModelSignature,
    ParameterValue,
    RequestedOutput,
    Tensor,
)
from gateway.protocol.bytes_tensor import owned_bytes, tensor_bytes
from gateway.protocol.json_data import tensor_from_json
from gateway.protocol.json_members import members_of, parameters_of, shape_of, text_of
from gateway.protocol.json_text import JsonDocument, parse_object
from gateway.protocol.limits import DEFAULT_LIMITS, DecodeContext, check_body_size, check_count, check_name
from gateway.protocol.parameters import (
    NO_REQUEST_PARAMETERS,
    check_unique,
    earlier_deadline,
    refuse_shared_memory,
    requested_output,
    sort_parameters,
)
from gateway.protocol.raw_request import raw_request_tensor
from gateway.protocol.raw_tensor import TensorHead, from_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.calls import Buffer
    from gateway.protocol.head_memo import HeadMemo, KnownHead
    from gateway.protocol.limits import ProtocolLimits

HEADER_LENGTH: Final = "inference-header-content-length"
"""The request header, in lower case, that says how many bytes of the body are JSON."""


def _no_headers() -> Mapping[str, str]:
    return NO_HEADERS


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpInferCall:
    """What the transport knows about one infer call beside its body.

    Attributes:
        model_name: from the path.
        model_version: from the path; empty lets the gateway choose.
        arrived_s: monotonic time of arrival.
        deadline_s: monotonic time the client allows, or None; the `timeout` parameter can only bring it
            forward.
        headers: lower-case names; kept as the request's headers.
        datatypes: as `DecodeContext.datatypes`.
    """

    model_name: str
    model_version: str = ""
    arrived_s: float = 0.0
    deadline_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    datatypes: Mapping[str, Datatype] | None = None


class ReplyForm(NamedTuple):
    """Which outputs the client wants as binary data rather than JSON.

    Attributes:
        binary: of each output the request lists.
        unlisted_binary: of all others.
    """

    binary: Mapping[str, bool]
    unlisted_binary: bool = False

    def is_binary(self, output: str) -> bool:
        """Whether `output` is to be binary."""
        return self.binary.get(output, self.unlisted_binary)


class DecodedRequest(NamedTuple):
    """A request, and how its response is to be written."""

    request: InferRequest
    form: ReplyForm


def decode_request(
    body: Buffer,
    call: HttpInferCall,
    *,
    signature: Callable[[], ModelSignature],
    limits: ProtocolLimits = DEFAULT_LIMITS,
    memo: HeadMemo | None = None,
) -> DecodedRequest:
    """Decode the body of an infer call.

    Args:
        body: the body, content encoding undone. Binary tensors are views over it and keep it alive; it
            must not be written to.
        call: everything else.
        signature: gives the model's signature; called only for a raw binary request, may raise.
        limits: bounds.
        memo: heads of binary requests seen before, under the same `limits`; learns those it can use.

    Raises:
        InvalidRequest: malformed, or it can never be served.
        PayloadTooLarge: beyond a limit; checked before tensors take memory.
        Unsupported: it refers to shared memory.
    """
    context = DecodeContext(call.model_name, limits, call.datatypes)
    check_body_size(len(body), limits)
    check_name("the model's name", call.model_name, context)
    length = header_length(call.headers, len(body), call.model_name)
    if length == 0:
        tensor = raw_request_tensor(body, signature(), context)
        size = len(body) + owned_bytes(tensor)
        return DecodedRequest(_request(call, (tensor,), size), ReplyForm({}, unlisted_binary=True))
    view = memoryview(body).toreadonly()
    text = body if isinstance(body, bytes) and length == len(body) else bytes(view[:length])
    tail = view[length:]
    known = memo.get(text) if memo is not None else None
    if known is not None and known.head.tail_bytes == len(tail):
        return DecodedRequest(from_head(known, view, length, call), known.head.form)
    decoded, timeout_us = _decode_document(parse_object(text, limits), tail, call, context)
    if memo is not None:
        memo.put(text, len(tail), decoded, timeout_us)
    return decoded


def from_head(known: KnownHead, body: Buffer, text_bytes: int, call: HttpInferCall) -> InferRequest:
    """Return what the parser would: the head was decoded before, with as many bytes behind it.

    Args:
        known: what the first `text_bytes` bytes of `body` say.
        body: the body, read-only.
        text_bytes: where the tensors begin.
        call: everything else.
    """
    head = known.head
    return InferRequest(
        model_name=call.model_name,
        model_version=call.model_version,
        request_id=known.request_id,
        inputs=head.tensors(body, text_bytes),
        outputs=head.outputs,
        parameters=head.parameters,
        priority=head.priority,
        deadline_s=earlier_deadline(call.deadline_s, call.arrived_s, head.timeout_us),
        arrived_s=call.arrived_s,
        received_bytes=len(body),
        headers=call.headers,
        kind=head.kind,
    )


def header_length(headers: Mapping[str, str], body_size: int, model: str) -> int:
    """Return how many bytes of the body are JSON: all, or what the header says; 0 marks a raw binary request.

    Raises:
        InvalidRequest: the header is no integer from 0 to `body_size`.
    """
    text = headers.get(HEADER_LENGTH)
    if text is None:
        if not body_size:
            raise InvalidRequest(f"the request for model '{model}' has an empty body")
        return body_size
    # Twenty digits hold every size; more would only make int() work.
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) > body_size:
        msg = (
            f"Inference-Header-Content-Length must be an integer from 0 to {body_size}, the size of the body"
        )
        raise InvalidRequest(f"{msg}; got '{text[:40]}' for model '{model}'")
    return int(text)


def _request(call: HttpInferCall, inputs: tuple[Tensor, ...], size: int) -> InferRequest:
    return InferRequest(
        model_name=call.model_name,
        model_version=call.model_version,
        inputs=inputs,
        deadline_s=call.deadline_s,
        arrived_s=call.arrived_s,
        received_bytes=size,
        headers=call.headers,
    )


def _decode_document(
    document: JsonDocument, tail: memoryview, call: HttpInferCall, context: DecodeContext
) -> tuple[DecodedRequest, int]:
    """Return the request, and the `timeout` parameter in microseconds."""
    root = members_of(document.root, "the request", context)
    parameters = NO_REQUEST_PARAMETERS
    if "parameters" in root:
        values = parameters_of(root["parameters"], "the request", context)
        parameters = sort_parameters(values, context)
    outputs = _outputs(root.get("outputs"), context)
    reader = _Inputs(document, tail, context)
    inputs = reader.read(root.get("inputs"))
    document.check_non_finite(context.model)
    # The whole body stays alive, its JSON part included: by views, and by the exchange.
    request = _request(call, inputs, reader.owned_bytes + memoryview(tail.obj).nbytes)
    request.request_id = text_of(root.get("id", ""), "the id", context)
    request.outputs = outputs
    request.parameters = parameters.others
    request.priority = parameters.priority
    request.deadline_s = earlier_deadline(call.deadline_s, call.arrived_s, parameters.timeout_us)
    # As Triton does, and not as its document says: binary_data_output is for outputs that are not listed.
    binary = {o.name: bool(o.parameters.get("binary_data", False)) for o in outputs}
    decoded = DecodedRequest(request, ReplyForm(binary, parameters.binary_data_output))
    return decoded, parameters.timeout_us


class _Inputs:
    """Reads the inputs of one document; binary ones take their bytes from the tail, one after the other.

    Attributes:
        owned_bytes: memory that tensors take so far beside the body: from JSON, or of BYTES.
    """

    __slots__ = ("_context", "_document", "_position", "_tail", "owned_bytes")

    def __init__(self, document: JsonDocument, tail: memoryview, context: DecodeContext) -> None:
        self._document = document
        self._tail = tail
        self._context = context
        self._position = 0
        self.owned_bytes = 0

    def read(self, inputs: object) -> tuple[Tensor, ...]:
        """Read all of them; every byte of the tail must belong to one."""
        model = self._context.model
        if not isinstance(inputs, simdjson.Array):
            raise InvalidRequest(f"the request for model '{model}' must have an array of 'inputs'")
        check_count("inputs", len(inputs), self._context.limits.max_inputs, self._context)
        tensors = tuple(self._input(item) for item in inputs)
        check_unique("input", [t.name for t in tensors], self._context)
        if self._position != len(self._tail):
            extra = len(self._tail) - self._position
            raise InvalidRequest(f"unexpected additional input data for model '{model}': {extra} bytes")
        return tensors

    def _input(self, item: object) -> Tensor:
        context = self._context
        members = members_of(item, "an input", context)
        name = text_of(members.get("name"), "an input's name", context)
        datatype = text_of(members.get("datatype"), f"the datatype of input '{name}'", context)
        head = TensorHead(name, datatype, shape_of(members.get("shape"), name, context), context)
        size = None
        if "parameters" in members:
            values = parameters_of(members["parameters"], f"input '{name}'", context)
            refuse_shared_memory(values)
            size = values.get("binary_data_size")
        if (size is None) == ("data" not in members):
            msg = "must have exactly one of 'data' and the parameter 'binary_data_size'"
            raise InvalidRequest(f"input '{name}' for model '{context.model}' {msg}")
        if size is not None:
            tensor = from_raw(head, self._take(name, size), context.model)
            self.owned_bytes += owned_bytes(tensor)
            return tensor
        tensor = tensor_from_json(head, members["data"], self._document, context.model)
        self.owned_bytes += tensor_bytes(tensor)
        return tensor

    def _take(self, name: str, size: ParameterValue) -> memoryview:
        """Return the next `size` bytes of the tail."""
        left = len(self._tail) - self._position
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            msg = f"binary_data_size must be an integer from 0 to the {left} bytes left, got {size!r:.40}"
            raise InvalidRequest(
                f"unexpected size for input '{name}' for model '{self._context.model}': {msg}"
            )
        start, self._position = self._position, self._position + size
        return self._tail[start : self._position]


def _outputs(value: object, context: DecodeContext) -> tuple[RequestedOutput, ...]:
    if value is None:
        return ()
    if not isinstance(value, simdjson.Array):
        raise InvalidRequest(f"'outputs' of the request for model '{context.model}' must be an array")
    check_count("outputs", len(value), context.limits.max_outputs, context)
    outputs = tuple(_output(item, context) for item in value)
    check_unique("output", [o.name for o in outputs], context)
    return outputs


def _output(item: object, context: DecodeContext) -> RequestedOutput:
    members = members_of(item, "an output", context)
    name = text_of(members.get("name"), "an output's name", context)
    values: Mapping[str, ParameterValue] = NO_PARAMETERS
    if "parameters" in members:
        values = parameters_of(members["parameters"], f"output '{name}'", context)
    return requested_output(name, values, context)
