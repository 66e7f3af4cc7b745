"""Inference over gRPC: ModelInferRequest to InferRequest, InferResponse to ModelInferResponse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from gateway._proto import open_inference_pb2 as pb
from gateway.core.errors import InvalidRequest, PayloadTooLarge
from gateway.core.types import (
    NO_HEADERS,
    NO_PARAMETERS,
    Datatype,
    InferRequest,
    ParameterValue,
    RequestedOutput,
    Tensor,
)
from gateway.protocol.bytes_tensor import from_values, object_array, tensor_bytes
from gateway.protocol.limits import DEFAULT_LIMITS, DecodeContext, check_body_size, check_count, check_name
from gateway.protocol.message_memo import ResponseHeads
from gateway.protocol.parameters import (
    FINAL_RESPONSE,
    check_text,
    check_unique,
    earlier_deadline,
    refuse_shared_memory,
    requested_output,
    sort_parameters,
)
from gateway.protocol.protobuf_guard import NestedGuard
from gateway.protocol.protobuf_split import malformed, split
from gateway.protocol.raw_tensor import TensorHead, from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.core.calls import Buffer
    from gateway.core.types import Array, InferResponse
    from gateway.protocol.limits import ProtocolLimits

# From here on two copies of the tensors cost more than walking the top level in Python (about 9 us).
LARGE_BYTES: Final = 64 << 10
"""Messages from this size on are split before they are parsed."""
_MAX_MESSAGE_BYTES: Final = (1 << 31) - 1
_BYTES: Final = Datatype.BYTES  # looked up once: the lookup in the enumeration costs more than the rest
_INT64_MAX: Final = (1 << 63) - 1
_RAW_OUTPUT_TAG: Final = b"\x32"  # field 6, length-delimited
_INFER_RESPONSE_TAG: Final = b"\x12"  # field 2 of ModelStreamInferResponse

# The one list of InferTensorContents that each datatype's elements travel in; the others must be raw.
_CONTENTS_OF: Final[Mapping[Datatype, str]] = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}


def decode_request(
    message: Buffer,
    *,
    arrived_s: float,
    deadline_s: float | None = None,
    metadata: Mapping[str, str] = NO_HEADERS,
    limits: ProtocolLimits = DEFAULT_LIMITS,
) -> InferRequest:
    """Decode a serialised ModelInferRequest.

    Args:
        message: the message. Tensors of a large one are views over it and keep it alive; it must not be
            written to.
        arrived_s: monotonic time of arrival.
        deadline_s: monotonic time of the call's deadline, or None; the `timeout` parameter (microseconds
            from arrival) can only bring it forward.
        metadata: kept as the request's headers.
        limits: bounds.

    Raises:
        InvalidRequest: the bytes are no such message, or it can never be served.
        PayloadTooLarge: beyond a limit; checked before tensors take memory.
        Unsupported: it refers to shared memory.
    """
    check_body_size(len(message), limits)
    arrival = Arrival(arrived_s, deadline_s, metadata)
    if len(message) >= LARGE_BYTES:
        return LargeRequest(message, limits).decode(arrival)
    request = _parse(message)
    context = DecodeContext(request.model_name, limits)
    return _decoded(request, request.raw_input_contents, arrival, context, len(message))


class Arrival(NamedTuple):
    """What the transport knows about a call beside its message; as in `decode_request`."""

    arrived_s: float
    deadline_s: float | None
    metadata: Mapping[str, str]


class LargeRequest:
    """A large message cut into its parts, which takes microseconds; `decode` may take seconds.

    Args:
        message: as in `decode_request`.
        limits: bounds.

    Attributes:
        size: of the message.
        parts: whom it is for, its raw tensors, and the head, which is all that will be parsed.

    Raises:
        InvalidRequest: the bytes are no ModelInferRequest.
        PayloadTooLarge: beyond a limit.
    """

    __slots__ = ("_limits", "_message", "parts", "size")

    def __init__(self, message: Buffer, limits: ProtocolLimits = DEFAULT_LIMITS) -> None:
        check_body_size(len(message), limits)
        self._message = message
        self._limits = limits
        self.size = len(message)
        # The model's name is not known yet: it is inside.
        self.parts = split(message, DecodeContext("?", limits))

    def decode(self, arrival: Arrival, datatypes: Mapping[str, Datatype] | None = None) -> InferRequest:
        """Decode, on any thread; raises as `decode_request`.

        Args:
            arrival: what the transport knows.
            datatypes: as `DecodeContext.datatypes`.
        """
        parts = self.parts
        context = DecodeContext(parts.model_name, self._limits, datatypes)
        if parts.nested:
            NestedGuard(self._message, context).check(parts.nested)
        return _decoded(_parse(parts.head), parts.raw, arrival, context, self.size)


def _parse(message: Buffer) -> pb.ModelInferRequest:
    try:
        return pb.ModelInferRequest.FromString(bytes(message))
    except DecodeError as exc:
        raise malformed() from exc


def _decoded(
    request: pb.ModelInferRequest, raw: Sequence[Buffer], arrival: Arrival, context: DecodeContext, size: int
) -> InferRequest:
    check_name("the model's name", request.model_name, context)
    values = _parameters(request.parameters, context) if request.parameters else {}
    sorted_ = sort_parameters(values, context)
    inputs = _inputs(request.inputs, raw, context)
    return InferRequest(
        model_name=request.model_name,
        model_version=check_name("the version", request.model_version, context),
        request_id=check_name("the id", request.id, context),
        inputs=inputs,
        outputs=_outputs(request.outputs, context) if request.outputs else (),
        parameters=sorted_.others,
        priority=sorted_.priority,
        deadline_s=earlier_deadline(arrival.deadline_s, arrival.arrived_s, sorted_.timeout_us),
        arrived_s=arrival.arrived_s,
        received_bytes=size + _owned_bytes(inputs, raw),
        headers=arrival.metadata,
    )


def _inputs(
    inputs: Sequence[pb.ModelInferRequest.InferInputTensor], raw: Sequence[Buffer], context: DecodeContext
) -> tuple[Tensor, ...]:
    check_count("inputs", len(inputs), context.limits.max_inputs, context)
    if len(inputs) == len(raw):
        tensors = tuple([_raw_input(tensor, raw[i], context) for i, tensor in enumerate(inputs)])
    elif raw:
        _refuse_shared_memory_of(inputs)
        msg = (
            f"expected one raw_input_contents entry for each of the {len(inputs)} inputs for model "
            f"'{context.model}', got {len(raw)}: unable to match data to input tensors"
        )
        raise InvalidRequest(msg)
    else:
        tensors = tuple([_typed_input(tensor, context) for tensor in inputs])
    if len(tensors) > 1:
        check_unique("input", [t.name for t in tensors], context)
    return tensors


def _owned_bytes(inputs: Iterable[Tensor], raw: Sequence[Buffer]) -> int:
    """Return the memory of tensors beside the message: raw ones are views of it, those of BYTES aside."""
    owned = 0
    for tensor in inputs:
        if tensor.datatype is _BYTES or not raw:
            owned += tensor_bytes(tensor)
    return owned


def _refuse_shared_memory_of(inputs: Iterable[pb.ModelInferRequest.InferInputTensor]) -> None:
    """Name shared memory as the cause where it is one: such inputs have no raw entry."""
    for tensor in inputs:
        if "shared_memory_region" in tensor.parameters:
            refuse_shared_memory({"shared_memory_region": ""})


def _head(tensor: pb.ModelInferRequest.InferInputTensor, context: DecodeContext) -> TensorHead:
    if tensor.parameters:
        refuse_shared_memory(_parameters(tensor.parameters, context))
    return TensorHead(tensor.name, tensor.datatype, tensor.shape, context)


def _raw_input(tensor: pb.ModelInferRequest.InferInputTensor, raw: Buffer, context: DecodeContext) -> Tensor:
    if tensor.HasField("contents"):
        msg = f"contents field must not be specified when using raw_input_contents for '{tensor.name}'"
        raise InvalidRequest(f"{msg} for model '{context.model}'")
    return from_raw(_head(tensor, context), raw, context.model)


def _typed_input(tensor: pb.ModelInferRequest.InferInputTensor, context: DecodeContext) -> Tensor:
    head = _head(tensor, context)
    if not tensor.HasField("contents") and head.count:
        raise InvalidRequest(
            f"unable to find data for input tensor '{head.name}' for model '{context.model}' in request"
        )
    array = _typed_array(head, tensor.contents, context)
    array.flags.writeable = False
    return Tensor(head.name, head.datatype, array.reshape(head.shape))


def _typed_array(head: TensorHead, contents: pb.InferTensorContents, context: DecodeContext) -> Array:
    """Return the elements as a 1-D array of their own."""
    where = f"input '{head.name}' for model '{context.model}'"
    field = _CONTENTS_OF.get(head.datatype)
    if field is None:
        raise InvalidRequest(f"{head.datatype.value} data of {where} must be sent as raw_input_contents")
    filled = [f.name for f, _ in contents.ListFields()]
    if filled and filled != [field]:
        raise InvalidRequest(
            f"{where}: expected {head.datatype.value} data in '{field}', got {', '.join(filled)}"
        )
    values: Sequence[Any] = getattr(contents, field)
    if len(values) != head.count:
        raise InvalidRequest(
            f"{where}: shape {list(head.shape)} expects {head.count} elements, got {len(values)}"
        )
    if head.datatype is Datatype.BYTES:
        return object_array(values)
    return _narrow(from_values(values, _wire_dtype(head.datatype), head.count), head.datatype, where)


def _wire_dtype(datatype: Datatype) -> np.dtype[Any]:
    """Return the dtype that holds every value of the datatype's list: 8 and 16 bits travel as 32."""
    if datatype in {Datatype.INT8, Datatype.INT16}:
        return np.dtype(np.int32)
    return np.dtype(np.uint32) if datatype in {Datatype.UINT8, Datatype.UINT16} else datatype.dtype


def _narrow(values: Array, datatype: Datatype, where: str) -> Array:
    """Convert to the datatype's own width.

    Raises:
        InvalidRequest: a value does not fit; wrapped around, it would be another value.
    """
    if values.dtype == datatype.dtype:
        return values
    narrow = values.astype(datatype.dtype)
    if not np.array_equal(narrow, values):
        raise InvalidRequest(f"{where}: a value is out of range for {datatype.value}")
    return narrow


def _outputs(
    outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor], context: DecodeContext
) -> tuple[RequestedOutput, ...]:
    check_count("outputs", len(outputs), context.limits.max_outputs, context)
    asked = tuple([_output(output, context) for output in outputs])
    if len(asked) > 1:
        check_unique("output", [o.name for o in asked], context)
    return asked


def _output(
    output: pb.ModelInferRequest.InferRequestedOutputTensor, context: DecodeContext
) -> RequestedOutput:
    values = _parameters(output.parameters, context) if output.parameters else NO_PARAMETERS
    return requested_output(output.name, values, context)


def _parameters(
    parameters: Mapping[str, pb.InferParameter], context: DecodeContext
) -> dict[str, ParameterValue]:
    check_count("parameters", len(parameters), context.limits.max_parameters, context)
    values: dict[str, ParameterValue] = {}
    for key, parameter in parameters.items():
        check_name("a parameter's key", key, context)
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"parameter '{key}' for model '{context.model}' has no value")
        value: ParameterValue = getattr(parameter, choice)
        values[key] = check_text(key, value, context) if isinstance(value, str) else value
    return values


def response_heads() -> ResponseHeads:
    """Return an empty memory for `encode_response`."""
    return ResponseHeads(_response_head, _raw_head)


def encode_response(response: InferResponse, heads: ResponseHeads | None = None) -> bytes:
    """Serialise a ModelInferResponse, always with raw_output_contents.

    Protobuf builds all but the raw contents, which are its last field: they are put behind it, so that each
    output is copied once.

    Args:
        response: the answer.
        heads: heads of responses written before.

    Raises:
        PayloadTooLarge: more than the 2 GiB a message may have.
    """
    if heads is not None and (known := heads.message(response)) is not None:
        return known
    parts: list[Buffer] = [_response_head(response)]
    for tensor in response.outputs:
        raw = to_raw(tensor)
        parts += (_raw_head(len(raw)), raw)
    if sum(map(len, parts)) > _MAX_MESSAGE_BYTES:
        raise PayloadTooLarge(
            f"the response of model '{response.model_name}' exceeds the 2 GiB a message may have"
        )
    return b"".join(parts)


def _response_head(response: InferResponse) -> bytes:
    """Serialise all but the raw contents."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.request_id
    )
    if response.parameters:
        _set_parameters(message.parameters, response.parameters)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.array.shape)
    return message.SerializeToString()


def _raw_head(nbytes: int) -> bytes:
    """Return what is before a raw tensor of so many bytes."""
    return _RAW_OUTPUT_TAG + _varint(nbytes)


def encode_stream_response(response: InferResponse) -> bytes:
    """Serialise a ModelStreamInferResponse that carries `response`; raises as `encode_response`."""
    message = encode_response(response)
    return b"".join((_INFER_RESPONSE_TAG, _varint(len(message)), message))


def encode_stream_error(error_message: str, request_id: str) -> bytes:
    """Serialise a ModelStreamInferResponse that tells of one request's failure; the stream lives on.

    It is marked as the request's last, as every answer to one is.
    """
    answer = pb.ModelStreamInferResponse(error_message=error_message)
    answer.infer_response.id = request_id
    answer.infer_response.parameters[FINAL_RESPONSE].bool_param = True
    return answer.SerializeToString()


def _set_parameters(target: Mapping[str, pb.InferParameter], values: Mapping[str, ParameterValue]) -> None:
    for key, value in values.items():
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, str):
            target[key].string_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        elif value > _INT64_MAX:
            target[key].uint64_param = value
        else:
            target[key].int64_param = value


def _varint(value: int) -> bytes:
    """Encode a length."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
