"""Heads of gRPC requests and of their answers, as a client writes and reads them (gRPC over HTTP/2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from gateway.transport.grpc_native_status import field, metadata_block
from gateway.transport.http2.errors import MalformedRequest
from gateway.transport.http2.fields import FieldNames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.calls import Headers
    from gateway.transport.http2.hpack_decoder import DecodedBlock

_FIRST_DYNAMIC: Final = 62  # RFC 7541 section 2.3.3
_INDEXED: Final = 0x80  # section 6.1
_INSERTED: Final = b"\x40"  # section 6.2.1, with a new name
_SIZE_UPDATE: Final = 0x20  # section 6.3
_SHORT: Final = 0x1F  # the largest size that its first octet holds is below this
_POST: Final = b"\x83"  # of the static table
_SCHEMES: Final = {"http": b"\x86", "https": b"\x87"}
_TABLE_BYTES: Final = 4096

_LARGEST_TIMEOUT: Final = 99_999_999  # eight digits
_OWN: Final = frozenset({"grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding"})
_SHOWN: Final = 100


class RequestHeads:
    """Writes the heads of one connection's requests.

    What all of them have is put into the server's HPACK table by the first: later ones name it by one octet
    each, which the server need not parse either. Nothing else is ever put there, so its indexes stay.

    Args:
        scheme: `http` or `https`.
        fields: what all heads have, but for method and scheme; pseudo-header fields first. At most 4096 bytes
            in the counting of RFC 7541 section 4.1, and 64 fields.
    """

    __slots__ = ("_all_indexed", "_capacity", "_literal", "_next", "_update")

    def __init__(self, scheme: str, fields: Sequence[tuple[str, str]]) -> None:
        front = _POST + _SCHEMES[scheme]
        self._literal = front + b"".join(field(name, value) for name, value in fields)
        indexes = range(_FIRST_DYNAMIC + len(fields) - 1, _FIRST_DYNAMIC - 1, -1)
        self._all_indexed = front + bytes(_INDEXED | index for index in indexes)
        self._next = front + b"".join(_INSERTED + field(name, value)[1:] for name, value in fields)
        self._capacity = _TABLE_BYTES
        self._update = b""

    def resize(self, table_bytes: int) -> None:
        """Take the size of table that the server offers; it is never made larger again (section 4.2)."""
        if table_bytes < self._capacity:
            self._capacity = table_bytes
            self._update = _size_update(table_bytes)
            self._next = self._literal

    def block(self, timeout_s: float | None, metadata: Headers) -> bytes:
        """Return the next head, which must be sent next.

        Raises:
            ValueError: the metadata cannot be sent; nothing has changed.
        """
        variable = metadata_block(metadata) if metadata else b""
        if timeout_s is not None:
            variable = field("grpc-timeout", timeout_text(timeout_s)) + variable
        fixed, self._update = self._update + self._next, b""
        if self._next is not self._literal:
            self._next = self._all_indexed
        return fixed + variable


def _size_update(size: int) -> bytes:
    if size < _SHORT:
        return bytes((_SIZE_UPDATE | size,))
    octets = bytearray((_SIZE_UPDATE | _SHORT,))
    size -= _SHORT
    while size >= 0x80:
        octets.append(size & 0x7F | 0x80)
        size >>= 7
    octets.append(size)
    return bytes(octets)


def timeout_text(seconds: float) -> str:
    """Return a duration as `grpc-timeout` has it, rounded up."""
    for unit, per_second in (("u", 1_000_000), ("m", 1_000), ("S", 1)):
        count = max(1, math.ceil(seconds * per_second))
        if count <= _LARGEST_TIMEOUT:
            return f"{count}{unit}"
    return f"{_LARGEST_TIMEOUT}S"


class AnswerFields:
    """What one field section of an answer says, head or trailers.

    Attributes:
        http_status: `:status`; empty in trailers.
        content_type: `content-type`.
        encoding: `grpc-encoding`: how messages that say so are compressed.
        code: `grpc-status`; -1 where it is missing.
        message: `grpc-message`, decoded.
        metadata: the other fields but for binary ones.
        too_large: it passes the limit; the rest is of what came before.
    """

    __slots__ = ("code", "content_type", "encoding", "http_status", "message", "metadata", "too_large")

    def __init__(self, block: DecodedBlock) -> None:
        self.http_status = ""
        self.content_type = ""
        self.encoding = ""
        self.code = -1
        self.message = ""
        self.too_large = block.too_large
        metadata: list[tuple[str, str]] = []
        for line in block.fields:
            self._take(line.name, line.value, metadata)
        self.metadata = tuple(metadata)

    def _take(self, name: str, value: str, metadata: list[tuple[str, str]]) -> None:
        if name == ":status":
            self.http_status = value
        elif name == "content-type":
            self.content_type = value
        elif name == "grpc-encoding":
            self.encoding = value
        elif name == "grpc-status":
            self.code = int(value) if value.isdecimal() and len(value) < 4 else _UNKNOWN
        elif name == "grpc-message":
            self.message = unquote(value, errors="replace")
        elif name not in _OWN and not name.endswith("-bin"):
            metadata.append((name, value))

    @property
    def is_interim(self) -> bool:
        """Whether another head follows (RFC 9110 section 15.2)."""
        return len(self.http_status) == 3 and self.http_status[0] == "1"

    @property
    def fault(self) -> str:
        """Why this is no head of an answer by gRPC; empty: it is one."""
        if self.http_status != "200":
            return f"Received http2 header with status: {self.http_status[:_SHOWN]}"
        if not self.content_type.startswith("application/grpc"):
            return f"Received content-type: {self.content_type[:_SHOWN]}"
        return ""


class AnswerBuilder:
    """A `HeadBuilder` of AnswerFields.

    Attributes:
        names: of fields, shared by all connections.
    """

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names = FieldNames(frozenset())

    def build(self, block: DecodedBlock) -> AnswerFields:
        """Return what a block says.

        Raises:
            StreamFault: a rule of RFC 9113 sections 8.2 or 8.3.2 is broken.
        """
        regular = statuses = 0
        for line in block.fields:
            if line.name == ":status" and not regular:
                statuses += 1
            elif line.fault or line.name[:1] == ":":
                raise MalformedRequest(line.fault or "a pseudo-header field that does not belong there")
            else:
                regular += 1
        if statuses > 1:
            raise MalformedRequest("a pseudo-header field is repeated")
        return AnswerFields(block)


_UNKNOWN: Final = 2
_BY_HTTP_STATUS: Final = {
    "400": 13,
    "401": 16,
    "403": 7,
    "404": 12,
    "429": 14,
    "502": 14,
    "503": 14,
    "504": 14,
}
"""HTTP to gRPC, where something that is no gRPC server answers (gRPC's http-grpc-status-mapping)."""
_BY_RESET: Final = {7: 14, 8: 1, 11: 8, 12: 7}
"""Error code of RST_STREAM to gRPC (gRPC over HTTP/2, Errors); others are INTERNAL."""
_INTERNAL: Final = 13


def code_of_http(status: str) -> int:
    """Return the gRPC code for an answer of this HTTP status that has none of its own."""
    return _BY_HTTP_STATUS.get(status, _UNKNOWN)


def code_of_reset(code: int) -> int:
    """Return the gRPC code for a stream that the server has reset."""
    return _BY_RESET.get(code, _INTERNAL)
