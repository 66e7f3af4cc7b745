"""The outermost level of Triton's messages, so that large tensors are copied once on the way out, never in.

The protobuf runtime copies every `bytes` field twice: into or out of the message, and when it serialises or
parses. The raw contents of tensors are fields of the top level. In a request they are put behind a head that
protobuf wrote; in a response they are found by walking that level, and the rest is left to protobuf.
Measured with 1 MiB each way over loopback: 0.9 ms of processor time a call, against 1.5 by InferInput of
tritonclient; with 280 bytes, 0.24 ms against 0.31.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.calls import Buffer

_RAW_INPUT_TAG: Final = b"\x3a"
"""Field 7 of ModelInferRequest, length-delimited."""
_RAW_OUTPUT: Final = 6
"""Field of ModelInferResponse."""


class Malformed(ValueError):
    """The bytes are no such message."""


def with_raw(head: bytes, raw: Iterable[Buffer]) -> bytes:
    """Return a ModelInferRequest of `head` and the raw contents of its inputs; one copy of each."""
    parts: list[Buffer] = [head]
    for content in raw:
        parts += (_RAW_INPUT_TAG, _varint_of(len(content)), content)
    return b"".join(parts)


def cut(message: bytes) -> tuple[bytes, list[memoryview]]:
    """Cut a ModelInferResponse into the message without raw contents, and views of these in order.

    Raises:
        Malformed: it is no protobuf message.
    """
    view = memoryview(message)
    head, raw = bytearray(), list[memoryview]()
    position = copied = 0
    while position < len(view):
        begin = position
        tag, position = _varint(view, position)
        content = position
        if tag & 7 == 2:
            length, content = _varint(view, position)
            position = content + length
        elif tag & 7 == 0:
            _, position = _varint(view, position)
        else:
            raise Malformed("a field of a kind that these messages do not have")
        if position > len(view):
            raise Malformed("it is cut off")
        if tag >> 3 == _RAW_OUTPUT and tag & 7 == 2:
            head += view[copied:begin]
            copied = position
            raw.append(view[content:position])
    head += view[copied:]
    return bytes(head), raw


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view) and shift < 64:
        octet = view[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise Malformed("a number is cut off")


def _varint_of(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
