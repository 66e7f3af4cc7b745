"""Header blocks made by hand, in every representation of RFC 7541 section 6, right and wrong ones."""

from __future__ import annotations

from typing import Any

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import strategies as st

_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def integer(value: int, bits: int, flags: int) -> bytes:
    """Section 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    coded, value = bytearray([flags | most]), value - most
    while value > 0x7F:
        coded.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes(coded) + bytes([value])


def string(value: bytes, *, huffman: bool = False) -> bytes:
    """Section 5.2."""
    coded = _HUFFMAN.encode(value) if huffman else value
    return integer(len(coded), 7, 0x80 if huffman else 0) + coded


def indexed(index: int) -> bytes:
    """Section 6.1."""
    return integer(index, 7, 0x80)


def literal(kind: tuple[int, int], name: int | bytes, value: bytes, *, huffman: bool = False) -> bytes:
    """Sections 6.2.1 to 6.2.3; the name as text or as an index.

    Args:
        kind: bits of the index, and the flags before it: one of `KINDS`.
        name: index or text.
        value: text.
        huffman: how text is coded.
    """
    if isinstance(name, int):
        return integer(name, *kind) + string(value, huffman=huffman)
    return integer(0, *kind) + string(name, huffman=huffman) + string(value, huffman=huffman)


def resize(size: int) -> bytes:
    """Section 6.3."""
    return integer(size, 5, 0x20)


INDEXING = (6, 0x40)
KINDS = (INDEXING, (4, 0x00), (4, 0x10))

_texts = st.one_of(st.sampled_from([b"", b"trailers", b"1S", b"v" * 300]), st.binary(max_size=140))
_indexes = st.integers(1, 80)
_fields = st.one_of(
    st.builds(indexed, _indexes),
    st.builds(
        literal,
        st.sampled_from(KINDS),
        st.one_of(_indexes, st.sampled_from([b"te", b"x-a", b"grpc-timeout"]), _texts),
        _texts,
        huffman=st.booleans(),
    ),
)
_sizes = st.lists(st.builds(resize, st.integers(0, 400) | st.just(4096)), max_size=2)
blocks: st.SearchStrategy[bytes] = st.builds(
    lambda sizes, fields: b"".join([*sizes, *fields]),
    st.one_of(st.just([]), st.just([]), st.just([]), _sizes),
    st.lists(_fields, max_size=8),
)


@st.composite
def spoiled(draw: Any) -> bytes:
    """Return a block of which a byte was replaced, put in or taken out."""
    block = bytearray(draw(blocks))
    at = draw(st.integers(0, len(block)))
    block[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=1))
    return bytes(block)
