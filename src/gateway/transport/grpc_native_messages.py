"""Length-prefixed messages (gRPC over HTTP/2): cut out of DATA, and bounded while they are incomplete."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.calls import Buffer, RpcFailure, RpcStatus
from gateway.transport.grpc_native_status import INTERNAL, RESOURCE_EXHAUSTED
from gateway.transport.http2.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable


PREFIX_BYTES: Final = 5
read_prefix: Final = struct.Struct(">BI").unpack_from
write_prefix: Final = struct.Struct(">BI").pack

_SMALL_BYTES: Final = 64 * 1024  # copied once more, so that their readers get the fastest kind of buffer
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_NO_MEMORY: Final = RpcStatus(RESOURCE_EXHAUSTED, "no memory to compress or inflate a message")


class Message(NamedTuple):
    """A whole message: its compression flag, its bytes."""

    compressed: bool
    body: Buffer


class BufferBudget:
    """Bytes of messages that are incomplete or not read yet, of one server.

    Args:
        max_bytes: most of them.
        limit_fired: counts a limit that was met.
    """

    __slots__ = ("_left", "limit_fired")

    def __init__(self, max_bytes: int, limit_fired: Callable[[Limit], None]) -> None:
        self._left = max_bytes
        self.limit_fired = limit_fired

    def take(self, size: int) -> None:
        """Charge `size` bytes.

        Raises:
            RpcFailure: RESOURCE_EXHAUSTED, there is no room; nothing was charged.
        """
        if size > self._left:
            self.limit_fired(Limit.BUFFERED)
            raise RpcFailure(RpcStatus(RESOURCE_EXHAUSTED, "too many bytes of incomplete messages"))
        self._left -= size

    def give_back(self, size: int) -> None:
        """Take back what was charged."""
        self._left += size


class MessageAssembly:
    """Cuts the DATA of one stream into messages.

    Memory: what has arrived of one message, charged to the budget until `next` has returned it.

    Args:
        budget: of the server.
        max_bytes: largest message.

    Attributes:
        incomplete: part of a message has arrived.
    """

    __slots__ = ("_body", "_budget", "_charged", "_flag", "_length", "_max_bytes", "_prefix")

    def __init__(self, budget: BufferBudget, max_bytes: int) -> None:
        self._budget = budget
        self._max_bytes = max_bytes
        self._prefix = b""
        self._flag = 0
        self._length = -1  # unknown
        self._body = bytearray()
        self._charged = 0

    @property
    def incomplete(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._prefix) or self._length >= 0

    def next(self, data: bytes, start: int, end: int) -> tuple[Message | None, int]:
        """Take bytes up to the end of one message; return it, if it is whole, and the position behind it.

        Raises:
            RpcFailure: the message is too large, or there is no room for it.
        """
        if self._length < 0:
            start = self._read_prefix(data, start, end)
            if self._length < 0:
                return None, start
        missing = self._length - len(self._body)
        if not self._body and end - start >= missing:
            stop = start + missing
            return self._complete(data[start:stop]), stop
        stop = min(end, start + missing)
        self._charge(stop - start)
        self._body += memoryview(data)[start:stop]
        if len(self._body) < self._length:
            return None, stop
        body = self._body
        return self._complete(bytes(body) if len(body) <= _SMALL_BYTES else body), stop

    def drop(self) -> None:
        """Let go of an incomplete message."""
        self._budget.give_back(self._charged)
        self._charged = 0
        self._body = bytearray()

    def _read_prefix(self, data: bytes, start: int, end: int) -> int:
        missing = PREFIX_BYTES - len(self._prefix)
        stop = min(end, start + missing)
        self._prefix += data[start:stop]
        if len(self._prefix) == PREFIX_BYTES:
            self._flag, self._length = read_prefix(self._prefix)
            self._prefix = b""
            check_prefix(self._flag, self._length, self._max_bytes, self._budget.limit_fired)
        return stop

    def _charge(self, size: int) -> None:
        self._budget.take(size)
        self._charged += size

    def _complete(self, body: Buffer) -> Message:
        self.drop()
        self._length = -1
        return Message(bool(self._flag), body)


def check_prefix(flag: int, length: int, max_bytes: int, limit_fired: Callable[[Limit], None]) -> None:
    """Check a message's prefix before its bytes are kept.

    Raises:
        RpcFailure: RESOURCE_EXHAUSTED, the message is too large; INTERNAL, the flag is none.
    """
    if length > max_bytes:
        limit_fired(Limit.MESSAGE)
        text = f"Received message larger than max ({length} vs. {max_bytes})"  # the C core's words
        raise RpcFailure(RpcStatus(RESOURCE_EXHAUSTED, text))
    if flag > 1:
        raise RpcFailure(RpcStatus(INTERNAL, "a message's compression flag is neither 0 nor 1"))


def inflate(body: Buffer, encoding: str, max_bytes: int) -> bytes:
    """Undo the compression of a message; any thread.

    Raises:
        RpcFailure: RESOURCE_EXHAUSTED, the result is too large, or for the memory there is; INTERNAL, it is
            no such data.
    """
    try:
        inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise RpcFailure(RpcStatus(INTERNAL, f"a message is not valid {encoding} data")) from exc
    except MemoryError as exc:
        raise RpcFailure(_NO_MEMORY) from exc
    if len(plain) > max_bytes:
        text = f"decompressed message is larger than the limit ({max_bytes} bytes)"
        raise RpcFailure(RpcStatus(RESOURCE_EXHAUSTED, text))
    if not inflater.eof:
        raise RpcFailure(RpcStatus(INTERNAL, f"a message ends before its {encoding} data does"))
    return plain


def deflate(message: bytes, encoding: str) -> bytes:
    """Compress a message, fast rather than small; any thread.

    Raises:
        RpcFailure: RESOURCE_EXHAUSTED, there is too little memory.
    """
    try:
        deflater = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
        return deflater.compress(message) + deflater.flush()
    except MemoryError as exc:
        raise RpcFailure(_NO_MEMORY) from exc
