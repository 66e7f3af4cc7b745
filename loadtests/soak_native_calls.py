"""A client of the native transport that breaks off some calls in every way, and judges the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Final

from loadtests.replay.ends import Answers, End, of_grpc_status
from loadtests.replay.http2_link import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    Http2Link,
    frame,
)
from loadtests.soak_native_requests import STREAM_BLOCK, prefixed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from loadtests.soak_native_requests import Client, Requests

WINDOW_BYTES: Final = 65_535
"""That a client opens for each answer, whatever the captured opening says."""
_OPENED: Final = frame(SETTINGS, 0, 0, b"\0\4" + WINDOW_BYTES.to_bytes(4))
_MID_ANSWER_BYTES: Final = 30_000
_CODES: Final = (0, 2, 5, 8, 8, 8, 11, 0xFFFF_FFFF)  # RFC 9113, 7, and one of no meaning
_MOST_PROBLEMS: Final = 50


@dataclass(slots=True)
class Traffic:
    """What all connections share.

    Attributes:
        requests: where requests come from.
        chance: decides what becomes of each.
        started: calls begun.
        right: answered as they had to be.
        broken_off: reset by the client, on purpose.
        lost: unanswered on a connection that the client ended.
        problems: everything else, and how often.
        ways: calls begun, by what was done with them.
    """

    requests: Requests
    chance: random.Random
    started: int = 0
    right: int = 0
    broken_off: int = 0
    lost: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)

    @property
    def unaccounted(self) -> int:
        """Calls begun of which nothing is known, once none is under way; problems are such calls, too."""
        return self.started - self.right - self.broken_off - self.lost

    def problem(self, text: str) -> None:
        """Count what must not be."""
        self.problems[text if len(self.problems) < _MOST_PROBLEMS else "further problems"] += 1


class Calls(Http2Link):
    """One connection: calls that are answered, and calls that are given up at any point of their lives.

    Attributes:
        later: what is to be done after the next turn of the loop.
        offended: the client has done what ends the connection.
        abort: the client means to drop it now.
    """

    def __init__(self, client: Client, traffic: Traffic) -> None:
        super().__init__(client.opening + _OPENED, Answers())
        self._blocks, self._traffic = client.blocks, traffic
        self._position, self._next_stream = 0, 1
        self._open: dict[int, bytes | None] = {}  # the right body; None: a call that must fail
        self._bodies: dict[int, bytes] = {}
        self._starved: dict[int, Callable[[], None]] = {}  # what to do in mid answer
        self._said = ""
        self.later: list[Callable[[], None]] = []
        self.offended = False
        self.abort = False

    @property
    def waiting(self) -> int:
        """Calls under way."""
        return len(self._open)

    def begin(self) -> None:
        """Begin a call of some kind."""
        traffic = self._traffic
        traffic.started += 1
        way = traffic.chance.choices(self._WAYS, cum_weights=self._UP_TO)[0]
        traffic.ways[way.__name__.lstrip("_")] += 1
        way(self, traffic.started)

    def ask(self, number: int) -> None:
        """Begin a call that nothing is done to."""
        self._whole(number)

    # Calls that are answered

    def _whole(self, number: int) -> None:
        stream = self._head(number)
        message, self._open[stream] = self._traffic.requests.small(number)
        self._put(stream, message, END_STREAM)

    def _in_pieces(self, number: int) -> None:
        stream = self._head(number)
        message, self._open[stream] = self._traffic.requests.small(number)
        for at in range(0, len(message), 9):
            self._put(stream, message[at : at + 9])
        self._put(stream, b"", END_STREAM)

    def _half_closed_later(self, number: int) -> None:
        stream = self._head(number)
        message, self._open[stream] = self._traffic.requests.small(number)
        self._put(stream, message)
        self.later.append(lambda: self._end(stream))

    def _large(self, number: int) -> None:
        message, answer = self._traffic.requests.large(number)
        if self._window < len(message):  # as before the server's greeting
            self._whole(number)
            return
        stream = self._head(number)
        self._open[stream] = answer
        self.put_body(stream, message)

    def _stream(self, number: int) -> None:
        stream = self._stream_head()
        self._messages(stream, number, self._traffic.chance.randrange(4))
        self.later.append(lambda: self._end(stream))

    # Calls that must fail

    def _half_a_message(self, number: int) -> None:
        stream = self._head(number)
        self._open[stream] = None
        self._put(stream, self._traffic.requests.small(number)[0][:-4], END_STREAM)

    def _no_message(self, number: int) -> None:
        stream = self._head(number, END_STREAM)
        self._open[stream] = None

    def _garbage(self, number: int) -> None:
        stream = self._head(number)
        self._open[stream] = None
        self._put(stream, prefixed(b"\xff" * 20), END_STREAM)

    # Calls that are given up

    def _reset_at_once(self, number: int) -> None:
        self._whole(number)
        self._reset(self._next_stream - 2)

    def _reset_later(self, number: int) -> None:
        self._whole(number)
        stream = self._next_stream - 2
        self.later.append(lambda: self._reset(stream))

    def _reset_after_head(self, number: int) -> None:
        stream = self._head(number)
        self._open[stream] = b""
        self.later.append(lambda: self._reset(stream))

    def _reset_in_mid_message(self, number: int) -> None:
        stream = self._head(number)
        self._open[stream] = b""
        self._put(stream, self._traffic.requests.small(number)[0][:-7])
        self.later.append(lambda: self._reset(stream))

    def _reset_in_mid_answer(self, number: int) -> None:
        self._large(number)
        stream = self._next_stream - 2
        self._starved[stream] = lambda: self._reset(stream)

    def _reset_stream(self, number: int) -> None:
        stream = self._stream_head()
        self._messages(stream, number, self._traffic.chance.randrange(4))
        self.later.append(lambda: self._reset(stream))

    # What ends the connection

    def leave_in_mid_frame(self) -> None:
        """Begin a message that never goes on; the owner closes."""
        self._traffic.started += 1
        stream = self._head(self._traffic.started)
        message, self._open[stream] = self._traffic.requests.small(self._traffic.started)
        self.out.append(frame(DATA, END_STREAM, stream, message)[:-11])
        self.offended = True

    def leave_in_mid_block(self) -> None:
        """Begin a header block that never ends; the owner closes."""
        self.out.append(frame(HEADERS, 0, self._next_stream, b"\x82"))
        self.offended = True

    def leave_in_mid_answer(self) -> None:
        """Ask for a large answer, and set `abort` when the first of it is there."""
        self._traffic.started += 1
        self._large(self._traffic.started)
        self._starved[self._next_stream - 2] = self._mean_to_abort
        self.offended = True

    def offend(self) -> None:
        """Break the protocol: the server has to say so and close."""
        self.out.append(frame(DATA, 0, 0, b"x"))
        self.offended = True

    # From the link

    def on_headers(self, stream: int, end: End | None, flags: int) -> None:
        """Judge a call at its end."""
        if end is None and not flags & END_STREAM:
            return
        body = self._bodies.pop(stream, b"")
        if (then := self._starved.pop(stream, None)) is not None:
            then()  # it failed before there was an answer to give up
        if stream not in self._open:
            return  # given up when this was on its way
        right = self._open.pop(stream)
        if (end is End.FAILED and not body) if right is None else (end is End.GOOD and body == right):
            self._traffic.right += 1
            return
        said = "" if end is End.GOOD else f", {self._said}"
        self._traffic.problem(f"{end}{said}: {body[:200].hex()} and not {(right or b'')[:200].hex()}")

    def on_data(self, stream: int, data: bytes) -> None:
        """Keep a piece of an answer; a call that starves gives no credit for it."""
        if stream not in self._open:
            return
        known = self._bodies.get(stream)
        self._bodies[stream] = body = data if known is None else known + data
        if (then := self._starved.get(stream)) is None:
            if len(data) > 100:
                self.give_credit(stream, len(data))
        elif len(body) > _MID_ANSWER_BYTES:
            del self._starved[stream]
            then()

    def on_reset(self, stream: int, code: int) -> None:
        """The server gives no call up of its own, but a client's rest of one that it has answered."""
        if self._open.pop(stream, b"-") != b"-":
            self._traffic.problem(f"RST_STREAM {code}")

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.going = False
            if not self.offended:
                self._traffic.problem(f"GOAWAY {payload[4:].hex()}")
            return
        super()._on_other(kind, flags, stream, payload)

    def _read_end(self, headers: dict[str, str]) -> End | None:
        status = headers.get("grpc-status")
        if headers.get(":status", "200") == "200" and status is None:
            return None
        self._said = f"{headers.get(':status')} {status} {headers.get('grpc-message')}"
        return End.FAILED if status is None else of_grpc_status(int(status))

    # Frames

    def _head(self, number: int, flags: int = 0) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        block = self._blocks.encode(self._position, number)
        self._position = self._blocks.after(self._position)
        self.out.append(frame(HEADERS, END_HEADERS | flags, stream, block))
        return stream

    def _stream_head(self) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.out.append(frame(HEADERS, END_HEADERS, stream, STREAM_BLOCK))
        return stream

    def _messages(self, stream: int, number: int, count: int) -> None:
        right = b""
        for index in range(count):
            message, answer = self._traffic.requests.small((index + 1 << 36) + number, stream=True)
            self._put(stream, message)
            right += answer
        self._open[stream] = right

    def _put(self, stream: int, data: bytes, flags: int = 0) -> None:
        self._window -= len(data)
        if self._window < 0:
            self._traffic.problem("the server gave no credit back")
        self.out.append(frame(DATA, flags, stream, data))

    def _end(self, stream: int) -> None:
        if stream in self._open:
            self._put(stream, b"", END_STREAM)

    def _reset(self, stream: int) -> None:
        if stream not in self._open:
            return  # answered before it could be given up
        del self._open[stream]
        self._bodies.pop(stream, None)
        self._traffic.broken_off += 1
        code = self._traffic.chance.choice(_CODES)
        self.out.append(frame(RST_STREAM, 0, stream, code.to_bytes(4)))

    def _mean_to_abort(self) -> None:
        self.abort = True

    _SHARES: ClassVar[Sequence[tuple[Callable[[Calls, int], None], float]]] = (
        (_whole, 88.0),
        (_in_pieces, 1.0),
        (_half_closed_later, 2.0),
        (_large, 0.1),
        (_stream, 0.4),
        (_half_a_message, 0.5),
        (_no_message, 0.3),
        (_garbage, 0.3),
        (_reset_at_once, 2.0),
        (_reset_later, 3.0),
        (_reset_after_head, 1.0),
        (_reset_in_mid_message, 1.0),
        (_reset_in_mid_answer, 0.1),
        (_reset_stream, 0.3),
    )
    """Of a hundred calls."""
    _WAYS: ClassVar = [way for way, _ in _SHARES]
    _UP_TO: ClassVar = list(accumulate(share for _, share in _SHARES))
