"""Header blocks to request heads, and the memory of those seen before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from gateway.transport.http2.hpack_decoder import HpackDecoder

if TYPE_CHECKING:
    from gateway.transport.http2.fields import FieldNames
    from gateway.transport.http2.hpack_decoder import DecodedBlock
    from gateway.transport.http2.huffman import HuffmanStrings

HeadT = TypeVar("HeadT")
_HeadT_co = TypeVar("_HeadT_co", covariant=True)

_ENTRY_BYTES: Final = 1024
"""What an entry is charged beyond its key at least: a head with its metadata, roughly."""
_MOST_CANDIDATES: Final = 8


class HeadBuilder(Protocol[_HeadT_co]):
    """Makes heads of decoded blocks; shared by all connections of a server."""

    @property
    def names(self) -> FieldNames:
        """The names of fields, and which of them are free."""

    def build(self, block: DecodedBlock) -> _HeadT_co:
        """Return the head that a block holds.

        Raises:
            StreamFault: the request is malformed.
        """


@dataclass
class MemoBudget:
    """Bytes that the memos of one server may still take together."""

    left_bytes: int


class HeadMemo(Generic[HeadT]):
    """Turns the header blocks of one connection into heads.

    A hit needs full byte equality and a dynamic table that has not changed since: blocks that change the
    table are never remembered, and one that does makes all others be forgotten. Nor are blocks that come
    once: most that hold something new never come again. What is remembered is bounded per connection and,
    through the budget, for the server.

    Args:
        strings: decodes Huffman strings; shared.
        builder: makes a head of a decoded block; what it refuses is not remembered.
        max_list_bytes: size from which fields are dropped and `DecodedBlock.too_large` is set.
        memo_bytes: bound of this connection.
        budget: bound of all.
    """

    __slots__ = (
        "_budget",
        "_builder",
        "_charged",
        "_decoder",
        "_heads",
        "_max_list_bytes",
        "_memo_bytes",
        "_once",
    )

    def __init__(
        self,
        strings: HuffmanStrings,
        builder: HeadBuilder[HeadT],
        max_list_bytes: int,
        memo_bytes: int,
        budget: MemoBudget,
    ) -> None:
        self._decoder = HpackDecoder(strings, builder.names)
        self._builder = builder
        self._max_list_bytes = max_list_bytes
        self._memo_bytes = memo_bytes
        self._budget = budget
        self._heads: dict[bytes, HeadT] = {}
        self._once: list[int] = []  # hashes of blocks that came once
        self._charged = 0

    def head(self, block: bytes) -> HeadT:
        """Return the head of a request.

        Raises:
            ConnectionFault: the block cannot be decoded.
            StreamFault: the request is malformed.
        """
        head = self._heads.get(block)
        if head is not None:
            return head
        decoder = self._decoder
        generation = decoder.generation
        decoded = decoder.decode(block, self._max_list_bytes)
        if decoder.generation != generation:
            if self._charged:
                self.forget()
            return self._builder.build(decoded)
        head = self._builder.build(decoded)
        self._remember(block, head, decoded)
        return head

    def decoded(self, block: bytes) -> DecodedBlock:
        """Decode a block that is no request's head: trailers, or a refused request.

        Raises:
            ConnectionFault: it cannot be decoded.
        """
        generation = self._decoder.generation
        decoded = self._decoder.decode(block, self._max_list_bytes)
        if self._decoder.generation != generation:
            self.forget()
        return decoded

    def forget(self) -> None:
        """Forget every block; the memory goes back to the budget."""
        if self._charged:
            self._heads.clear()
            self._budget.left_bytes += self._charged
            self._charged = 0

    def _remember(self, block: bytes, head: HeadT, decoded: DecodedBlock) -> None:
        """Remember a block that comes the second time."""
        once, candidate = self._once, hash(block)
        if candidate not in once:
            once.append(candidate)
            if len(once) > _MOST_CANDIDATES:
                del once[0]
            return
        once.remove(candidate)
        charge = len(block) + max(_ENTRY_BYTES, _text_bytes(decoded))
        if self._charged + charge > self._memo_bytes:
            self.forget()
        if charge <= self._memo_bytes and charge <= self._budget.left_bytes:
            self._heads[block] = head
            self._charged += charge
            self._budget.left_bytes -= charge


def _text_bytes(decoded: DecodedBlock) -> int:
    """Return at least what the fields' text takes, which a small block may repeat from the table, joined."""
    size = sum([field.size for field in decoded.fields])
    return size if all(field.value.isascii() for field in decoded.fields) else 4 * size
