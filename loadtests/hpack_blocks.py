"""Header blocks of real clients as templates: what may differ from request to request, and when they repeat.

A client's encoder refers to a table that every block may change (RFC 7541, 2.3.2), so a block is right only
in its place in the connection's sequence. `templates` finds from where on a captured sequence may be repeated
for ever: where the table looks as it did some blocks before, values that vary apart, which keep their length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VARYING: Final = (b"traceparent", b"grpc-timeout")
MOST_BLOCKS: Final = 100
"""Longest cycle looked for: captures are files in the repository."""


class NoCycle(Exception):
    """A captured sequence never comes back to a table it had before; capture more of it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that varies: put in as a string literal (RFC 7541, 5.2) of what it stands for.

    Attributes:
        name: the field's name.
        sample: the captured value; another must have its length.
        huffman: how the client coded it.
    """

    name: str
    sample: str
    huffman: bool


@dataclass(frozen=True, slots=True)
class Templates:
    """A sequence of blocks, each of fixed bytes and slots.

    Attributes:
        blocks: the first block of a connection, the second, and so on.
        cycle: where to go on after the last; their number if there is no going on.
    """

    blocks: tuple[tuple[bytes | Slot, ...], ...]
    cycle: int


def templates(blocks: Sequence[bytes]) -> Templates:
    """Return templates of captured blocks, up to the end of their richest cycle of `MOST_BLOCKS` at most.

    The one with the most different blocks, values that vary apart: a client that reuses what it sent lately
    has short cycles too, in which nothing is new.

    Raises:
        NoCycle: there is none in these blocks; a single block, which cannot have one, is no fault.
        ValueError: they are no HPACK.
    """
    table = HeaderTable()
    parsed: list[tuple[bytes | Slot, ...]] = []
    states = [_state(table)]
    for block in blocks:
        parsed.append(tuple(_parts(block, table)))
        states.append(_state(table))
    if len(blocks) == 1:
        return Templates(tuple(parsed), 1)
    cycles = [
        (end - start, start)
        for start in range(len(states))
        for end in range(start + 1, min(start + MOST_BLOCKS, len(blocks)) + 1)
        if states[start] == states[end]
    ]
    if not cycles:
        raise NoCycle(f"{len(blocks)} blocks, and no table looked as one before")
    shapes = [tuple(part for part in block if isinstance(part, bytes)) for block in parsed]
    length, start = max(cycles, key=lambda c: (len(set(shapes[c[1] : c[1] + c[0]])), -c[0], -c[1]))
    return Templates(tuple(parsed[: start + length]), start)


def string_literal(value: bytes, *, huffman: bool) -> bytes:
    """Return a string literal (RFC 7541, 5.2)."""
    coded = _HUFFMAN.encode(value) if huffman else value
    return _integer(len(coded), 7, 0x80 if huffman else 0) + coded


_HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def _state(table: HeaderTable) -> tuple[tuple[bytes, bytes | int], ...]:
    """Return what of a table decides what blocks mean: of values that vary, the length."""
    return tuple((name, len(value) if name in VARYING else value) for name, value in table.dynamic_entries)


def _parts(block: bytes, table: HeaderTable) -> Iterator[bytes | Slot]:
    """Yield a block's fixed bytes and slots, and do to the table what the block does."""
    at = fixed = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # 6.1, indexed
            _, at = _read_integer(block, at, 7)
            continue
        if first & 0xE0 == 0x20:  # 6.3, table size update
            table.maxsize, at = _read_integer(block, at, 5)
            continue
        indexing = bool(first & 0x40)  # 6.2.1; otherwise 6.2.2 or 6.2.3
        index, at = _read_integer(block, at, 6 if indexing else 4)
        if index:
            name = table.get_by_index(index)[0]
        else:
            name, at, _ = _read_string(block, at)
        value_at = at
        value, at, huffman = _read_string(block, at)
        if name in VARYING:
            yield block[fixed:value_at]
            yield Slot(name.decode(), value.decode(), huffman)
            fixed = at
        if indexing:
            table.add(name, value)
    yield block[fixed:]


def _read_string(block: bytes, at: int) -> tuple[bytes, int, bool]:
    huffman = bool(block[at] & 0x80)
    length, at = _read_integer(block, at, 7)
    raw = block[at : at + length]
    return (decode_huffman(raw) if huffman else raw), at + length, huffman


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read an integer (RFC 7541, 5.1); return it and where the next thing begins."""
    most = (1 << bits) - 1
    value, at = block[at] & most, at + 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _integer(value: int, bits: int, flags: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((flags | value,))
    coded, value = bytearray((flags | most,)), value - most
    while value > 0x7F:
        coded.append(0x80 | value & 0x7F)
        value >>= 7
    coded.append(value)
    return bytes(coded)
