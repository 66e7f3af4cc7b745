"""Cuts a large ModelInferRequest into its head and views of its raw tensors, so that none is copied.

The protobuf runtime copies every `bytes` field twice: into the message, and out of it. The raw contents are
top-level fields, so that walking the top level finds them without parsing anything else; whom the request is
for is found on the way. What protobuf would build objects for is counted before they are built: here, and
below the top level by `gateway.protocol.protobuf_guard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest
from gateway.protocol.limits import check_count, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.calls import Buffer
    from gateway.protocol.limits import DecodeContext

# Fields of ModelInferRequest.
_NAME: Final = 1
_VERSION: Final = 2
_ID: Final = 3
_PARAMETERS: Final = 4
INPUTS: Final = 5
OUTPUTS: Final = 6
_RAW: Final = 7
# Below this a nested message is parsed without a look inside: what it can blow up to is small.
_SMALL: Final = 4096
# A field costs a microsecond to walk over; without a bound, unknown ones of two bytes would cost a minute.
_MOST_FIELDS: Final = 1 << 14


class SplitRequest(NamedTuple):
    """A message in two parts.

    Attributes:
        head: everything but the raw contents, itself a serialised ModelInferRequest.
        raw: read-only views of the raw contents in the received message, in order.
        model_name: as in the head.
        model_version: likewise.
        request_id: likewise.
        nested: the large inputs and outputs in the received message, not looked into.
    """

    head: bytes
    raw: list[memoryview]
    model_name: str
    model_version: str
    request_id: str
    nested: list[Field]


class Field(NamedTuple):
    """Where a field lies: its tag, its content, its end; `delimited` when its content has a length."""

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
    nested, texts, copied = list[Field](), {_NAME: "", _VERSION: "", _ID: ""}, 0
    for field in fields(view, 0, len(view), most=_MOST_FIELDS):
        # A known number with another wire type is an unknown field to protobuf, and stays in the head.
        if field.number > _RAW or not field.delimited:
            continue
        counts[field.number] += 1
        _check_counts(field.number, counts, context)
        if field.number == _RAW:
            head += view[copied : field.begin]
            copied = field.end
            raw.append(view[field.content : field.end])
        elif field.number in texts:
            texts[field.number] = _text(view, field, context)
        elif field.number != _PARAMETERS and field.end - field.content > _SMALL:
            nested.append(field)
    head += view[copied:]
    return SplitRequest(bytes(head), raw, texts[_NAME], texts[_VERSION], texts[_ID], nested)


def _text(view: memoryview, field: Field, context: DecodeContext) -> str:
    """Return a text; one that is not UTF-8 is the parser's to refuse."""
    if field.end - field.content > context.limits.max_name_bytes:
        check_name("a name or id", "?" * (field.end - field.content), context)
    return str(view[field.content : field.end], "utf-8", "replace")


def _check_counts(number: int, counts: list[int], context: DecodeContext) -> None:
    limits = context.limits
    if number == _PARAMETERS:
        check_count("parameters", counts[number], limits.max_parameters, context)
    elif number == INPUTS:
        check_count("inputs", counts[number], limits.max_inputs, context)
    elif number == OUTPUTS:
        check_count("outputs", counts[number], limits.max_outputs, context)
    elif number == _RAW:
        check_count("raw input contents", counts[number], limits.max_inputs, context)


def fields(view: memoryview, position: int, end: int, *, most: int) -> Iterator[Field]:
    """Walk the fields of one message level, without a look into nested ones.

    Raises:
        InvalidRequest: truncated, more than `most` fields, or a wire type that these messages do not use
            (groups).
    """
    left = most
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
        left -= 1
        if left < 0:
            raise InvalidRequest(f"the message has more than {most} fields in one place")
        yield Field(tag >> 3, begin, content, position, kind == 2)


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
