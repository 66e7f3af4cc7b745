"""HPACK decoding against the hpack library, and what is remembered of header blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hpack
import hpack.huffman_table
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.http2.errors import ConnectionFault, MalformedRequest
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.hpack_decoder import DecodedBlock, HpackDecoder
from gateway.transport.http2.huffman import HuffmanStrings

if TYPE_CHECKING:
    from gateway.transport.http2.fields import Field

ENOUGH = 1 << 20
NAMES = st.sampled_from([b":path", b"te", b"user-agent", b"x-a", b"x-b", b"grpc-timeout", b"authorization"])
VALUES = st.one_of(st.sampled_from([b"", b"trailers", b"v", b"0" * 40]), st.binary(max_size=60))
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)


def decoder() -> HpackDecoder:
    return HpackDecoder(HuffmanStrings(4096))


def text(value: bytes) -> str:
    try:
        return value.decode("utf-8").strip(" \t")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \t")


@given(blocks=st.lists(st.tuples(FIELDS, st.booleans()), max_size=12))
def test_blocks_of_one_connection_decode_as_the_library_does(blocks: Any) -> None:
    """Every kind of field, through one dynamic table with evictions."""
    encoder, ours, library = hpack.Encoder(), decoder(), hpack.Decoder()
    for fields, huffman in blocks:
        block = encoder.encode(fields, huffman=huffman)
        found = ours.decode(block, ENOUGH)
        expected = library.decode(block, raw=True)
        assert [(f.name, f.value) for f in found.fields] == [(text(n), text(v)) for n, v in expected]
        assert not found.too_large


@given(sizes=st.lists(st.integers(0, 4096), min_size=1, max_size=6), fields=FIELDS)
def test_the_table_shrinks_and_grows_as_the_encoder_says(sizes: list[int], fields: Any) -> None:
    """Size updates evict what the library evicts, and count as a new generation."""
    encoder, ours, library = hpack.Encoder(), decoder(), hpack.Decoder()
    for size in sizes:
        changed = encoder.header_table_size != size
        encoder.header_table_size = size
        block = encoder.encode(fields)
        before = ours.generation
        found = ours.decode(block, ENOUGH)
        assert [f.value for f in found.fields] == [text(v) for _, v in library.decode(block, raw=True)]
        assert not changed or ours.generation != before


@given(block=st.binary(max_size=60))
def test_any_bytes_decode_or_are_a_compression_error(block: bytes) -> None:
    """Nothing else is raised, and where the library finds fields they are the same."""
    try:
        found = decoder().decode(block, ENOUGH)
    except ConnectionFault:
        return
    expected = hpack.Decoder().decode(block, raw=True)
    assert [(f.name, f.value) for f in found.fields] == [(n.decode("latin-1"), text(v)) for n, v in expected]


@given(coded=st.binary(max_size=40))
def test_huffman_strings_are_the_librarys(coded: bytes) -> None:
    """The same text or the same refusal, also when the string comes again."""
    strings = HuffmanStrings(64)
    try:
        expected = hpack.huffman_table.decode_huffman(coded)
    except hpack.HPACKDecodingError:
        with pytest.raises(ConnectionFault):
            strings.decode(coded)
    else:
        assert strings.decode(coded) == expected
        assert strings.decode(coded) == expected


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # index 62 of an empty table
        b"\xff\x80\x80\x80\x80\x80\x80\x01",  # an integer without end
        b"\x82\x3f\xe1\x1f",  # a size update behind a field
        b"\x3f\xe2\x1f",  # a table of 4,097 bytes
        b"\x20\x20\x20",  # three size updates
        b"\x00\x05ab",  # a string beyond the block
        b"\x40\x01a\x81\xff",  # padding of eight ones in a Huffman string
    ],
)
def test_what_section_says_no_block_may_hold_is_refused(block: bytes) -> None:
    """RFC 7541 sections 4.2, 5.1, 5.2, 6.1 and 6.3."""
    with pytest.raises(ConnectionFault):
        decoder().decode(block, ENOUGH)


def test_a_list_beyond_the_limit_keeps_the_table_in_step() -> None:
    """Fields are dropped from the limit on, yet later blocks may refer to them."""
    encoder, ours = hpack.Encoder(), decoder()
    block = encoder.encode([("a", "1"), ("b", "2" * 100), ("c", "3")])
    found = ours.decode(block, 100)
    assert [f.name for f in found.fields] == ["a"]
    assert found.too_large
    again = ours.decode(encoder.encode([("c", "3"), ("b", "2" * 100)]), ENOUGH)
    assert [f.name for f in again.fields] == ["c", "b"]


def test_a_bomb_costs_no_memory() -> None:
    """Thousands of references to one large field are counted, not collected."""
    encoder, ours = hpack.Encoder(), decoder()
    ours.decode(encoder.encode([("a", "x" * 4000)]), ENOUGH)
    found = ours.decode(b"\xbe" * 16_000, 8192)
    assert found.too_large
    assert len(found.fields) <= 2


class Built:
    """Counts how often a head is built."""

    def __init__(self, memo_bytes: int = 8192, budget: MemoBudget | None = None) -> None:
        self.times = 0
        self.budget = budget or MemoBudget(1 << 20)
        self.memo = HeadMemo(HuffmanStrings(4096), self.build, ENOUGH, memo_bytes, self.budget)

    def build(self, block: DecodedBlock) -> tuple[Field, ...]:
        self.times += 1
        if any(field.name == "bad" for field in block.fields):
            raise MalformedRequest("bad")
        return tuple(block.fields)


def test_a_block_seen_before_is_not_decoded() -> None:
    """The same object comes back while the table is the same."""
    built, encoder = Built(), hpack.Encoder()
    encoder.encode([("a", "1")])
    built.memo.head(hpack.Encoder().encode([("a", "1")]))
    block = encoder.encode([("a", "1")])
    first = built.memo.head(block)
    assert built.memo.head(block) is first
    assert built.times == 2


def test_blocks_that_change_the_table_are_never_remembered() -> None:
    """The same bytes insert again, and mean the same by luck alone."""
    built = Built()
    block = b"\x40\x01a\x011"
    for times in (1, 2, 3):
        built.memo.head(block)
        assert built.times == times
    assert built.budget.left_bytes == 1 << 20


def test_an_insertion_makes_all_be_forgotten() -> None:
    """Eviction and insertion may cancel out in the table's length, and indexes mean something else."""
    built = Built()
    for value in b"12":
        built.memo.head(b"\x40\x01a\x01" + bytes([value]))
        (field,) = built.memo.head(b"\xbe")
        assert field.value == chr(value)


@given(blocks=st.lists(st.tuples(FIELDS, st.integers(1, 3)), max_size=10))
def test_a_memo_says_what_a_fresh_decoding_says(blocks: Any) -> None:
    """Whatever came between, and however often a block is repeated."""
    built, encoder, plain = Built(memo_bytes=4096), hpack.Encoder(), decoder()
    for fields, times in blocks:
        block = encoder.encode([(n, v, sensitive) for n, v, sensitive in fields])
        for _ in range(times):
            assert built.memo.head(block) == tuple(plain.decode(block, ENOUGH).fields)


def test_a_malformed_head_is_not_remembered() -> None:
    """It is refused each time, and what the table learnt of it stays."""
    built = Built()
    for _ in range(2):
        with pytest.raises(MalformedRequest):
            built.memo.head(b"\x00\x03bad\x011")
    assert built.times == 2


def test_memory_is_bounded_per_connection_and_in_all() -> None:
    """A connection forgets its own before it takes more, and all share one budget."""
    budget = MemoBudget(3000)
    one, two = Built(memo_bytes=2500, budget=budget), Built(memo_bytes=2500, budget=budget)
    blocks = [b"\x00\x01" + bytes([97 + i]) + b"\x011" for i in range(8)]
    for block in blocks:
        one.memo.head(block)
        two.memo.head(block)
        assert 0 <= budget.left_bytes <= 3000
    one.memo.forget()
    two.memo.forget()
    assert budget.left_bytes == 3000
