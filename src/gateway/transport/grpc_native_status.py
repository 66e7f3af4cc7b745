"""gRPC's answers as HTTP/2 field blocks: response heads, trailers, statuses (gRPC over HTTP/2, Responses)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.core.calls import RpcStatus

if TYPE_CHECKING:
    from gateway.core.calls import Headers

CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

INTERNAL_ERROR: Final = RpcStatus(INTERNAL, "internal error")

# Clients accept 8 KiB of trailing metadata by default; the other half is for the trailers themselves.
_MAX_MESSAGE_BYTES: Final = 4096
_NAMES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
    *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
_KNOWN_CODES: Final = range(len(_NAMES))
_NAME: Final = re.compile(r"[0-9a-z_.\-]+").fullmatch
_PUSHBACK: Final = "grpc-retry-pushback-ms"
"""The only one of gRPC's own names that a status carries beside its own fields (gRFC A6, server pushback)."""
_VALUE: Final = re.compile(r"[\x20-\x7e]*").fullmatch

# Indexed fields and names of the static table (RFC 7541 appendix A).
_STATUS_200: Final = b"\x88"
_STATUS_NAME: Final = b"\x08"
_CONTENT_TYPE_NAME: Final = b"\x0f\x10"
_LITERAL_NAME: Final = b"\x00"


def code_name(code: int) -> str:
    """Return the name of a status; `UNKNOWN` for one that gRPC does not have."""
    return _NAMES[code if code in _KNOWN_CODES else UNKNOWN]


def _integer(value: int) -> bytes:
    """Encode a string's length: seven bits, no Huffman coding (RFC 7541 sections 5.1 and 5.2)."""
    if value < 0x7F:
        return bytes((value,))
    octets = bytearray(b"\x7f")
    value -= 0x7F
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _string(text: bytes) -> bytes:
    return _integer(len(text)) + text


def field(name: str, value: str) -> bytes:
    """Return one field as a literal that is not indexed, so that no state is shared with the client."""
    return _LITERAL_NAME + _string(name.encode("ascii")) + _string(value.encode("ascii"))


_GRPC_CONTENT: Final = _CONTENT_TYPE_NAME + _string(b"application/grpc")

RESPONSE_HEAD: Final = _STATUS_200 + _GRPC_CONTENT
OK_TRAILERS: Final = field("grpc-status", "0")
ACCEPTED_ENCODINGS: Final = "identity,deflate,gzip"


@lru_cache(maxsize=4)
def response_head(encoding: str) -> bytes:
    """Return the head of a response whose messages are compressed with `encoding`."""
    return RESPONSE_HEAD + field("grpc-encoding", encoding)


def http_refusal(status: int) -> bytes:
    """Return the only block of an answer to what is no gRPC request."""
    return _STATUS_NAME + _string(b"%d" % status)


def metadata_block(metadata: Headers) -> bytes:
    """Return metadata as fields.

    Raises:
        ValueError: a name or value cannot be sent.
    """
    fields = []
    for name, value in metadata:
        reserved = name.startswith("grpc-") and name != _PUSHBACK
        if reserved or _NAME(name) is None or _VALUE(value) is None:
            raise ValueError(f"metadata {name!r} cannot be sent")
        fields.append(field(name, value))
    return b"".join(fields)


def ok_trailers(metadata: Headers) -> bytes:
    """Return the trailers of a call that succeeded; raises as `metadata_block`."""
    return OK_TRAILERS + metadata_block(metadata)


def status_trailers(status: RpcStatus) -> bytes:
    """Return the trailers of a call that failed; raises as `metadata_block`."""
    code = status.code if status.code in _KNOWN_CODES else UNKNOWN
    trailers = field("grpc-status", str(code)) + field("grpc-message", percent_encoded(status.message))
    return trailers + metadata_block(status.metadata)


def percent_encoded(text: str) -> str:
    """Return as much of `text` as a status may hold, encoded as Status-Message must be."""
    size = 0
    kept: list[str] = []
    for character in text:
        encoded = character
        if not " " <= character <= "~" or character == "%":
            encoded = "".join(f"%{octet:02X}" for octet in character.encode("utf-8", "replace"))
        size += len(encoded)
        if size > _MAX_MESSAGE_BYTES:
            break
        kept.append(encoded)
    return "".join(kept)
