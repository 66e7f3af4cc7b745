"""Content codings of HTTP bodies: bounded inflating of requests, choosing and making those of responses."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from gateway.transport.refusal import HttpRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.calls import Buffer
    from gateway.transport.options import HttpLimits

Coding: TypeAlias = Literal["gzip", "deflate"]

_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15
_STEP_BYTES: Final = 1 << 20
_RATIO_FREE_BYTES: Final = 1 << 20


def request_coding(header: str | None) -> Coding | None:
    """Return the coding a Content-Encoding header names, None for a plain body.

    Raises:
        HttpRefusal: 501 for a coding, or a chain of codings, that is not supported.
    """
    name = header.strip().lower() if header else ""
    if name in {"", "identity"}:
        return None
    if name in {"gzip", "x-gzip"}:
        return "gzip"
    if name == "deflate":
        return "deflate"
    raise HttpRefusal(
        501,
        f"unsupported Content-Encoding '{name[:64]}', expected gzip, deflate or identity",
        (("Accept-Encoding", "gzip, deflate"),),
    )


class Inflater:
    """Undoes one coding piece by piece; the output never passes the limits by more than one byte.

    Invariant: memory held is the output so far (and the allocator's growth of it, an eighth) plus the piece
    being fed.

    Args:
        coding: what to undo; `deflate` means the zlib format, and raw deflate is recognised too.
        limits: `max_decompressed_bytes` and `max_ratio` are used.
    """

    def __init__(self, coding: Coding, limits: HttpLimits) -> None:
        self._coding = coding
        self._limits = limits
        self._body = bytearray()
        self._head = b""
        self._taken_bytes = 0
        self._zlib: zlib._Decompress | None = None

    def feed(self, data: bytes) -> int:
        """Inflate a piece and return the size of the output so far; any thread may call, one at a time.

        Raises:
            HttpRefusal: 413 beyond a limit, 400 for data that is not of the coding.
        """
        self._taken_bytes += len(data)
        if self._zlib is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return 0
            self._zlib = zlib.decompressobj(self._window_bits(data))
        try:
            self._inflate(self._zlib, data)
        except zlib.error as exc:
            raise HttpRefusal(400, f"body is not valid {self._coding} data") from exc
        return len(self._body)

    def finish(self) -> bytearray:
        """Return the whole output, owned by the caller.

        Raises:
            HttpRefusal: 400 when the data ended early.
        """
        if self._taken_bytes and (self._zlib is None or not self._zlib.eof):
            raise HttpRefusal(400, f"body ends before its {self._coding} data does", close=False)
        return self._body

    def _window_bits(self, data: bytes) -> int:
        if self._coding == "gzip":
            return _GZIP_BITS
        # RFC 1950: compression method 8 in the low bits, and the two bytes a multiple of 31.
        wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return _ZLIB_BITS if wrapped else _RAW_BITS

    def _inflate(self, inflater: zlib._Decompress, data: bytes) -> None:
        more = True
        while more and not inflater.eof:
            step = min(_STEP_BYTES, self._allowed() + 1 - len(self._body))
            piece = inflater.decompress(data, step)
            self._body += piece
            if len(self._body) > self._allowed():
                raise HttpRefusal(413, self._too_large())
            data = inflater.unconsumed_tail
            # A full step may have left output inside zlib even when all input is consumed.
            more = bool(data) or len(piece) == step
        if inflater.eof and (inflater.unused_data or data):
            raise HttpRefusal(400, f"body has data after the end of its {self._coding} data")

    def _allowed(self) -> int:
        by_ratio = int(self._limits.max_ratio * self._taken_bytes) + _RATIO_FREE_BYTES
        return min(self._limits.max_decompressed_bytes, by_ratio)

    def _too_large(self) -> str:
        if len(self._body) > self._limits.max_decompressed_bytes:
            return f"decompressed body exceeds the limit of {self._limits.max_decompressed_bytes} bytes"
        return f"compressed body expands more than {self._limits.max_ratio:g} times"


def response_coding(accept_encoding: str) -> Coding | None:
    """Return the coding with the best q among gzip, deflate and identity; None for identity.

    Between equals gzip comes first and identity last; identity not named never beats a coding that is.
    """
    weights = _weights(accept_encoding)
    other = weights.get("*", 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", other))
    deflate = weights.get("deflate", other)
    best = max(gzip, deflate)
    if best <= 0.0 or best < weights.get("identity", 0.0):
        return None
    return "gzip" if gzip == best else "deflate"


def _weights(accept_encoding: str) -> dict[str, float]:
    weights = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        key, _, value = parameters.partition("=")
        weights[name.strip()] = _quality(value) if key.strip() == "q" else 1.0
    return weights


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def compress(parts: Sequence[Buffer], coding: Coding, level: int) -> bytes:
    """Return `parts` joined and encoded; may run in any thread."""
    bits = _GZIP_BITS if coding == "gzip" else _ZLIB_BITS
    encoder = zlib.compressobj(level, zlib.DEFLATED, bits)
    pieces = [encoder.compress(part) for part in parts]
    pieces.append(encoder.flush())
    return b"".join(pieces)
