"""HPACK decoding (RFC 7541) with a generation of the dynamic table, so that results can be remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.fields import Field

if TYPE_CHECKING:
    from gateway.transport.http2.fields import FieldNames
    from gateway.transport.http2.huffman import HuffmanStrings

TABLE_BYTES: Final = 4096
"""Largest dynamic table a client may keep here: what RFC 9113 gives it before any SETTINGS."""

_FIRST_DYNAMIC: Final = 62  # section 2.3.3, behind the static table
_LONGEST_INTEGER_SHIFT: Final = 28  # five octets: more than any length or index here can need


class DecodedBlock(NamedTuple):
    """One header block.

    Attributes:
        fields: its field lines, in order; those before the limit if it is too large.
        too_large: the list passes the size asked for; the table is up to date all the same.
    """

    fields: list[Field]
    too_large: bool


class HpackDecoder:
    """The decoding side of one connection.

    Invariant: `generation` differs before and after a block that changed the dynamic table or its size, and a
    block of which that is not true means the same whenever it comes again in that generation.

    Args:
        strings: decodes Huffman strings; shared.
        names: of fields; shared.
    """

    __slots__ = ("_capacity", "_entries", "_names", "_size", "_static", "_strings", "generation")

    def __init__(self, strings: HuffmanStrings, names: FieldNames) -> None:
        self.generation = 0
        self._strings = strings
        self._names = names
        self._static = names.static
        self._entries: list[Field] = []  # newest last
        self._size = 0
        self._capacity = TABLE_BYTES

    def decode(self, block: bytes, max_list_bytes: int) -> DecodedBlock:
        """Decode a whole block; see section 6 for the representations.

        Args:
            block: its bytes.
            max_list_bytes: size of the list, in the counting of section 4.1, from which fields are dropped.

        Raises:
            ConnectionFault: COMPRESSION_ERROR; the decoder is of no use afterwards.
        """
        try:
            return self._decode(block, max_list_bytes)
        except IndexError as exc:
            raise _error("header block ends early or names an entry that is not there") from exc

    def _decode(self, block: bytes, max_list_bytes: int) -> DecodedBlock:
        end = len(block)
        position = self._size_updates(block) if end and block[0] & 0xE0 == 0x20 else 0
        left = max_list_bytes
        static, entries = self._static, self._entries
        fields: list[Field] = []
        while position < end:
            byte = block[position]
            if byte >= 0x80:  # 6.1 indexed
                index = byte & 0x7F
                position += 1
                if index == 0x7F:
                    index, position = _integer(block, position - 1, 0x7F)
                # Indexing from the end of `entries` fails of itself beyond the oldest.
                if index >= _FIRST_DYNAMIC:
                    field = entries[_FIRST_DYNAMIC - 1 - index]
                elif index:
                    field = static[index - 1]
                else:
                    raise _error("index 0")
            elif byte >= 0x40:  # 6.2.1 literal with incremental indexing
                field, position = self._literal(block, position, 0x3F)
                self._insert(field)
            elif byte >= 0x20:
                raise _error("table size update behind a field")
            else:  # 6.2.2 and 6.2.3 literal without indexing, or never indexed
                field, position = self._literal(block, position, 0x0F)
            left -= field.size
            if left >= 0:
                fields.append(field)
        return DecodedBlock(fields, left < 0)

    def _size_updates(self, block: bytes) -> int:
        """Apply the updates at the front of a block (sections 4.2 and 6.3); at most two make sense."""
        position, updates = 0, 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            capacity, position = _integer(block, position, 0x1F)
            updates += 1
            if capacity > TABLE_BYTES or updates > 2:
                raise _error("table size update beyond what SETTINGS allow")
            self.generation += 1
            self._capacity = capacity
            self._evict()
        return position

    def _entry(self, index: int) -> Field:
        if index < _FIRST_DYNAMIC:
            return self._static[index - 1]
        return self._entries[_FIRST_DYNAMIC - 1 - index]

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        index = block[position] & mask
        position += 1
        if index == mask:
            index, position = _integer(block, position - 1, mask)
        if index:
            named = self._entry(index).named
        else:
            name, position = self._string(block, position)
            named = self._names.named(name)
        value, position = self._string(block, position)
        return Field(named, value), position

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        """Read a string (section 5.2)."""
        first = block[position]
        length = first & 0x7F
        position += 1
        if length == 0x7F:
            length, position = _integer(block, position - 1, 0x7F)
        end = position + length
        text = block[position:end]
        if len(text) != length:
            raise _error("string passes the end of its header block")
        return (self._strings.decode(text) if first >= 0x80 else text), end

    def _insert(self, field: Field) -> None:
        """Add an entry (section 4.4); one that is larger than the table leaves it empty."""
        self.generation += 1
        self._entries.append(field)
        self._size += field.size
        if self._size > self._capacity:
            self._evict()

    def _evict(self) -> None:
        """Drop the oldest entries until the rest fits (section 4.3)."""
        count = 0
        while self._size > self._capacity:
            self._size -= self._entries[count].size
            count += 1
        if count:
            del self._entries[:count]


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Read an integer with its prefix (section 5.1); return it and the position behind it."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift >= _LONGEST_INTEGER_SHIFT:
            raise _error("integer is too long")


def _error(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, reason)
