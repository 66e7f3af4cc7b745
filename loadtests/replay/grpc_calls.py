"""gRPC for the replay: unary calls with a captured client's header blocks, or messages of one stream."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final

from loadtests import captured
from loadtests.hpack_blocks import Slot, string_literal
from loadtests.replay.ends import End
from loadtests.replay.http2_link import DATA, END_HEADERS, END_STREAM, HEADERS, Http2Link, frame
from loadtests.replay.order import REQUEST_ID

if TYPE_CHECKING:
    from loadtests.hpack_blocks import Templates
    from loadtests.replay.ends import Answers
    from loadtests.replay.order import Order

_VALUES: Final = 16384
"""Different values of each varying header, prepared and used in turn."""
_RESPONSE: Final = 0x12
"""First byte of a ModelStreamInferResponse without an error: field 2 follows, not field 1."""
_CREDIT_BYTES: Final = 8192


class GrpcMessages:
    """Makes the length-prefixed messages of an order."""

    def __init__(self, order: Order) -> None:
        self._ids = order.ids
        self._parts: list[tuple[bytes, bytes]] = []
        for body in order.read_bodies():
            framed = b"\0" + len(body).to_bytes(4) + body
            before, _, after = framed.partition(REQUEST_ID.encode()) if order.ids else (framed, b"", b"")
            self._parts.append((before, after))
        self._count = len(self._parts)

    def encode(self, number: int) -> bytes:
        """Return message `number`."""
        before, after = self._parts[number % self._count]
        return b"%b%016x%b" % (before, number, after) if self._ids else before


class HeaderBlocks:
    """Makes the header blocks of a captured client, with values of its own where they vary."""

    def __init__(self, templates: Templates) -> None:
        values: dict[Slot, list[bytes]] = {}
        self._blocks: list[list[bytes | list[bytes]]] = []
        for block in templates.blocks:
            parts: list[bytes | list[bytes]] = []
            for part in block:
                if isinstance(part, bytes):
                    parts.append(part)
                    continue
                # Only the length and the unit of the sample matter: slots that share them share values.
                kind = Slot(part.name, _kind(part), part.huffman)
                if kind not in values:
                    values[kind] = _values(part)
                parts.append(values[kind])
            self._blocks.append(parts)
        self._cycle = templates.cycle

    def encode(self, position: int, number: int) -> bytes:
        """Return the block of a connection's request at `position`, with values for request `number`."""
        index = number % _VALUES
        parts = self._blocks[position]
        return b"".join([part if part.__class__ is bytes else part[index] for part in parts])  # type: ignore[misc]

    def after(self, position: int) -> int:
        """Return the position that follows."""
        position += 1
        return position if position < len(self._blocks) else self._cycle


def _kind(slot: Slot) -> str:
    unit = "" if slot.name == "traceparent" else slot.sample[-1]
    return f"{len(slot.sample)}{unit}"


def _values(slot: Slot) -> list[bytes]:
    """Return values like the slot's sample: of its length, which the client's table depends on."""
    source = random.Random(slot.sample)
    values = []
    for _ in range(_VALUES):
        if slot.name == "traceparent":
            value = f"00-{source.getrandbits(128) | 1:032x}-{source.getrandbits(64) | 1:016x}-00"
        else:
            digits = len(slot.sample) - 1
            value = f"{source.randrange(2, 6)}{source.randrange(10 ** (digits - 1)):0{digits - 1}d}"
            value = value[:digits] + slot.sample[-1]
        values.append(string_literal(value.encode(), huffman=slot.huffman))
    return values


class UnaryCalls(Http2Link):
    """Unary calls over one connection, a stream each."""

    def __init__(
        self, messages: GrpcMessages, blocks: HeaderBlocks, opening: bytes, answers: Answers
    ) -> None:
        super().__init__(opening, answers)
        self._messages, self._blocks = messages, blocks
        self._position, self._next_stream = 0, 1
        self._numbers: dict[int, int] = {}
        self._kept: dict[int, bytearray] = {}

    @property
    def room(self) -> int:
        """Calls that may be made now."""
        return self.most_streams - len(self._numbers) if self.going else 0

    @property
    def unanswered(self) -> list[int]:
        """Calls without an end."""
        return list(self._numbers.values())

    def send(self, number: int) -> None:
        """Put a call into `out`."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._numbers[stream] = number
        block = self._blocks.encode(self._position, number)
        self._position = self._blocks.after(self._position)
        message = self._messages.encode(number)
        size = len(message)
        if self._unsent or size > self._window or size > self._stream_window or size > self._frame_size:
            self.out.append(frame(HEADERS, END_HEADERS, stream, block))
            self.put_body(stream, message)
            return
        # The common case in one piece: two calls of `frame` would cost as much as all the rest.
        self._window -= size
        self.out.append(
            b"%b\x01\x04%b%b%b\x00\x01%b%b"
            % (
                len(block).to_bytes(3),
                (at := stream.to_bytes(4)),
                block,
                size.to_bytes(3),
                at,
                message,
            )
        )

    def on_headers(self, stream: int, end: End | None, flags: int) -> None:
        """A call ends with its trailers."""
        if end is None and not flags & END_STREAM:
            if self._answers.wants(self._numbers.get(stream, -1)):
                self._kept[stream] = bytearray()
            return
        if (number := self._numbers.pop(stream, None)) is None:
            return
        kept = self._kept.pop(stream, None)
        ended = End.FAILED if end is None else end
        if kept is not None and ended is End.GOOD:
            self._answers.samples[number] = ({}, bytes(kept[5:]))
        self._answers.ended.append((number, ended))

    def on_data(self, stream: int, data: bytes) -> None:
        """Of a body only samples are kept."""
        if self._kept and (kept := self._kept.get(stream)) is not None:
            kept += data
        if len(data) > _CREDIT_BYTES:
            self.give_credit(stream, len(data))

    def on_reset(self, stream: int, code: int) -> None:
        """Count the call as failed."""
        self._answers.problems[f"RST_STREAM {code}"] += 1
        self._kept.pop(stream, None)
        if (number := self._numbers.pop(stream, None)) is not None:
            self._answers.ended.append((number, End.FAILED))


class StreamCalls(Http2Link):
    """Calls as messages of one bidirectional stream, answered in order."""

    def __init__(
        self, messages: GrpcMessages, blocks: HeaderBlocks, opening: bytes, answers: Answers
    ) -> None:
        super().__init__(opening, answers)
        self._messages, self._blocks = messages, blocks
        self._open = False
        self._numbers: deque[int] = deque()
        self._body = b""
        self._credit = 0
        self._waiting = bytearray()  # messages that the windows did not allow yet

    @property
    def room(self) -> int:
        """Messages that may be sent now; flow control bounds what really goes out."""
        return 1 << 16 if self.going else 0

    @property
    def unanswered(self) -> list[int]:
        """Messages without an answer."""
        return list(self._numbers)

    def send(self, number: int) -> None:
        """Put a message into `out`, after the stream's head if it is the first."""
        if not self._open:
            self._open = True
            self.out.append(frame(HEADERS, END_HEADERS, 1, self._blocks.encode(0, number)))
        self._numbers.append(number)
        self._waiting += self._messages.encode(number)
        self._go_on()

    def _go_on(self) -> None:
        while size := max(min(self._frame_size, self._window, self._stream_window, len(self._waiting)), 0):
            self.out.append(frame(DATA, 0, 1, bytes(self._waiting[:size])))
            del self._waiting[:size]
            self._window -= size
            self._stream_window -= size

    def _on_credit(self, stream: int, size: int) -> None:
        if stream:
            self._stream_window += size
        else:
            self._window += size
        self._go_on()

    def _on_initial_window(self, value: int) -> None:
        self._stream_window += value - self._initial_window
        self._initial_window = value

    def on_headers(self, stream: int, end: End | None, flags: int) -> None:
        """The stream's end fails what has no answer."""
        del stream
        if end is None and not flags & END_STREAM:
            return
        self._answers.ended += [(number, end or End.FAILED) for number in self._numbers]
        self._numbers.clear()
        self.going = False

    def on_data(self, stream: int, data: bytes) -> None:
        """Take in whole messages."""
        self._credit += len(data)
        if self._credit >= _CREDIT_BYTES:
            self.give_credit(stream, self._credit)
            self._credit = 0
        body, at = self._body + data, 0
        while len(body) - at >= 5:
            end = at + 5 + int.from_bytes(body[at + 1 : at + 5])
            if end > len(body):
                break
            self._on_message(body[at + 5 : end])
            at = end
        self._body = body[at:]

    def on_reset(self, stream: int, code: int) -> None:
        """Count everything without an answer as failed."""
        del stream
        self._answers.problems[f"RST_STREAM {code}"] += 1
        self.on_headers(1, End.FAILED, END_STREAM)

    def _on_message(self, message: bytes) -> None:
        number = self._numbers.popleft()
        if message[:1] != bytes((_RESPONSE,)):
            self._answers.problems[f"in the stream: {message[:120]!r}"] += 1
            self._answers.ended.append((number, End.FAILED))
            return
        if self._answers.wants(number):
            self._answers.samples[number] = ({}, message)
        self._answers.ended.append((number, End.GOOD))


def load_capture(order: Order) -> captured.Capture:
    """Return the capture an order asks for.

    Raises:
        LookupError: captures are of the Open Inference Protocol's methods only.
    """
    stream = order.protocol == "grpc-stream"
    path = captured.STREAM_PATH if stream else captured.UNARY_PATH
    if order.path != path:
        raise LookupError(f"captured clients call {path}, not {order.path}")
    name = captured.variant(stream=stream, deadlines=order.deadlines, traceparent=order.traceparent)
    return captured.load(order.client, name)
