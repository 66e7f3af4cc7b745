"""JSON text to a simdjson document: depth checked first, then parsed; rewritten once if it must be.

simdjson reads strict JSON. Two things clients send are beyond it: the tokens NaN and Infinity, which Triton
reads and writes, and integers beyond 64 bits in floating-point data, which JavaScript writes for whole
numbers up to 1e21. Only a text that simdjson refuses is looked at for them.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
import simdjson

from gateway.core.errors import InvalidRequest
from gateway.protocol.json_rewrite import Rewritten, replace_non_finite, widen_long_integers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.types import Array
    from gateway.protocol.limits import ProtocolLimits

_NO_MARKS: Final = bytes(sorted(set(range(256)) - set(b'[]{}"')))
_QUOTE: Final = ord('"')

# What simdjson calls its errors, and what that means to a client.
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "EMPTY": "the document is empty",
        "STRING_ERROR": "a string is malformed",
        "UNCLOSED_STRING": "a string is not closed",
        "UNESCAPED_CHARS": "a string holds a control character",
        "UTF8_ERROR": "it is not valid UTF-8",
        "NUMBER_ERROR": "a number is malformed or too large",
        "BIGINT_ERROR": "an integer is too large",
        "DEPTH_ERROR": "it is nested too deep",
    }
)
# Counting costs less than finding in a short text, and much more in a long one.
_SHORT: Final = 2048
_WINDOW: Final = 1 << 16
_NO_BACKSLASH: Final = re.compile(rb"[^\\]")
_NUMBER_ERRORS: Final = ("NUMBER_ERROR", "BIGINT_ERROR")


class JsonDocument:
    """A parsed JSON object.

    The proxies that simdjson gives out keep its parser alive; each document has a parser of its own, so that
    no two requests share one. Array lengths are exact up to 16,777,215 only: simdjson stores no more, and its
    own conversions to lists write past their end beyond it; nothing here uses them.

    NaN and Infinity were replaced by two doubles before parsing. When the data has been read, as many of
    these must have been found as were put in: fewer means a token where none is allowed, more means that
    the client's data holds one of the two itself, and both are refused.

    Attributes:
        root: the top-level object.
    """

    __slots__ = ("_found", "_rewritten", "root")

    def __init__(self, root: simdjson.Object, rewritten: Rewritten | None) -> None:
        self.root = root
        self._rewritten = rewritten
        self._found = 0

    def restore_non_finite(self, values: Array) -> None:
        """Put NaN and Infinity back into float64 `values`, in place."""
        if self._rewritten is None:
            return
        sizes = np.abs(values)
        stand_ins = self._rewritten.stand_ins
        for stand_in, meant in ((stand_ins.nan, np.nan), (stand_ins.infinity, np.inf)):
            places = sizes == stand_in
            self._found += int(np.count_nonzero(places))
            values[places] = np.copysign(meant, values[places])

    def check_non_finite(self, model: str) -> None:
        """Check, after all floating-point data was read, that each token has been put back.

        Raises:
            InvalidRequest: a token stood elsewhere, or the data holds a stand-in.
        """
        if self._rewritten is None:
            return
        if self._found < self._rewritten.replaced:
            msg = "NaN and Infinity are allowed in the data of floating-point inputs only"
            raise InvalidRequest(f"request for model '{model}': {msg}")
        if self._found > self._rewritten.replaced:
            nan, infinity, *_ = self._rewritten.stand_ins
            msg = f"{nan!r} and {infinity!r} cannot be sent beside NaN or Infinity here; use binary data"
            raise InvalidRequest(f"request for model '{model}': {msg}")


def parse_object(text: bytes, limits: ProtocolLimits) -> JsonDocument:
    """Parse a JSON object.

    Raises:
        InvalidRequest: no valid JSON, no object, or nested deeper than the limit.
    """
    if too_deep(text, limits.max_json_depth):
        raise _unparsable(f"it is nested deeper than {limits.max_json_depth} levels")
    root, code = _attempt(text)
    rewritten = None
    if code and (b"NaN" in text or b"Inf" in text):
        rewritten = replace_non_finite(text)
        text = rewritten.text
        root, code = _attempt(text)
    if code in _NUMBER_ERRORS:
        root, code = _attempt(widen_long_integers(text))
    if code:
        raise _unparsable(_REASONS.get(code, "its structure is malformed"))
    if not isinstance(root, simdjson.Object):
        raise _unparsable("it must be an object")
    return JsonDocument(root, rewritten)


def too_deep(text: bytes, most: int) -> bool:
    """Whether arrays and objects are nested deeper than `most`; brackets in strings do not count.

    Looks at a window of the text at a time, so that it takes memory for a few of those only.
    """
    if _few_brackets(text, most):
        return False
    depth = quotes = 0
    for marks in _marks(text):
        quoted = np.cumsum(marks == _QUOTE) + quotes
        brackets = marks[(quoted % 2 == 0) & (marks != _QUOTE)]
        # Opening ones are 0x5B and 0x7B, closing ones 0x5D and 0x7D.
        depths = depth + np.cumsum(np.where(brackets & 0x0F == 0x0B, 1, -1))
        if depths.max(initial=depth) > most:
            return True
        depth, quotes = int(depths[-1]) if depths.size else depth, int(quoted[-1])
    return False


def _marks(text: bytes) -> Iterator[Array]:
    """Yield the quotes and brackets of `text` by windows, without escaped quotes; never an empty one."""
    begin = 0
    while begin < len(text):
        # An escape is looked at whole: the window ends behind a character that begins none.
        last = _NO_BACKSLASH.search(text, begin + _WINDOW - 1)
        end = last.end() if last else len(text)
        window = text[begin:end]
        begin = end
        if b"\\" in window:  # escaped backslashes first, they escape nothing
            window = window.replace(rb"\\", b"").replace(rb"\"", b"")
        marks = np.frombuffer(window.translate(None, delete=_NO_MARKS), np.uint8)
        if marks.size:
            yield marks


def _few_brackets(text: bytes, most: int) -> bool:
    """Whether `text` has no more than `most` opening brackets; looks no further than it must."""
    if len(text) < _SHORT:
        return text.count(b"[") + text.count(b"{") <= most
    left = most
    for bracket in (b"[", b"{"):
        position = text.find(bracket)
        while position >= 0:
            left -= 1
            if left < 0:
                return False
            position = text.find(bracket, position + 1)
    return True


def _attempt(text: bytes) -> tuple[object, str]:
    """Return the parsed value and no error, or simdjson's name of the error: what its message begins with."""
    try:
        return simdjson.Parser().parse(text), ""
    except UnicodeDecodeError as exc:
        message = exc.reason
    except (ValueError, RuntimeError) as exc:
        message = str(exc)
    return None, message.partition(":")[0]


def _unparsable(reason: str) -> InvalidRequest:
    """Return the error for a text that cannot be used; begins as Triton's does."""
    return InvalidRequest(f"failed to parse the request JSON buffer: {reason}")
