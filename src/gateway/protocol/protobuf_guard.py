"""Bounds what the protobuf runtime would make of large nested messages, before it makes anything of them.

A packed integer takes one byte on the wire and eight in memory, an element of `bytes_contents` two and about
forty, an axis of a shape one and eight. What grows is counted by a look at the wire; what stays within the
bounds of `ProtocolLimits` is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import PayloadTooLarge
from gateway.protocol.limits import check_count, check_rank
from gateway.protocol.protobuf_split import INPUTS, fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.calls import Buffer
    from gateway.protocol.limits import DecodeContext
    from gateway.protocol.protobuf_split import Field

# Fields of an input tensor and of an output asked for.
_SHAPE: Final = 3
_CONTENTS: Final = 5
_INPUT_PARAMETERS: Final = 4
_OUTPUT_PARAMETERS: Final = 2
# Fields of InferTensorContents whose elements take more memory than wire: bytes of memory for each.
_GROWING: Final[Mapping[int, int]] = {2: 4, 3: 8, 4: 4, 5: 8}
_MOST_VARINT: Final = 10
_MOST_FIELDS: Final = 1 << 14
_SHORT: Final = 64
_STRING_TAG: Final = 0x42  # field 8, length-delimited


class NestedGuard:
    """Looks into the large inputs and outputs of one message.

    Args:
        message: the whole message.
        context: bounds.
    """

    def __init__(self, message: Buffer, context: DecodeContext) -> None:
        self._view = memoryview(message)
        self._context = context
        self._bytes_left = context.limits.max_body_bytes

    def check(self, tensors: list[Field]) -> None:
        """Pass, or refuse.

        Raises:
            InvalidRequest: truncated, or with thousands of fields where no client has them.
            PayloadTooLarge: more parameters, axes or elements than allowed, or contents that would take more
                memory than a body may have bytes.
        """
        for tensor in tensors:
            self._check_tensor(tensor)

    def _check_tensor(self, tensor: Field) -> None:
        wanted = _INPUT_PARAMETERS if tensor.number == INPUTS else _OUTPUT_PARAMETERS
        parameters = axes = 0
        for field in fields(self._view, tensor.content, tensor.end, most=_MOST_FIELDS):
            if field.number == wanted and field.delimited:
                parameters += 1
                most = self._context.limits.max_parameters
                check_count("parameters of one tensor", parameters, most, self._context)
            elif tensor.number == INPUTS and field.number == _SHAPE:
                axes += self._axes(field)
                check_rank("?", axes, self._context)
            elif tensor.number == INPUTS and field.number == _CONTENTS and field.delimited:
                self._check_contents(field)

    def _axes(self, shape: Field) -> int:
        """Return how many axes a piece of a shape has: one, or those of a packed list."""
        if not shape.delimited:
            return 1
        size = shape.end - shape.content
        # Each takes ten bytes at most: a longer list has too many, whatever they are.
        least = -(-size // _MOST_VARINT)
        return least if size > _MOST_VARINT * self._context.limits.max_rank else self._varints(shape)

    def _check_contents(self, contents: Field) -> None:
        # Elements that are fields of their own are those of BYTES; every client packs the others.
        most = self._context.limits.max_bytes_elements
        count, position, end = 0, contents.content, contents.end
        while position < end:
            strings, position = _short_strings(self._view, position, end, most + 1 - count)
            count += strings
            if position < end:
                field = next(fields(self._view, position, end, most=1))
                position = field.end
                count += 1
                self._charge_list(field)
            check_count("elements in typed contents", count, most, self._context)

    def _charge_list(self, field: Field) -> None:
        width = _GROWING.get(field.number, 0)
        if width:
            self._charge(width * self._varints(field) if field.delimited else width)

    def _charge(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            most = self._context.limits.max_body_bytes
            msg = f"has typed contents of more than {most} bytes; send raw_input_contents"
            raise PayloadTooLarge(f"request for model '{self._context.model}' {msg}")

    def _varints(self, field: Field) -> int:
        """Return how many integers a packed list has; of a short one, how many it could have."""
        size = field.end - field.content
        if size <= _SHORT and field.number != _SHAPE:
            return size
        octets = np.frombuffer(self._view[field.content : field.end], np.uint8)
        return int(np.count_nonzero(octets < 0x80))


def _short_strings(view: memoryview, position: int, end: int, most: int) -> tuple[int, int]:
    """Skip up to `most` elements of `bytes_contents` below 128 bytes; return how many, and where they end.

    The one loop that runs for each element, without a call in it.
    """
    count = 0
    while count < most and position + 1 < end and view[position] == _STRING_TAG:
        length = view[position + 1]
        if length > 0x7F or position + 2 + length > end:
            break
        position += 2 + length
        count += 1
    return count, position
