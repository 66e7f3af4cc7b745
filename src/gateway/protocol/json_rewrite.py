"""Rewrites numbers in JSON text that simdjson refuses: NaN and Infinity, integers beyond 64 bits.

NaN and Infinity become two doubles that stand for them, long integers get an exponent (`e0`), which makes
them doubles. Strings are left as they are. All of it works on the text, so that memory stays in proportion
to it and no list of Python numbers is ever made.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_LONG_INTEGER: Final = re.compile(rb"(?<![\w.+-])-?[1-9]\d{18,}+(?![\w.+-])")

STRING: Final = re.compile(rb'("[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z))', re.DOTALL)
"""A string up to its closing quote, or to the end of a text where it has none; possessive, so that a text
made to be slow takes linear time and no stack."""

# A text is cut at its strings, each of which takes memory of its own.
_MOST_STRINGS: Final = 100_000


class StandIns(NamedTuple):
    """The doubles that stand for NaN and Infinity in one text; minus Infinity is the second one's negative.

    They are made from the text's checksum, so that no data meets them but by a chance of one in a million
    times the rarity of values near 1e-295. Short, because a body may be made of tokens.
    """

    nan: float
    infinity: float
    nan_text: bytes
    infinity_text: bytes


class Rewritten(NamedTuple):
    """A text, how many NaN and Infinity were replaced in it, and by what."""

    text: bytes
    replaced: int
    stand_ins: StandIns


def replace_non_finite(text: bytes) -> Rewritten:
    """Replace NaN, Infinity and Inf, of either sign, by their stand-ins.

    Raises:
        InvalidRequest: the text has too many strings to look between.
    """
    pieces = _pieces(text)
    replaced = sum(gap.count(b"NaN") + gap.count(b"Inf") for gap in pieces[::2])
    stand_ins = stand_ins_of(text)
    return Rewritten(_joined(pieces, lambda gap: _finite(gap, stand_ins)), replaced, stand_ins)


def stand_ins_of(text: bytes) -> StandIns:
    """Return the stand-ins of a text."""
    digits = 100_000 + zlib.crc32(text) % 899_000
    nan, infinity = b"%de-300" % digits, b"%de-300" % (digits + 1)
    return StandIns(float(nan), float(infinity), nan, infinity)


def widen_long_integers(text: bytes) -> bytes:
    """Make doubles of integers beyond 64 bits.

    Raises:
        InvalidRequest: the text has too many strings to look between.
    """
    return _joined(_pieces(text), lambda gap: _LONG_INTEGER.sub(_as_double, gap))


def _pieces(text: bytes) -> list[bytes]:
    """Cut the text into what is between strings, at even places, and the strings."""
    if text.count(b'"') > 2 * _MOST_STRINGS:
        msg = "it holds too many strings beside NaN, Infinity or integers beyond 64 bits"
        raise InvalidRequest(f"failed to parse the request JSON buffer: {msg}")
    return STRING.split(text)


def _joined(pieces: list[bytes], rewrite: Callable[[bytes], bytes]) -> bytes:
    pieces[::2] = map(rewrite, pieces[::2])
    return b"".join(pieces)


def _finite(gap: bytes, stand_ins: StandIns) -> bytes:
    """Replace the tokens between two strings; padded, so that one glued to others stays an error."""
    if b"NaN" in gap:
        gap = gap.replace(b"-NaN", b" -%b " % stand_ins.nan_text)
        gap = gap.replace(b"NaN", b" %b " % stand_ins.nan_text)
    if b"Inf" in gap:
        for token in (b"Infinity", b"Inf"):
            gap = gap.replace(b"-" + token, b" -%b " % stand_ins.infinity_text)
            gap = gap.replace(token, b" %b " % stand_ins.infinity_text)
    return gap


def _as_double(match: re.Match[bytes]) -> bytes:
    """Write an integer beyond 64 bits as a double; doubles end at 309 digits."""
    token = match[0]
    if len(token) > 310 or -(1 << 63) <= int(token) < 1 << 64:
        return token
    return token + b"e0"
