"""HPACK decoding against the hpack library, and what is remembered of header blocks."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any, TypeAlias

import hpack
import hpack.huffman_table
import pytest
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.transport.http2.errors import ConnectionFault, ErrorCode, MalformedRequest
from gateway.transport.http2.fields import FieldNames
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.hpack_decoder import DecodedBlock, HpackDecoder
from gateway.transport.http2.huffman import HuffmanStrings
from tests.transport.http2 import representations

ENOUGH = 1 << 20
NAMES = st.sampled_from([b":path", b"te", b"user-agent", b"x-a", b"x-b", b"grpc-timeout", b"authorization"])
VALUES = st.one_of(st.sampled_from([b"", b"trailers", b"v", b"0" * 40]), st.binary(max_size=60))
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)


def decoder() -> HpackDecoder:
    return HpackDecoder(HuffmanStrings(4096), FieldNames(frozenset({"te"})))


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


def found(decoder: HpackDecoder, block: bytes) -> list[tuple[str, str]] | None:
    """Return the fields of a block, None if it is refused."""
    try:
        return [(field.name, field.value) for field in decoder.decode(block, ENOUGH).fields]
    except ConnectionFault as fault:
        return None if fault.code is ErrorCode.COMPRESSION_ERROR else [("another error", fault.reason)]


def size_updates(block: bytes) -> int:
    """Count the table size updates at the front of a block (RFC 7541, 6.3)."""
    count = position = 0
    while position < len(block) and block[position] & 0xE0 == 0x20:
        count += 1
        goes_on = block[position] & 0x1F == 0x1F
        position += 1
        while goes_on and position < len(block):
            goes_on = block[position] >= 0x80
            position += 1
    return count


def expected(library: hpack.Decoder, block: bytes) -> list[tuple[str, str]] | None:
    """Return what the library says; but more than two size updates make no sense (4.2), and it takes any."""
    if size_updates(block) > 2:
        return None
    try:
        fields = library.decode(block, raw=True)
    except hpack.HPACKDecodingError:
        return None
    return [(name.decode("latin-1"), text(value)) for name, value in fields]


@example(conversation=[], last=b"\x20\x20\x3f\xe1\x1f")
@given(conversation=st.lists(representations.blocks, max_size=10), last=representations.spoiled())
def test_every_representation_and_every_fault_is_taken_as_the_library_does(
    conversation: list[bytes], last: bytes
) -> None:
    """Fields, refusals, and after each block the whole table, through evictions and changes of its size."""
    ours, library = decoder(), hpack.Decoder(max_header_list_size=ENOUGH)
    for number, block in enumerate([*conversation, last]):
        expectation = expected(library, block)
        assert found(ours, block) == expectation
        if expectation is None:
            return
        entries = library.header_table.dynamic_entries
        for index in range(len(entries)):
            entry = representations.indexed(62 + index)
            assert found(ours, entry) == expected(library, entry)
        again = decoder()
        for earlier in [*conversation, last][: number + 1]:
            again.decode(earlier, ENOUGH)
        assert found(again, representations.indexed(62 + len(entries))) is None


def test_an_entry_leaves_when_the_next_does_not_fit_by_a_byte() -> None:
    """Section 4.4, with tables of exactly two entries of 34 bytes and of one byte less."""
    for size, kept in ((68, "a"), (67, None)):
        ours = decoder()
        ours.decode(representations.resize(size), ENOUGH)
        for name in (b"a", b"b"):
            ours.decode(representations.literal(representations.INDEXING, name, b"1"), ENOUGH)
        oldest = found(ours, representations.indexed(63))
        assert oldest == (None if kept is None else [(kept, "1")])


def test_sizes_count_bytes_as_they_came() -> None:
    """A list of exactly the limit is within it; white space and two-byte characters count in full."""
    block = representations.literal(representations.KINDS[1], b"a", " \N{SNOWMAN} ".encode())
    assert not decoder().decode(block, 38).too_large
    assert decoder().decode(block, 37) == ([], True)


@given(conversation=st.lists(representations.blocks, max_size=8), limit=st.integers(0, 400))
def test_the_limit_on_a_list_counts_as_section_4_1_says(conversation: list[bytes], limit: int) -> None:
    """All fields up to it, none from there on."""
    ours, library = decoder(), hpack.Decoder(max_header_list_size=ENOUGH)
    for block in conversation:
        try:
            fields = library.decode(block, raw=True)
        except hpack.HPACKDecodingError:
            return
        within, size = 0, 0
        for name, value in fields:
            size += len(name) + len(value) + 32
            within += size <= limit
        decoded = ours.decode(block, limit)
        assert (len(decoded.fields), decoded.too_large) == (within, size > limit)


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


def test_huffman_strings_remembered_are_few_however_small() -> None:
    """What keeps a string in memory is charged, and most of what a small one takes."""
    strings, encode = HuffmanStrings(64 * 1024), HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
    tracemalloc.start()
    for number in range(10_000):
        strings.decode(encode(str(number).encode()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 64 * 1024


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


Lines: TypeAlias = list[tuple[str, str, int]]


def lines(block: DecodedBlock) -> Lines:
    return [(field.name, field.value, field.size) for field in block.fields]


class Built:
    """Builds heads of blocks, and counts how often."""

    def __init__(self, memo_bytes: int = 8192, budget: MemoBudget | None = None) -> None:
        self.times = 0
        self.budget = budget or MemoBudget(1 << 20)
        self.names = FieldNames(frozenset())
        self.memo = HeadMemo(HuffmanStrings(4096), self, ENOUGH, memo_bytes, self.budget)

    def build(self, block: DecodedBlock) -> Lines:
        self.times += 1
        if any(field.name == "bad" for field in block.fields):
            raise MalformedRequest("bad")
        return lines(block)


def test_a_block_seen_before_is_not_decoded() -> None:
    """From the third time on, while the table is the same, the same object comes back."""
    built, encoder = Built(), hpack.Encoder()
    built.memo.head(encoder.encode([("a", "1")]))
    block = encoder.encode([("a", "1")])
    built.memo.head(block)
    second = built.memo.head(block)
    assert built.memo.head(block) is second
    assert built.times == 3


def test_blocks_that_come_once_take_no_memory() -> None:
    """And do not hide one that comes again and again among them."""
    built, again = Built(), b"\x00\x01a\x01="
    for value in range(64):
        built.memo.head(b"\x00\x01a\x01" + bytes([value + 64]))
        built.memo.head(again)
    assert built.times == 66
    assert (1 << 20) - built.budget.left_bytes < 2 * 1100


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
        for _ in range(3):
            assert built.memo.head(b"\xbe") == [("a", chr(value), 34)]


@given(blocks=st.lists(st.tuples(FIELDS, st.integers(1, 4)), max_size=10))
def test_a_memo_says_what_a_fresh_decoding_says(blocks: Any) -> None:
    """Whatever came between, and however often a block is repeated."""
    built, encoder, plain = Built(memo_bytes=4096), hpack.Encoder(), decoder()
    for fields, times in blocks:
        block = encoder.encode([(n, v, sensitive) for n, v, sensitive in fields])
        for _ in range(times):
            assert built.memo.head(block) == lines(plain.decode(block, ENOUGH))


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
    for block in [*blocks, *blocks]:
        one.memo.head(block)
        two.memo.head(block)
        assert 0 <= budget.left_bytes <= 3000
    assert budget.left_bytes < 1000
    one.memo.forget()
    two.memo.forget()
    assert budget.left_bytes == 3000


@pytest.mark.parametrize("value", [b"a" * 3000, "\U0001f600".encode() + b"a" * 3000])
def test_what_a_small_block_repeats_from_the_table_is_charged(value: bytes) -> None:
    """And four times that, where one character makes all others of its text as wide as itself."""
    built = Built(memo_bytes=100_000)
    built.memo.head(b"\x40\x01a" + bytes(encode_integer(len(value), 7)) + value)
    for _ in range(3):
        built.memo.head(b"\xbe\xbe")
    assert (1 << 20) - built.budget.left_bytes >= 2 * (sys.getsizeof(value.decode()) - sys.getsizeof(""))
