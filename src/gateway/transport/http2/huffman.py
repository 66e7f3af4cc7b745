"""Huffman-coded strings of HPACK (RFC 7541 section 5.2), a byte at a time and remembered."""

from __future__ import annotations

from typing import Final

from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE

from gateway.transport.http2.errors import ConnectionFault, ErrorCode

_LONGEST_REMEMBERED: Final = 256
_ENTRY_BYTES: Final = 128  # two objects and their place in the table; most strings are smaller than that


class _State:
    """A state between two bytes.

    Attributes:
        number: the library's.
        steps: what each byte met so far does in it: next state, symbols, whether a string may end there.
    """

    __slots__ = ("number", "steps")

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: list[tuple[_State, bytes, bool] | None] = [None] * 256


class HuffmanStrings:
    """Decodes strings; those seen lately cost one lookup, others half of what the library takes.

    The library's state machine goes four bits at a time; this one joins two of its steps for each byte the
    first time that byte is met in that state, so there are at most 256 x 256 of them. Event loop only.

    Args:
        memo_bytes: strings remembered, coded and plain, and their objects; all are forgotten when it is full.
    """

    __slots__ = ("_known", "_left", "_memo_bytes", "_states")

    def __init__(self, memo_bytes: int) -> None:
        self._memo_bytes = memo_bytes
        self._left = memo_bytes
        self._known: dict[bytes, bytes] = {}
        self._states: dict[int, _State] = {0: _State(0)}

    def decode(self, coded: bytes) -> bytes:
        """Return the plain string.

        Raises:
            ConnectionFault: COMPRESSION_ERROR, `coded` is no such string.
        """
        known = self._known.get(coded)
        if known is not None:
            return known
        plain = self._decode(coded)
        if len(coded) <= _LONGEST_REMEMBERED:
            self._remember(coded, plain)
        return plain

    def _remember(self, coded: bytes, plain: bytes) -> None:
        charge = len(coded) + len(plain) + _ENTRY_BYTES
        self._left -= charge
        if self._left < 0:
            self._known = {}
            self._left = self._memo_bytes - charge
        self._known[coded] = plain

    def _decode(self, coded: bytes) -> bytes:
        state, complete = self._states[0], True
        plain: list[bytes] = []
        for byte in coded:
            step = state.steps[byte]
            if step is None:
                step = state.steps[byte] = self._joined(state.number, byte)
            state, symbols, complete = step
            plain.append(symbols)
        if not complete:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "Huffman string is incomplete")
        return b"".join(plain)

    def _joined(self, number: int, byte: int) -> tuple[_State, bytes, bool]:
        """Take the library's two steps for one byte."""
        symbols = bytearray()
        flags = 0
        for nibble in (byte >> 4, byte & 0x0F):
            number, flags, symbol = HUFFMAN_TABLE[number * 16 + nibble]
            if flags & HUFFMAN_FAIL:
                raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "Huffman string is invalid")
            if flags & HUFFMAN_EMIT_SYMBOL:
                symbols.append(symbol)
        state = self._states.get(number)
        if state is None:
            state = self._states[number] = _State(number)
        return state, bytes(symbols), bool(flags & HUFFMAN_COMPLETE)
