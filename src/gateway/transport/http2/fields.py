"""Field lines, and the rules a request's fields must keep (RFC 9113 sections 8.2 and 8.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.transport.http2.errors import MalformedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME: Final = re.compile(rb":?[\x21-\x39\x3b-\x40\x5b-\x7e]+").fullmatch
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00\r\n]").search
_LENGTH: Final = re.compile(r"[0-9]{1,18}").fullmatch
_PSEUDO: Final = frozenset({":method", ":scheme", ":path", ":authority"})
# Section 8.2.2; TE is a case of its own.
_OF_A_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_ENTRY_OVERHEAD: Final = 32  # RFC 7541 section 4.1


class Field(NamedTuple):
    """One field line, decoded and judged once, however often the dynamic table repeats it.

    Attributes:
        name: as text.
        value: as text, without white space around it.
        size: in bytes, as RFC 7541 section 4.1 counts.
        fault: why no request may hold it; empty for a good one.
    """

    name: str
    value: str
    size: int
    fault: str


def make_field(name: bytes, value: bytes) -> Field:
    """Decode a field line.

    White space around a value is dropped, though section 8.2.1 calls such a request malformed: gRPC's
    protocol document allows it, and gRPC's own clients send it.
    """
    return Field(name.decode("latin-1"), _text(value).strip(" \t"), _size(name, value), _fault(name, value))


def _size(name: bytes, value: bytes) -> int:
    return len(name) + len(value) + _ENTRY_OVERHEAD


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _fault(name: bytes, value: bytes) -> str:
    if _NAME(name) is None:
        return "a field name has a character that is not allowed"
    if _FORBIDDEN_IN_VALUE(value):
        return "a field value has a character that is not allowed"
    text = name.decode("ascii")
    if text in _OF_A_CONNECTION:
        return "a field of HTTP/1.1 connections"
    if text.startswith(":") and text not in _PSEUDO:
        return "an unknown pseudo-header field"
    return ""


class RequestFields(NamedTuple):
    """The fields of a request's head.

    Attributes:
        method: `:method`.
        scheme: `:scheme`.
        path: `:path`; empty only for CONNECT.
        authority: `:authority`, or None.
        regular: the other fields, in order.
        content_length: what the request says of its body, -1 if nothing.
    """

    method: str
    scheme: str
    path: str
    authority: str | None
    regular: Sequence[Field]
    content_length: int


def request_fields(fields: Sequence[Field]) -> RequestFields:
    """Check a request's head and take it apart.

    Raises:
        MalformedRequest: a rule of sections 8.2 or 8.3 is broken.
    """
    pseudo: dict[str, str] = {}
    for field in fields:
        if field.fault:
            raise MalformedRequest(field.fault)
        if field.name[0] != ":":
            break
        if field.name in pseudo:
            raise MalformedRequest("a pseudo-header field is repeated")
        pseudo[field.name] = field.value
    regular = fields[len(pseudo) :]
    content_length = _check_regular(regular)
    _check_pseudo(pseudo)
    return RequestFields(
        pseudo[":method"],
        pseudo.get(":scheme", ""),
        pseudo.get(":path", ""),
        pseudo.get(":authority"),
        regular,
        content_length,
    )


def _check_pseudo(pseudo: dict[str, str]) -> None:
    """Section 8.3.1: which pseudo-header fields a request has; section 8.5 for CONNECT."""
    if ":method" not in pseudo:
        raise MalformedRequest("no :method")
    if pseudo[":method"] == "CONNECT":
        if ":scheme" in pseudo or ":path" in pseudo or ":authority" not in pseudo:
            raise MalformedRequest("CONNECT takes :authority alone")
    elif not pseudo.get(":scheme") or not pseudo.get(":path"):
        raise MalformedRequest("no :scheme or no :path")


def _check_regular(fields: Sequence[Field]) -> int:
    length = -1
    for name, value, _, fault in fields:
        if fault:
            raise MalformedRequest(fault)
        if name[0] == ":":
            raise MalformedRequest("a pseudo-header field behind the others")
        if name == "te" and value.lower() != "trailers":
            raise MalformedRequest("TE may only say trailers")
        if name == "content-length":
            length = _content_length(value, length)
    return length


def _content_length(value: str, before: int) -> int:
    if _LENGTH(value) is None or before not in {-1, int(value)}:
        raise MalformedRequest("content-length is no number or contradicts itself")
    return int(value)


def check_trailers(fields: Sequence[Field]) -> None:
    """Check the fields behind a request's body (section 8.1).

    Raises:
        MalformedRequest: a field is not allowed, as pseudo-header fields are not.
    """
    for field in fields:
        if field.fault or field.name[0] == ":":
            raise MalformedRequest(field.fault or "a pseudo-header field in trailers")
