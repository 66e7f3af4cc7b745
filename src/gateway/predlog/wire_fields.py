"""Single fields of protobuf messages written by hand, and the one error of everything that is read."""

from __future__ import annotations

import enum
from typing import Final

from gateway.core.errors import GatewayError

_LENGTH_DELIMITED: Final = 2
_MORE: Final = 0x80


class Refused(enum.Enum):
    """Why a frame is refused; what acks and metrics call it."""

    CRC = "crc"
    SCHEMA = "schema"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"


class MalformedFrame(GatewayError):
    """A frame, or its payload, cannot be used; the next one may well be.

    Attributes:
        reason: bounded, for acks and metrics.
    """

    def __init__(self, reason: Refused, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def varint(number: int) -> bytes:
    """Return a number, 0 or greater, as a base-128 varint."""
    data = bytearray()
    while number >= _MORE:
        data.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    data.append(number)
    return bytes(data)


def tag(field: int) -> bytes:
    """Return what stands before a length-delimited field: bytes, text or a message."""
    return varint(field << 3 | _LENGTH_DELIMITED)


def bytes_field(field: int, data: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the parts of a bytes field; none for empty data, as proto3 has it."""
    return [tag(field), varint(len(data)), data] if len(data) else []
