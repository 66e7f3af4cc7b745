"""Inflating and deflating bodies, without a connection."""

from __future__ import annotations

import gzip
import itertools
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.content_coding import Coding, Inflater, compress, response_coding
from gateway.transport.options import HttpLimits

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
FREE = HttpLimits(max_ratio=2000.0)


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, wbits=-15)
    return encoder.compress(data) + encoder.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "raw": raw_deflate,
}


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000)), st.sampled_from(["gzip", "zlib", "raw"]))
def test_any_pieces_inflate_to_the_whole(body: bytes, cuts: list[int], form: str) -> None:
    """Where a compressed body is cut does not matter."""
    encoded = ENCODERS[form](body)
    inflater = Inflater("gzip" if form == "gzip" else "deflate", FREE)
    edges = [0, *sorted(min(cut, len(encoded)) for cut in cuts), len(encoded)]
    for start, end in itertools.pairwise(edges):
        inflater.feed(encoded[start:end])
    assert inflater.finish() == body


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 3, 5 * MIB])
def test_output_held_back_by_zlib_is_fetched(size: int) -> None:
    """Input that is used up before its output is taken loses nothing."""
    inflater = Inflater("deflate", FREE)
    assert inflater.feed(raw_deflate(bytes(size))) == size
    assert inflater.finish() == bytes(size)


@given(st.lists(st.binary(max_size=500), max_size=5), st.sampled_from(["gzip", "deflate"]), st.integers(1, 9))
def test_what_is_compressed_inflates(parts: list[bytes], coding: Coding, level: int) -> None:
    """Responses can be read by the reader of requests."""
    inflater = Inflater(coding, FREE)
    inflater.feed(compress(parts, coding, level))
    assert inflater.finish() == b"".join(parts)


@given(st.text(max_size=60))
def test_any_accept_encoding_is_understood(header: str) -> None:
    """A nonsensical header never fails a response."""
    assert response_coding(header) in {None, "gzip", "deflate"}
