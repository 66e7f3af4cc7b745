"""RFC 9113 sections 5.2 and 6.9 by hand-made frames: windows both ways, and how requests may be cut."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.testing import settle
from tests.transport.grpc_wire.frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    GREETING,
    PREFACE,
    Code,
    Flag,
    Setting,
    block,
    continuation,
    data,
    frame,
    headers,
    message,
    open_call,
    pieces,
    ping,
    request_fields,
    settings,
    whole_call,
    window_update,
)

if TYPE_CHECKING:
    from tests.transport.grpc_wire.methods import Methods
    from tests.transport.grpc_wire.wire import Wire

MIB = 1 << 20


def small_windows(size: int) -> bytes:
    """Return a greeting that grants `size` bytes for each stream."""
    return PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, size))


async def received(wire: Wire, stream_id: int, count: int) -> None:
    """Wait for so many bytes on a stream, and see that no more follow unasked."""
    answer = wire.answer_of(stream_id)
    await wire.until(lambda: len(answer.body) >= count)
    await wire.pong()
    assert len(answer.body) == count, wire.described()


async def test_an_answer_keeps_to_its_streams_window(serve: Any, connect: Any) -> None:
    """Byte for byte; what is granted is used, and the rest follows when there is room (section 5.2.1)."""
    wire = await connect(await serve(), greeting=small_windows(100))
    wire.send(whole_call(1, b"1000", "Size"))
    await received(wire, 1, 100)
    wire.send(window_update(1, 50))
    await received(wire, 1, 150)
    wire.send(window_update(1, 10_000))
    answer = await wire.answer(1)
    assert (answer.grpc_status, answer.messages()) == (0, [bytes(1000)])


async def test_answers_share_the_connections_window(serve: Any, connect: Any) -> None:
    """What all streams receive together is bounded too (section 6.9.1)."""
    wire = await connect(await serve(), greeting=small_windows(MIB))
    wire.send(whole_call(1, b"40000", "Size") + whole_call(3, b"40000", "Size"))
    one, other = wire.answer_of(1), wire.answer_of(3)
    await wire.until(lambda: len(one.body) + len(other.body) >= DEFAULT_WINDOW)
    wire.send(whole_call(5, b"", "Fail"))
    assert (await wire.answer(5)).grpc_status == 5  # needs no window
    assert len(one.body) + len(other.body) == DEFAULT_WINDOW
    wire.send(window_update(0, 100_000))
    for answer in (await wire.answer(1), await wire.answer(3)):
        assert (answer.grpc_status, answer.messages()) == (0, [bytes(40_000)])


async def test_a_window_may_change_under_way(serve: Any, connect: Any) -> None:
    """A new initial window moves those of open streams by the difference, below zero too (section 6.9.2)."""
    wire = await connect(await serve(), greeting=small_windows(1000))
    wire.send(whole_call(1, b"5000", "Size"))
    await received(wire, 1, 1000)
    wire.send(settings((Setting.INITIAL_WINDOW_SIZE, 1200)))
    await received(wire, 1, 1200)
    wire.send(settings((Setting.INITIAL_WINDOW_SIZE, 200)))  # 1000 below zero
    wire.send(window_update(1, 999))
    wire.send(whole_call(3, b"400", "Size"))
    await received(wire, 3, 200)
    assert len(wire.answer_of(1).body) == 1200
    wire.send(window_update(1, 2))  # 1 above
    await received(wire, 1, 1201)
    wire.send(settings((Setting.INITIAL_WINDOW_SIZE, 10_000)))
    for stream_id, size in ((1, 5000), (3, 400)):
        answer = await wire.answer(stream_id)
        assert (answer.grpc_status, answer.messages()) == (0, [bytes(size)])


async def test_no_window_at_all_still_gets_a_status(serve: Any, connect: Any) -> None:
    """Header blocks are not under flow control (section 6.9); a message waits."""
    wire = await connect(await serve(), greeting=small_windows(0))
    wire.send(whole_call(1, b"no", "Fail") + whole_call(3, b"x"))
    assert (await wire.answer(1)).grpc_status == 5
    wire.send(window_update(3, 6))
    answer = await wire.answer(3)
    assert (answer.grpc_status, answer.messages()) == (0, [b"x"])


async def test_streams_that_wait_do_not_hold_others_up(serve: Any, connect: Any) -> None:
    """A stream without window waits alone."""
    wire = await connect(await serve(), greeting=small_windows(50))
    wire.send(b"".join(whole_call(stream_id, b"1000", "Size") for stream_id in range(1, 41, 2)))
    await wire.echo(101, b"x" * 20)
    for stream_id in range(1, 41, 2):
        wire.send(window_update(stream_id, 1000))
    for stream_id in range(1, 41, 2):
        assert (await wire.answer(stream_id)).messages() == [bytes(1000)]


async def test_frames_keep_to_the_clients_size(serve: Any, connect: Any) -> None:
    """No frame is larger than the client takes, before and after it takes more (section 4.2)."""
    wire = await connect(await serve(), greeting=small_windows(MIB))
    wire.send(window_update(0, MIB))
    wire.send(whole_call(1, b"100000", "Size"))
    answer = await wire.answer(1)
    assert answer.messages() == [bytes(100_000)]
    assert wire.largest_frame <= DEFAULT_FRAME_SIZE


async def test_an_upload_within_the_windows_arrives(serve: Any, connect: Any) -> None:
    """10 MiB by a client that sends no byte more than it may."""
    wire = await connect(await serve(), greeting=small_windows(16 * MIB))
    wire.send(window_update(0, 16 * MIB) + open_call(1))
    await wire.upload(1, message(bytes(10 * MIB)))
    answer = await wire.answer(1)
    assert answer.grpc_status == 0, wire.described()[:600]
    assert answer.messages() == [bytes(10 * MIB)]


async def test_windows_are_given_back(serve: Any, connect: Any) -> None:
    """Uploads of many times the window one after the other, padding, refused and cancelled calls included."""
    wire = await connect(await serve(max_receive_bytes=100_000), greeting=small_windows(MIB))
    wire.send(window_update(0, MIB))
    parts = message(bytes(90_000))
    for number in range(60):
        stream_id = 1 + 4 * number
        wire.send(open_call(stream_id, "Echo" if number % 2 else "Nothing"))
        await wire.upload(stream_id, parts)
        await wire.until(lambda stream_id=stream_id: wire.answer_of(stream_id).over)
        wire.send(window_update(0, 100_000))
    await wire.echo(1001)


async def test_a_method_that_does_not_read_stops_its_client(
    serve: Any, connect: Any, methods: Methods
) -> None:
    """Credit comes back as messages are taken, so an unread stream fills no memory; then all arrives."""
    wire = await connect(await serve(max_receive_bytes=100_000))
    wire.send(open_call(1, "Sip"))
    one = message(bytes(99_000))
    count = 2000
    uploading = asyncio.create_task(wire.upload(1, one * count))
    await methods.arrived.wait()
    stuck = await _stuck(wire)
    assert stuck < 100 * MIB
    for _ in range(count + 1):
        methods.sips.release()
    assert await uploading == count * len(one)
    assert (await wire.answer(1)).messages() == [str(count).encode()]


async def _stuck(wire: Wire) -> int:
    """Let the client send until it may not; return how many bytes that were."""
    before = -1
    while wire.sent_bytes != before:
        before = wire.sent_bytes
        await settle(200)
    return before


async def test_a_client_that_ignores_its_window_is_cut_off(serve: Any, connect: Any, transport: str) -> None:
    """More than was granted is FLOW_CONTROL_ERROR, of the stream or of the connection (section 6.9)."""
    server = await serve()
    wire = await connect(server)
    wire.send(open_call(1, "Sip"))
    await wire.until(lambda: wire.greeted)
    initial = wire.settings.get(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
    part = data(1, message(bytes(DEFAULT_FRAME_SIZE - 5)))
    answer = wire.answer_of(1)
    for _ in range(4 * (initial + answer.window + wire.window) // DEFAULT_FRAME_SIZE + 16):
        if wire.closed:
            break
        wire.send(part)
        await wire.drain()
    await wire.until(lambda: answer.over)
    if transport == "native":
        assert Code.FLOW_CONTROL_ERROR in (answer.reset, *(code for _, code in wire.goaways))
    else:
        assert wire.closed or answer.over
    await (await connect(server)).echo(1)


@pytest.mark.parametrize("size", [1, 2, 3, 9, 10, 64])
async def test_requests_may_come_in_pieces(serve: Any, connect: Any, size: int) -> None:
    """The server's reads end anywhere: within the preface, a frame's head, a header block, a message."""
    wire = await connect(await serve(), greeting=b"", polite=False)
    conversation = GREETING + whole_call(1, b"first") + ping() + whole_call(3, b"second")
    for piece in pieces(conversation, size):
        wire.send(piece)
        await settle(2)
    for stream_id, payload in ((1, b"first"), (3, b"second")):
        assert (await wire.answer(stream_id)).messages() == [payload], wire.described()


async def test_a_header_block_may_be_cut_anywhere(serve: Any, connect: Any) -> None:
    """Between HEADERS and CONTINUATION at every byte, and with a CONTINUATION for each byte."""
    wire = await connect(await serve())
    fields = block(request_fields("Echo", ("name", "value")))
    rest = message(b"x")
    streams = range(1, 2 * len(fields), 2)
    for cut, stream_id in enumerate(streams):
        wire.send(headers(stream_id, fields[:cut], end_headers=False))
        wire.send(continuation(stream_id, fields[cut:], end_headers=True) + data(stream_id, rest, end=True))
        assert (await wire.answer(stream_id)).messages() == [b"x"]


async def test_a_message_may_be_cut_anywhere(serve: Any, connect: Any) -> None:
    """Into frames at every byte, empty ones among them, and END_STREAM on an empty frame."""
    wire = await connect(await serve())
    whole = message(b"payload")
    for cut in range(len(whole) + 1):
        stream_id = 1 + 2 * cut
        wire.send(open_call(stream_id) + data(stream_id, whole[:cut]))
        wire.send(data(stream_id) + data(stream_id, whole[cut:]) + data(stream_id, end=True))
        assert (await wire.answer(stream_id)).messages() == [b"payload"]


async def test_many_requests_may_come_in_one_segment(serve: Any, connect: Any) -> None:
    """And are all answered."""
    wire = await connect(await serve())
    ids = range(1, 201, 2)
    wire.send(b"".join(whole_call(stream_id, b"%d" % stream_id) for stream_id in ids))
    for stream_id in ids:
        assert (await wire.answer(stream_id)).messages() == [b"%d" % stream_id]


async def test_several_messages_may_share_a_frame(serve: Any, connect: Any) -> None:
    """Frames and messages have nothing to do with each other (gRPC over HTTP/2)."""
    wire = await connect(await serve())
    wire.send(open_call(1, "Stream"))
    wire.send(data(1, message(b"a") + message() + message(b"b")[:4]))
    await wire.until(lambda: len(wire.answer_of(1).body) >= 17)
    wire.send(frame(0, Flag.END_STREAM, 1, message(b"b")[4:]))
    assert (await wire.answer(1)).messages() == [b"re:a", b"re:", b"re:b", b"end"]
