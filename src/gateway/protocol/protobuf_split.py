"""Cuts a large ModelInferRequest into its head and views of its raw tensors, so that none is copied.

The protobuf runtime copies every `bytes` field twice: into the message, and out of it. The raw contents are
top-level fields, so that walking the top level finds them without parsing anything else. The walk also counts
what protobuf would build an object for (an empty input takes two bytes on the wire and about a hundred in
memory) before it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest
from gateway.protocol.limits import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.calls import Buffer
    from gateway.protocol.limits import DecodeContext

# Fields of ModelInferRequest, and of its input tensors.
_PARAMETERS: Final = 4
_INPUTS: Final = 5
_OUTPUTS: Final = 6
_RAW: Final = 7
_INPUT_PARAMETERS: Final = 4
_OUTPUT_PARAMETERS: Final = 2
# Below this a nested message is parsed without a look inside: what it can blow up to is small.
_SMALL: Final = 4096


class SplitRequest(NamedTuple):
    """A message in two parts.

    Attributes:
        head: everything but the raw contents, itself a serialised ModelInferRequest.
        raw: read-only views of the raw contents in the received message, in order.
    """

    head: bytes
    raw: list[memoryview]


class _Field(NamedTuple):
    number: int
    begin: int
    content: int
    end: int
    delimited: bool


def split(message: Buffer, context: DecodeContext) -> SplitRequest:
    """Cut `message`; the views keep it alive.

    Raises:
        InvalidRequest: the bytes are no protobuf message.
        PayloadTooLarge: more inputs, outputs, raw contents or parameters than allowed.
    """
    view = memoryview(message).toreadonly()
    head, raw, counts = bytearray(), list[memoryview](), [0] * (_RAW + 1)
    copied = 0
    for field in _fields(view, 0, len(view)):
        # A known number with another wire type is an unknown field to protobuf, and stays in the head.
        if field.number > _RAW or not field.delimited:
            continue
        counts[field.number] += 1
        _check_counts(field.number, counts, context)
        if field.number == _RAW:
            head += view[copied : field.begin]
            copied = field.end
            raw.append(view[field.content : field.end])
        elif field.number in {_INPUTS, _OUTPUTS} and field.end - field.content > _SMALL:
            _check_tensor(view, field, context)
    head += view[copied:]
    return SplitRequest(bytes(head), raw)


def _check_counts(number: int, counts: list[int], context: DecodeContext) -> None:
    limits = context.limits
    if number == _PARAMETERS:
        check_count("parameters", counts[number], limits.max_parameters, context)
    elif number == _INPUTS:
        check_count("inputs", counts[number], limits.max_inputs, context)
    elif number == _OUTPUTS:
        check_count("outputs", counts[number], limits.max_outputs, context)
    elif number == _RAW:
        check_count("raw input contents", counts[number], limits.max_inputs, context)


def _check_tensor(view: memoryview, tensor: _Field, context: DecodeContext) -> None:
    """Count the parameters of one input or output."""
    wanted = _INPUT_PARAMETERS if tensor.number == _INPUTS else _OUTPUT_PARAMETERS
    most, count = context.limits.max_parameters, 0
    for field in _fields(view, tensor.content, tensor.end):
        if field.number == wanted and field.delimited:
            count += 1
            check_count("parameters of one tensor", count, most, context)


def _fields(view: memoryview, position: int, end: int) -> Iterator[_Field]:
    """Walk the fields of one message level, without a look into nested ones.

    Raises:
        InvalidRequest: truncated, or a wire type that these messages do not use (groups).
    """
    while position < end:
        begin = position
        tag, position = _varint(view, position, end)
        kind = tag & 7
        content = position
        if kind == 2:
            length, content = _varint(view, position, end)
            position = content + length
        elif kind == 0:
            _, position = _varint(view, position, end)
        elif kind in {1, 5}:
            position += 8 if kind == 1 else 4
        else:
            raise malformed()
        if position > end or tag < 8:
            raise malformed()
        yield _Field(tag >> 3, begin, content, position, kind == 2)


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    """Return a varint and the position behind it."""
    value = shift = 0
    while position < end and shift < 70:
        octet = view[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise malformed()


def malformed() -> InvalidRequest:
    """Return the error for bytes that are no ModelInferRequest."""
    return InvalidRequest("the message is truncated or is no ModelInferRequest")
