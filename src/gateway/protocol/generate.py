"""The generate extension: a JSON object of plain values to an InferRequest by the signature, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import orjson
import simdjson

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, InferRequest, Tensor
from gateway.protocol.bytes_tensor import tensor_bytes
from gateway.protocol.json_data import read_elements
from gateway.protocol.json_members import members_of, scalars_of, text_of
from gateway.protocol.json_response import data_json
from gateway.protocol.json_text import parse_object
from gateway.protocol.limits import (
    DEFAULT_LIMITS,
    DecodeContext,
    check_body_size,
    check_bytes_count,
    element_count,
)
from gateway.protocol.parameters import earlier_deadline, sort_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.calls import Buffer
    from gateway.core.types import InferResponse, ModelSignature, TensorSpec
    from gateway.protocol.json_infer import HttpInferCall
    from gateway.protocol.json_text import JsonDocument
    from gateway.protocol.limits import ProtocolLimits

_PARAMETERS: Final = "parameters"
_ID: Final = "id"


def decode_generate(
    body: Buffer, call: HttpInferCall, signature: ModelSignature, *, limits: ProtocolLimits = DEFAULT_LIMITS
) -> InferRequest:
    """Decode the body of a generate call.

    A member with the name of an input is its tensor: a value alone or an array of any nesting. Fixed axes
    are as in the signature, the last variable axis takes the elements left, other variable axes are 1.
    `id` is the request's id, if no input is called so; every other member is a request parameter, and those
    of an object `parameters` are treated alike.

    Raises:
        InvalidRequest: malformed, or it can never be served.
        PayloadTooLarge: beyond a limit.
    """
    check_body_size(len(body), limits)
    context = DecodeContext(call.model_name, limits)
    if not len(body):
        raise InvalidRequest(f"the generate request for model '{call.model_name}' has an empty body")
    document = parse_object(bytes(body), limits)
    members = _flattened(members_of(document.root, "the generate request", context), signature, context)
    specs = {spec.name: spec for spec in signature.inputs}
    inputs = tuple(
        _tensor(spec, members.pop(spec.name), document, context)
        for spec in specs.values()
        if spec.name in members
    )
    document.check_non_finite(call.model_name)
    request_id = text_of(members.pop(_ID, ""), "the id", context)
    parameters = sort_parameters(scalars_of(members, context), context)
    return InferRequest(
        model_name=call.model_name,
        model_version=call.model_version,
        request_id=request_id,
        inputs=inputs,
        parameters=parameters.others,
        priority=parameters.priority,
        deadline_s=earlier_deadline(call.deadline_s, call.arrived_s, parameters.timeout_us),
        arrived_s=call.arrived_s,
        received_bytes=len(body) + sum(map(tensor_bytes, inputs)),
        headers=call.headers,
    )


def _flattened(
    members: Mapping[str, object], signature: ModelSignature, context: DecodeContext
) -> dict[str, object]:
    """Return the members with those of `parameters` beside them."""
    flat = dict(members)
    if _PARAMETERS not in flat or any(spec.name == _PARAMETERS for spec in signature.inputs):
        return flat
    nested = members_of(flat.pop(_PARAMETERS), "'parameters'", context)
    twice = sorted(flat.keys() & nested.keys())
    if twice:
        raise InvalidRequest(f"generate request for model '{context.model}' has member '{twice[0]}' twice")
    return flat | nested


def _tensor(spec: TensorSpec, value: object, document: JsonDocument, context: DecodeContext) -> Tensor:
    """Read one input and give its elements the shape that the signature leaves them."""
    where = f"input '{spec.name}' for model '{context.model}'"
    data = value if isinstance(value, simdjson.Array) else _alone(value, where)
    is_bytes = spec.datatype is Datatype.BYTES
    most = context.limits.max_bytes_elements if is_bytes else context.limits.max_tensor_elements
    array = read_elements(spec.datatype, data, document, where, most=most)
    if is_bytes:
        check_bytes_count(spec.name, array.size, context)
    shape = _shape(spec, array.size, where)
    element_count(spec.name, shape, context)
    array.flags.writeable = False
    return Tensor(spec.name, spec.datatype, array.reshape(shape))


def _alone(value: object, where: str) -> simdjson.Array:
    """Return the array that has `value` as its only element, so that there is one way to read data."""
    if not isinstance(value, bool | int | float | str):
        raise InvalidRequest(f"{where} must be a boolean, a number, a string or an array of one of them")
    array = simdjson.Parser().parse(orjson.dumps([value]))
    assert isinstance(array, simdjson.Array)
    return array


def _shape(spec: TensorSpec, elements: int, where: str) -> tuple[int, ...]:
    """Return the signature's shape, its last variable axis taking the elements left, others 1."""
    fixed = math.prod(size for size in spec.shape if size >= 0)
    variable = [axis for axis, size in enumerate(spec.shape) if size < 0]
    if fixed == 0 or elements % fixed or (not variable and elements != fixed):
        raise InvalidRequest(f"the data of {where}: {elements} elements do not fill shape {list(spec.shape)}")
    left = {variable[-1]: elements // fixed} if variable else {}
    return tuple(left.get(axis, 1) if size < 0 else size for axis, size in enumerate(spec.shape))


def generate_json(response: InferResponse) -> bytes:
    """Return a response as one JSON object: each output under its name, a value alone if it has one element.

    Arrays are flat. Response parameters are not sent.

    Raises:
        InvalidRequest: a BYTES output is not valid UTF-8.
    """
    members = {"id": response.request_id} if response.request_id else {}
    members |= {"model_name": response.model_name, "model_version": response.model_version}
    outputs = [_output(tensor, response.model_name) for tensor in response.outputs]
    return b"%b}" % b",".join([orjson.dumps(members)[:-1], *outputs])


def _output(tensor: Tensor, model: str) -> bytes:
    data = data_json(tensor, model)
    value = data[1:-1] if tensor.array.size == 1 else data
    return b"%b:%b" % (orjson.dumps(tensor.name), value)
