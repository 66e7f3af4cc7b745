"""One connection against a server made by hand, in memory: calls, their ends, windows, faults."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import struct
from typing import TYPE_CHECKING, Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.grpc_native_client_fields import RequestHeads, timeout_text
from tests.transport.grpc_client.memory import HEAD, OK, Server, message, turn
from tests.transport.http2.peer import data, frame, settings, window_update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.transport.grpc_native_client_call import UnaryAnswer

CANCEL = 8


def goaway(last_id: int, code: int = 0) -> bytes:
    return frame(7, payload=struct.pack(">II", last_id, code))


def reset(stream_id: int, code: int) -> bytes:
    return frame(3, 0, stream_id, struct.pack(">I", code))


def setting(name: int, value: int) -> bytes:
    return frame(4, payload=struct.pack(">HI", name, value))


def told(answer: UnaryAnswer) -> tuple[int, str, bool | None]:
    """Return the status, and whether it was sent."""
    return answer.code, answer.details, answer.sent


async def test_a_call_goes_and_comes() -> None:
    """Its head has what gRPC asks for, the time left and the metadata; request and answer are whole."""
    server = Server()
    call = server.call(b"hello", 30.0, [("traceparent", "00-1")])
    await turn()
    head, body = server.taken()
    fields: dict[Any, Any] = dict(server.decoder.decode(head.payload))
    assert fields.pop("grpc-timeout") == "30000000u"
    assert fields == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/a.B/C",
        ":authority": "127.0.0.1:1",
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "model-gateway",
        "grpc-accept-encoding": "identity,deflate,gzip",
        "traceparent": "00-1",
    }
    assert (head.kind, head.flags, head.stream_id) == (1, 4, 1)
    assert body == (0, 1, 1, message(b"hello"))
    server.send(server.answer(1, b"world"))
    assert await call == (0, "", b"world", (), None)


async def test_later_heads_are_short() -> None:
    """What all heads have is in the server's table by then; they mean the same."""
    server = Server()
    await server.called(b"a", b"b")
    first, second = (f for f in server.taken() if f.kind == 1)
    assert server.decoder.decode(first.payload) == server.decoder.decode(second.payload)
    assert len(second.payload) == 8


@pytest.mark.parametrize("size", [0, 30, 31, 200, 4095, 4096, 10_000])
async def test_heads_keep_to_the_servers_table(size: int) -> None:
    """A server with a smaller table is told, before the first field, that no more of it is used."""
    server = Server(greet=False)
    server.decoder.max_allowed_table_size = size
    server.send(setting(1, size))
    server.client.use(server.link)
    server.wire.written = server.wire.written[24:]
    await server.called(b"a", b"b", b"c")
    heads: list[list[Any]] = [list(server.decoder.decode(f.payload)) for f in server.taken() if f.kind == 1]
    assert len(heads) == 3
    assert all(head == heads[0] and head[2] == (":path", "/a.B/C") for head in heads)


def test_a_table_that_shrinks_in_between() -> None:
    """Heads after that are literals."""
    decoder = hpack.Decoder()
    heads = RequestHeads("https", [(":path", "/p"), ("a", "b" * 50)])
    before = decoder.decode(heads.block(None, ()))
    assert decoder.decode(heads.block(None, ())) == before
    heads.resize(40)
    decoder.max_allowed_table_size = 40
    assert [decoder.decode(heads.block(None, ())) for _ in range(2)] == [before, before]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1e-9, "1u"),
        (0.5, "500000u"),
        (99.9, "99900000u"),
        (100.0, "100000m"),
        (1e6, "1000000S"),
        (1e12, "99999999S"),
    ],
)
def test_timeouts_have_eight_digits_at_most(seconds: float, text: str) -> None:
    """And are rounded up."""
    assert timeout_text(seconds) == text


async def test_statuses_of_the_server() -> None:
    """With their texts decoded and their metadata, as trailers or as the only head."""
    server = Server()
    one, two = await server.called(b"1", b"2")
    failed = [
        ("grpc-status", "8"),
        ("grpc-message", "voll: 100%25 f%C3%BCr"),
        ("grpc-retry-pushback-ms", "7"),
    ]
    server.send(server.fields(1, [*HEAD, *failed], end=True))
    server.send(server.fields(3, HEAD), server.fields(3, failed, end=True))
    assert await one == await two == (8, "voll: 100% für", b"", (("grpc-retry-pushback-ms", "7"),), None)
    assert server.resets() == {}


NO_GRPC: dict[str, tuple[list[tuple[str, str]], int]] = {
    "no such path": ([(":status", "404")], 12),
    "a proxy without endpoint": ([(":status", "503"), ("content-type", "text/html")], 14),
    "a login": ([(":status", "302"), ("location", "/")], 2),
    "a web page": ([(":status", "200"), ("content-type", "text/html")], 2),
}


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("case", NO_GRPC)
async def test_answers_that_are_not_grpc(case: str, end: bool) -> None:
    """They fail with the code that gRPC gives their status."""
    fields, code = NO_GRPC[case]
    server = Server()
    (call,) = await server.called()
    server.send(server.fields(1, fields, end=end))
    assert (await call).code == code
    assert server.resets() == ({} if end else {1: CANCEL})


BROKEN: dict[str, tuple[Any, str]] = {
    "no status": (lambda s: s.fields(1, HEAD) + s.fields(1, [("x", "y")], end=True), "without a status"),
    "an end of DATA": (lambda s: s.fields(1, HEAD) + data(1, message(b"a"), end=True), "without a status"),
    "no message": (lambda s: s.fields(1, HEAD) + s.fields(1, OK, end=True), "without a whole message"),
    "half a message": (
        lambda s: s.fields(1, HEAD) + data(1, message(b"abc")[:-1]) + s.fields(1, OK, end=True),
        "without a whole message",
    ),
    "half a prefix": (
        lambda s: s.fields(1, HEAD) + data(1, b"\0\0") + s.fields(1, OK, end=True),
        "without a whole message",
    ),
    "two messages": (lambda s: s.fields(1, HEAD) + data(1, message(b"a") * 2), "more than one message"),
    "two empty messages": (lambda s: s.fields(1, HEAD) + data(1, message(b"") * 2), "more than one message"),
    "two heads": (lambda s: s.fields(1, HEAD) + s.fields(1, HEAD), "two heads"),
    "DATA first": (lambda s: data(1, message(b"a")), "before the head"),
    "an unknown compression": (lambda s: s.fields(1, HEAD) + data(1, message(b"a", 1)), "not offered"),
    "no flag": (
        lambda s: s.fields(1, [*HEAD, ("grpc-encoding", "gzip")]) + data(1, message(b"a", 2)),
        "not offered",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_answers_that_break_grpc(case: str) -> None:
    """The call fails, may have run, and is called off; the connection goes on."""
    make, said = BROKEN[case]
    server = Server()
    calls = await server.called(b"1", b"2")
    server.send(make(server), server.answer(3, b"fine"))
    broken, fine = await asyncio.gather(*calls)
    assert (broken.code, broken.sent) == (2, True)
    assert broken.details.startswith("stream removed: ")
    assert said in broken.details
    assert fine.body == b"fine"


async def test_interim_heads_are_passed_over() -> None:
    """The head that counts comes behind them."""
    server = Server()
    (call,) = await server.called()
    server.send(server.fields(1, [(":status", "103")]), server.answer(1, b"x"))
    assert (await call).body == b"x"


@pytest.mark.parametrize(("size", "flag"), [(10, 1), (100_000, 1), (10, 0)])
async def test_compressed_answers_are_inflated(size: int, flag: int) -> None:
    """If their messages say so."""
    server = Server()
    (call,) = await server.called()
    body = b"x" * size
    sent = gzip.compress(body) if flag else body
    head = [*HEAD, ("grpc-encoding", "gzip")]
    server.send(server.fields(1, head), data(1, message(sent, flag)), server.fields(1, OK, end=True))
    assert (await call).body == body


async def test_a_message_that_inflates_too_far() -> None:
    """The limit is on what it becomes."""
    server = Server(max_message_bytes=1000)
    (call,) = await server.called()
    head = [*HEAD, ("grpc-encoding", "gzip")]
    server.send(server.fields(1, head), data(1, message(gzip.compress(bytes(10**6)), 1)))
    server.send(server.fields(1, OK, end=True))
    assert (await call).code == 8


async def test_a_message_beyond_the_limit() -> None:
    """It is refused by its prefix."""
    server = Server(max_message_bytes=10)
    (call,) = await server.called()
    server.send(server.fields(1, HEAD), data(1, struct.pack(">BI", 0, 11)))
    assert told(await call) == (8, "Received message larger than max (11 vs. 10)", True)
    assert server.resets() == {1: CANCEL}


@pytest.mark.parametrize(
    ("code", "status", "sent"),
    [(0, 13, True), (1, 13, True), (2, 13, True), (7, 14, False), (8, 1, True), (11, 8, True), (12, 7, True)],
)
async def test_resets(code: int, status: int, sent: bool) -> None:
    """As gRPC maps them; only a refused stream has surely not been begun."""
    server = Server()
    (call,) = await server.called()
    server.send(reset(1, code))
    assert told(await call) == (status, f"Received RST_STREAM with error code {code}", sent)
    assert server.resets() == {}


async def test_going_away() -> None:
    """What the server has not begun is told apart, what it has begun is answered; then comes the end."""
    server = Server()
    calls = await server.called(b"1", b"2", b"3")
    server.send(goaway(2**31 - 1), goaway(3))
    await turn()
    assert told(await calls[2]) == (14, "GOAWAY received", False)
    server.send(server.answer(1, b"one"))
    assert not server.wire.closed
    server.send(server.answer(3, b"two"))
    assert [(await call).body for call in calls[:2]] == [b"one", b"two"]
    assert server.wire.closed


async def test_a_lost_connection() -> None:
    """What was under way may have run."""
    server = Server()
    calls = await server.called(b"1", b"2")
    server.link.connection_lost(ConnectionResetError("Connection reset by peer"))
    for call in calls:
        assert told(await call) == (14, "Socket closed: Connection reset by peer", True)


async def test_calling_off() -> None:
    """The server is told; what it still sends is dropped, and the field table stays right."""
    server = Server()
    one, two = await server.called(b"1", b"2")
    one.cancel()
    await turn()
    assert server.resets() == {1: CANCEL}
    server.send(server.answer(1, b"late"), server.answer(3, b"fine"))
    assert one.cancelled()
    assert (await two).body == b"fine"


async def test_a_deadline() -> None:
    """It ends the call on both sides."""
    server = Server()
    call = server.call(b"x", 0.01)
    assert told(await call) == (4, "Deadline Exceeded", True)
    await turn()
    assert server.resets() == {1: CANCEL}
    assert told(await server.call(b"x", 0.0)) == (4, "Deadline Exceeded", False)


async def test_calls_wait_for_room() -> None:
    """No more are sent than the server takes; who gives up waiting is not sent at all."""
    server = Server(greet=False)
    server.send(setting(3, 1))
    server.client.use(server.link)
    server.wire.written = server.wire.written[24:]
    calls = [server.call(b"%d" % n) for n in range(3)]
    late = server.call(b"late", 0.01)
    await turn()
    calls[1].cancel()
    await turn()
    assert len(server.client._waiting) == 2
    assert told(await late) == (4, "Deadline Exceeded", False)
    assert [f.payload for f in server.taken() if f.kind == 0] == [message(b"0")]
    server.send(server.answer(1, b"a"))
    await turn()
    assert [f.payload for f in server.taken() if f.kind == 0] == [message(b"2")]
    more = server.call(b"3")
    await turn()
    server.send(setting(3, 5))
    await turn()
    assert [f.payload for f in server.taken() if f.kind == 0] == [message(b"3")]
    server.send(server.answer(3, b"c"), server.answer(5, b"d"))
    assert [(await call).body for call in (calls[0], calls[2], more)] == [b"a", b"c", b"d"]


async def test_identifiers_are_used_up() -> None:
    """The last one is used, and then the connection no more."""
    server = Server()
    server.link.connection.streams.last_id = 2**31 - 3
    (call,) = await server.called()
    assert {f.stream_id for f in server.taken()} == {2**31 - 1}
    assert not server.link.has_room
    server.send(server.answer(2**31 - 1, b"last"))
    assert (await call).body == b"last"
    assert server.wire.closed


async def test_requests_keep_to_the_windows() -> None:
    """DATA waits for the stream's window and the connection's; the end is behind the last byte."""
    server = Server(greet=False)
    server.send(settings(w=10))
    server.client.use(server.link)
    server.wire.written = server.wire.written[24:]
    body = bytes(range(256)) * 400
    await server.called(body)
    sent = [f for f in server.taken() if f.kind == 0]
    assert [len(f.payload) for f in sent] == [10]
    server.send(window_update(1, 1 << 20))
    await turn()
    sent += [f for f in server.taken() if f.kind == 0]
    assert sum(len(f.payload) for f in sent) == 65_535
    server.send(window_update(0, 1 << 20))
    await turn()
    sent += [f for f in server.taken() if f.kind == 0]
    assert b"".join(f.payload for f in sent) == message(body)
    assert [f.flags for f in sent] == [0] * (len(sent) - 1) + [1]
    assert max(len(f.payload) for f in sent) <= 16_384


async def test_small_requests_share_the_connections_window() -> None:
    """Together they never pass it."""
    server = Server()
    await server.called(*(bytes(16_000) for _ in range(6)))
    assert sum(len(f.payload) for f in server.taken() if f.kind == 0) == 65_535


async def test_a_connection_that_was_idle_is_not_pinged() -> None:
    """Its silence begins with the call."""
    server = Server(keepalive_time_s=600.0)
    keepalive = server.link.connection._keepalive
    keepalive.received_s = keepalive.busy_s = keepalive.busy_s - 10_000.0
    await server.called()
    assert [f.kind for f in server.taken()] == [1, 0]


async def test_an_answer_before_the_end_of_its_request() -> None:
    """The rest is not sent: the server is told that none comes."""
    server = Server(greet=False)
    server.send(settings(w=10))
    server.client.use(server.link)
    server.wire.written = server.wire.written[24:]
    (call,) = await server.called(bytes(100))
    server.taken()
    server.send(server.fields(1, [*HEAD, ("grpc-status", "8")], end=True))
    assert (await call).code == 8
    assert server.resets() == {1: 0}
    server.send(window_update(1, 1000))
    assert server.taken() == []
    assert server.link.connection.sender.unsent_bytes == 0


@given(windows=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=30))
def test_any_windows(windows: list[tuple[int, int]]) -> None:
    """However credit comes, nothing is sent without it, and in the end everything once."""

    async def talk() -> None:
        server = Server(greet=False)
        server.send(settings(w=0))
        server.client.use(server.link)
        server.wire.written = server.wire.written[24:]
        bodies = [bytes([n]) * 150 for n in (1, 2)]
        await server.called(*bodies)
        sent, credit = {1: b"", 3: b""}, {1: 0, 3: 0}

        def take() -> None:
            for f in server.taken():
                if f.kind == 0:
                    sent[f.stream_id] += f.payload
            assert all(len(sent[n]) <= credit[n] for n in sent)

        for which, size in [*windows, (0, 400), (1, 400)]:
            if which < 2:
                credit[which * 2 + 1] += size
                server.send(window_update(which * 2 + 1, size))
            else:
                server.send(window_update(0, size))
            await turn()
            take()
        assert [sent[1], sent[3]] == [message(body) for body in bodies]

    asyncio.run(talk())


async def test_credit_for_answers() -> None:
    """All that comes is given back, so that any length can come; beyond the window it is a fault."""
    server = Server(max_message_bytes=1 << 30)
    (call,) = await server.called()
    server.taken()
    body = bytes(12 << 20)
    parts = message(body)
    credit, sent = 4 << 20, 0
    server.send(server.fields(1, HEAD))
    while sent < len(parts):
        size = min(16_384, len(parts) - sent)
        server.send(data(1, parts[sent : sent + size]))
        sent += size
        credit += sum(
            int.from_bytes(f.payload, "big") for f in server.taken() if (f.kind, f.stream_id) == (8, 1)
        )
        assert credit - sent >= 1 << 20
    server.send(server.fields(1, OK, end=True))
    assert (await call).body == body


async def test_more_than_the_window() -> None:
    """The stream is reset."""
    server = Server(max_message_bytes=1 << 30)
    (call,) = await server.called()
    server.taken()
    server.link.connection.streams.open[1].receive_window = 100
    server.send(server.fields(1, HEAD), data(1, bytes(200)))
    assert (await call).code == 13
    assert server.resets() == {1: 3}


@pytest.mark.parametrize("size", [1, 100, 4096, 5000])
async def test_messages_in_pieces(size: int) -> None:
    """Small and large ones are put together in order."""
    server = Server()
    (call,) = await server.called()
    body = bytes(n % 251 for n in range(20_000))
    parts = message(body)
    server.send(server.fields(1, HEAD))
    for start in range(0, len(parts), size):
        server.send(data(1, parts[start : start + size]))
    server.send(server.fields(1, OK, end=True))
    assert (await call).body == body


def conversation(server: Server) -> bytes:
    """Return what a server says to six calls: everything that it may."""
    block = server.encoder.encode([*HEAD, ("x-new", "y" * 40)])
    return b"".join(
        (
            settings(w=70_000),
            frame(1, 0, 1, block[:5]),
            frame(9, 0, 1, block[5:9]),
            frame(9, 4, 1, block[9:]),
            frame(0, 8, 1, b"\x03" + message(b"padded") + bytes(3)),
            frame(6, 0, 0, b"12345678"),
            server.fields(1, OK, end=True),
            server.fields(3, [*HEAD, ("grpc-status", "5"), ("grpc-message", "no")], end=True),
            server.fields(5, HEAD),
            *(data(5, part) for part in (message(b"z" * 9000)[:4], message(b"z" * 9000)[4:])),
            server.fields(7, HEAD),
            server.fields(5, OK, end=True),
            reset(7, 2),
            frame(0xFA, 3, 9, b"unknown"),
            goaway(9),
            server.answer(9, b""),
        )
    )


def outcome(cuts: Sequence[int]) -> object:
    """Return what becomes of six calls when the conversation comes in pieces."""

    async def talk() -> object:
        server = Server()
        calls = await server.called(*(b"%d" % n for n in range(6)))
        server.taken()
        whole = conversation(server)
        for start, end in itertools.pairwise([0, *sorted({cut % len(whole) for cut in cuts}), len(whole)]):
            server.send(whole[start:end])
        answers = await asyncio.gather(*calls)
        return answers, server.taken(), server.wire.closed

    return asyncio.run(talk())


@given(cuts=st.lists(st.integers(0, 20_000), max_size=30))
def test_reads_may_end_anywhere(cuts: list[int]) -> None:
    """However what comes is cut into reads, the same things happen."""
    assert outcome(cuts) == outcome(())


def test_reads_of_one_byte() -> None:
    """Likewise, and the outcome is what was said."""
    result: Any = outcome(range(1, 20_000))
    assert result == outcome(())
    answers = result[0]
    assert [answer.code for answer in answers] == [0, 5, 0, 13, 0, 14]
    assert [len(answer.body) for answer in answers] == [6, 0, 9000, 0, 0, 0]


@given(noise=st.binary(max_size=200), greet=st.booleans())
def test_no_input_raises(noise: bytes, greet: bool) -> None:
    """Whatever comes ends in a fault at most: one GOAWAY, every call failed, the socket closed."""

    async def talk() -> None:
        server = Server(greet=greet)
        calls = await server.called() if greet else []
        server.send(noise)
        server.send(noise)
        if server.link.connection.fault is not None:
            assert server.wire.closed
            assert {answer.code for answer in await asyncio.gather(*calls)} <= {2, 13, 14}

    asyncio.run(talk())


@given(
    frames=st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=30)),
        max_size=30,
    )
)
def test_no_frames_raise(frames: list[tuple[int, int, int, bytes]]) -> None:
    """Well-framed nonsense ends in faults too, and the books stay in order."""

    async def talk() -> None:
        server = Server()
        await server.called(b"1", b"2", b"3")
        for kind, flags, stream_id, payload in frames:
            if server.wire.closed:
                return
            server.send(frame(kind, flags, stream_id, payload))
            connection = server.link.connection
            assert connection.sender.unsent_bytes == sum(
                s.unsent_bytes for s in connection.streams.open.values()
            )

    asyncio.run(talk())


FAULTS: dict[str, bytes] = {
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "PUSH_PROMISE": frame(5, 4, 1, b"\0\0\0\2"),
    "a stream of its own": frame(1, 4, 2, b"\x88"),
    "a stream never opened": frame(0, 0, 99, b"x"),
    "a broken field block": frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    "a frame within a field block": frame(1, 0, 1, b"\x88") + frame(6, 0, 0, bytes(8)),
    "SETTINGS on a stream": frame(4, 0, 1),
    "a window too large": window_update(0, 2**31 - 1),
    "a frame too large": struct.pack(">IBI", 300_000 << 8, 0, 1),
    "GOAWAY cut short": frame(7, payload=b"1234"),
    "RST_STREAM cut short": frame(3, 0, 1, b"1"),
    "PING cut short": frame(6, payload=b"1"),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_faults_end_the_connection(case: str) -> None:
    """The server is told, and calls under way fail."""
    server = Server()
    (call,) = await server.called()
    server.taken()
    server.send(FAULTS[case])
    assert [f.kind for f in server.taken()][-1] == 7
    answer = await call
    assert (answer.code, answer.sent) == (14, True)
    assert server.wire.closed


async def test_the_first_frame_is_settings() -> None:
    """Nothing else is taken before, and the connection does not come about."""
    server = Server(greet=False)
    server.send(frame(6, payload=bytes(8)))
    with pytest.raises(ConnectionError, match="not SETTINGS"):
        await server.link.settled


async def test_a_server_that_does_not_read() -> None:
    """DATA waits in here, and control frames are answered only while somebody reads them."""
    server = Server()
    server.link.pause_writing()
    (call,) = await server.called(bytes(1000))
    assert [f.kind for f in server.taken()] == [1]
    server.wire.unread = 5 << 20
    server.send(frame(6, payload=bytes(8)))
    paused = [server.wire.reading_paused]
    server.wire.unread = 0
    server.link.resume_writing()
    assert [*paused, server.wire.reading_paused] == [True, False]
    assert sum(len(f.payload) for f in server.taken() if f.kind == 0) == 1005
    server.send(server.answer(1, b"x"))
    assert (await call).body == b"x"


async def test_metadata_that_cannot_be_sent() -> None:
    """The call fails, nothing is sent, and the next one is fine."""
    server = Server()
    for bad in (("grpc-x", "y"), ("Upper", "y"), ("x", "\n")):
        with pytest.raises(ValueError, match="cannot be sent"):
            await server.call(b"x", None, [bad])
    (call,) = await server.called()
    assert {f.stream_id for f in server.taken()} == {1}
    server.send(server.answer(1, b"x"))
    assert (await call).body == b"x"
