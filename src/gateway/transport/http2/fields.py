"""Field lines, and the rules a request's fields must keep (RFC 9113 sections 8.2 and 8.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from hpack.table import HeaderTable

from gateway.transport.http2.errors import MalformedRequest

_NAME: Final = re.compile(rb":?[\x21-\x39\x3b-\x40\x5b-\x7e]+").fullmatch
_FORBIDDEN_IN_VALUE: Final = re.compile(r"[\x00\r\n]").search
_LENGTH: Final = re.compile(r"[0-9]{1,18}").fullmatch
_PSEUDO: Final = frozenset({":method", ":scheme", ":path", ":authority"})
# Section 8.2.2; TE is a case of its own.
_OF_A_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_ENTRY_OVERHEAD: Final = 32  # RFC 7541 section 4.1
_MOST_NAMES: Final = 512
_LONGEST_NAME: Final = 128


class FieldName:
    """A field's name, judged once for all fields that have it.

    Attributes:
        text: the name.
        size: what RFC 7541 section 4.1 counts of a field beside its value.
        fault: why no request may hold it; empty for a good one.
        free: nothing but the metadata depends on its fields; never true of a faulty one.
    """

    __slots__ = ("fault", "free", "size", "text")

    def __init__(self, name: bytes, decisive: frozenset[str]) -> None:
        self.text = name.decode("latin-1")
        self.size = len(name) + _ENTRY_OVERHEAD
        self.fault = _fault(name, self.text)
        self.free = not self.fault and self.text not in decisive and self.text not in _PSEUDO


class Field:
    """One field line, decoded and judged once, however often the dynamic table repeats it.

    Attributes:
        named: its name.
        name: its name as text.
        value: as text, without white space around it.
        size: in bytes, as RFC 7541 section 4.1 counts.
        fault: why no request may hold it; empty for a good one.
        key: equal for fields that mean the same: the whole line, or nothing at all for a good free field.
    """

    __slots__ = ("fault", "key", "name", "named", "size", "value")

    def __init__(self, named: FieldName, value: bytes) -> None:
        """Decode a field line.

        White space around a value is dropped, though section 8.2.1 calls such a request malformed: gRPC's
        protocol document allows it, and gRPC's own clients send it.
        """
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        fault = named.fault
        if not fault and not text.isprintable() and _FORBIDDEN_IN_VALUE(text):
            fault = "a field value has a character that is not allowed"
        text = text.strip(" \t")
        self.named = named
        self.name = named.text
        self.value = text
        self.size = named.size + len(value)
        self.fault = fault
        # No good field has a NUL in its name or its value, so that no two good lines have the same key.
        self.key = "" if named.free and not fault else f"{named.text}\0{text}"


class FieldNames:
    """The names of fields that clients of one server send; made once, as are the fields of the static table.

    Bounds: `_MOST_NAMES` of at most `_LONGEST_NAME` bytes; when there are more, all are forgotten.

    Args:
        decisive: names of the regular fields on which a head depends beyond its metadata.

    Attributes:
        static: the fields of the static table (RFC 7541 appendix A), from index 1 on.
    """

    __slots__ = ("_decisive", "_names", "static")

    def __init__(self, decisive: frozenset[str]) -> None:
        self._decisive = decisive
        self._names: dict[bytes, FieldName] = {}
        self.static = tuple(Field(self.named(name), value) for name, value in HeaderTable.STATIC_TABLE)

    def named(self, name: bytes) -> FieldName:
        """Return a name, perhaps the object that was returned for it before."""
        known = self._names.get(name)
        if known is None:
            known = FieldName(name, self._decisive)
            if len(name) <= _LONGEST_NAME:
                if len(self._names) >= _MOST_NAMES:
                    self._names.clear()
                self._names[name] = known
        return known


def _fault(name: bytes, text: str) -> str:
    if _NAME(name) is None:
        return "a field name has a character that is not allowed"
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
    for field in fields:
        name = field.name
        if field.fault:
            raise MalformedRequest(field.fault)
        if name[0] == ":":
            raise MalformedRequest("a pseudo-header field behind the others")
        if name == "te" and field.value.lower() != "trailers":
            raise MalformedRequest("TE may only say trailers")
        if name == "content-length":
            length = _content_length(field.value, length)
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
