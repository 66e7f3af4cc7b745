"""RFC 9113 by hand-made frames: preface, frame sizes, padding, and the frames that concern a connection."""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.transport.grpc_wire.cases import Case, answers, check, dies, either, resets
from tests.transport.grpc_wire.frames import (
    DEFAULT_FRAME_SIZE,
    GREETING,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    Code,
    Flag,
    Setting,
    Type,
    block,
    data,
    frame,
    goaway,
    headers,
    message,
    open_call,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    whole_call,
    window_update,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.transport.grpc_wire.servers import GrpcServer
    from tests.transport.grpc_wire.wire import Wire

BLOCK = block(request_fields())
CALL = whole_call(1)
PADDED = Flag.PADDED
UNKNOWN = 0xBB


def largest(wire: Wire) -> int:
    """Return the largest payload that the server takes."""
    return wire.settings.get(Setting.MAX_FRAME_SIZE, DEFAULT_FRAME_SIZE)


def setting(name: int, value: int) -> bytes:
    return settings((name, value)) + CALL


PREFACES = [
    Case("HTTP/1.1 in its place", "3.4", b"", dies(Code.PROTOCOL_ERROR, None), greeting=b"GET / HTTP/1.1\r\n\r\n" + bytes(30)),
    Case("its last byte wrong", "3.4", b"", dies(Code.PROTOCOL_ERROR, None), greeting=PREFACE[:-1] + b"x" + settings()),
    Case("PING before SETTINGS", "3.4", b"", dies(Code.PROTOCOL_ERROR, None), greeting=PREFACE + ping()),
    Case("HEADERS before SETTINGS", "3.4", b"", dies(Code.PROTOCOL_ERROR, None), greeting=PREFACE + CALL),
    Case("everything in one segment", "3.4", b"", answers(1), greeting=GREETING + CALL),
    Case("a call before SETTINGS are acknowledged", "6.5.3", CALL, answers(1), greeting=PREFACE + settings()),
]  # fmt: skip

SIZES = [
    Case("DATA too large", "4.2", lambda w: open_call(1) + data(1, bytes(largest(w) + 1)), either(dies(Code.FRAME_SIZE_ERROR), resets(1, Code.FRAME_SIZE_ERROR))),
    Case("HEADERS too large", "4.2", lambda w: headers(1, BLOCK.ljust(largest(w) + 1, b"\x88")), dies(Code.FRAME_SIZE_ERROR)),
    Case("an unknown frame too large", "4.2", lambda w: frame(UNKNOWN, payload=bytes(largest(w) + 1)), dies(Code.FRAME_SIZE_ERROR)),
    Case("only the head of one too large", "4.2", frame(Type.DATA, 0, 1, length=2**24 - 1), dies(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)),
    Case("an unknown frame of the largest size", "4.2", lambda w: frame(UNKNOWN, payload=bytes(largest(w))) + CALL, answers(1)),
    Case("HEADERS with priority, too short for it", "6.2", frame(Type.HEADERS, Flag.END_HEADERS | Flag.PRIORITY, 1, b"abcd"), dies(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)),
    Case("padded HEADERS without a byte", "6.2", frame(Type.HEADERS, Flag.END_HEADERS | PADDED, 1), dies(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)),
    Case("padded DATA without a byte", "6.1", open_call(1) + frame(Type.DATA, PADDED, 1), dies(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)),
    Case("PRIORITY of 4 bytes", "6.3", open_call(1) + frame(Type.PRIORITY, 0, 1, bytes(4)), either(resets(1, Code.FRAME_SIZE_ERROR), dies(Code.FRAME_SIZE_ERROR))),
    Case("RST_STREAM of 3 bytes", "6.4", open_call(1) + frame(Type.RST_STREAM, 0, 1, bytes(3)), dies(Code.FRAME_SIZE_ERROR)),
    Case("RST_STREAM of 5 bytes", "6.4", open_call(1) + frame(Type.RST_STREAM, 0, 1, bytes(5)), dies(Code.FRAME_SIZE_ERROR)),
    Case("SETTINGS of 5 bytes", "6.5", frame(Type.SETTINGS, payload=bytes(5)), dies(Code.FRAME_SIZE_ERROR)),
    Case("SETTINGS acknowledged with a payload", "6.5", frame(Type.SETTINGS, Flag.ACK, payload=bytes(6)), dies(Code.FRAME_SIZE_ERROR)),
    Case("PING of 7 bytes", "6.7", frame(Type.PING, payload=bytes(7)), dies(Code.FRAME_SIZE_ERROR)),
    Case("PING of 9 bytes", "6.7", frame(Type.PING, payload=bytes(9)), dies(Code.FRAME_SIZE_ERROR)),
    Case("GOAWAY of 7 bytes", "6.8", frame(Type.GOAWAY, payload=bytes(7)), dies(Code.FRAME_SIZE_ERROR)),
    Case("WINDOW_UPDATE of 3 bytes", "6.9", frame(Type.WINDOW_UPDATE, payload=bytes(3)), dies(Code.FRAME_SIZE_ERROR)),
    Case("WINDOW_UPDATE of 5 bytes on a stream", "6.9", open_call(1) + frame(Type.WINDOW_UPDATE, 0, 1, b"\0\0\0\1\0"), dies(Code.FRAME_SIZE_ERROR)),
]  # fmt: skip

IGNORED = [
    Case("an unknown frame on the connection", "4.1", frame(UNKNOWN, 0xFF, 0, b"what") + CALL, answers(1)),
    Case("an unknown frame within a call", "5.5", open_call(1) + frame(UNKNOWN, 1, 1, b"what") + data(1, message(b"x"), end=True), answers(1)),
    Case("unknown flags", "4.1", headers(1, BLOCK) + frame(Type.DATA, Flag.END_STREAM | 0xF6, 1, message(b"x")), answers(1), core_differs="resets the stream"),
    Case("reserved bits of stream identifiers", "4.1", headers(1 | 1 << 31, BLOCK) + data(1 | 1 << 31, message(b"x"), end=True), answers(1)),
    Case("the reserved bit of an increment", "6.9", window_update(0, 1 | 1 << 31) + CALL, answers(1)),
    Case("an acknowledgement of no PING", "6.7", ping(ack=True) + CALL, answers(1)),
    Case("PRIORITY of an idle stream", "6.3", priority(7) + CALL, answers(1)),
    Case("PRIORITY within a call", "6.3", open_call(1) + priority(1, 9) + data(1, message(b"x"), end=True), answers(1)),
    Case("HEADERS with priority", "6.2", frame(Type.HEADERS, Flag.END_HEADERS | Flag.PRIORITY, 1, bytes(4) + b"\x0f" + BLOCK) + data(1, message(b"x"), end=True), answers(1)),
    Case("an unknown error code", "7", open_call(1, "Hold") + rst_stream(1, 0xDEADBEEF) + whole_call(3), answers(3)),
]  # fmt: skip

PADDING = [
    Case("DATA with none", "6.1", open_call(1) + data(1, message(b"x"), end=True, padding=0), answers(1), core_differs="knows no padding"),
    Case("DATA with the most", "6.1", open_call(1) + data(1, message(b"x"), end=True, padding=255), answers(1), core_differs="knows no padding"),
    Case("DATA that is nothing else", "6.1", open_call(1) + data(1, padding=7) + data(1, message(b"x"), end=True), answers(1), core_differs="knows no padding"),
    Case("DATA with all that was said to be more", "6.1", open_call(1) + frame(Type.DATA, PADDED, 1, b"\x04abc"), dies(Code.PROTOCOL_ERROR)),
    Case("DATA with one byte missing", "6.1", open_call(1) + frame(Type.DATA, PADDED, 1, b"\x01"), dies(Code.PROTOCOL_ERROR)),
    Case("HEADERS", "6.2", headers(1, BLOCK, padding=9) + data(1, message(b"x"), end=True), answers(1), core_differs="knows no padding"),
    Case("HEADERS padded too far", "6.2", frame(Type.HEADERS, Flag.END_HEADERS | PADDED, 1, bytes([len(BLOCK) + 1]) + BLOCK), dies(Code.PROTOCOL_ERROR)),
    Case("HEADERS with priority, padded into it", "6.2", frame(Type.HEADERS, Flag.END_HEADERS | PADDED | Flag.PRIORITY, 1, b"\x05" + bytes(9)), dies(Code.PROTOCOL_ERROR)),
]  # fmt: skip

CONNECTION = [
    Case("DATA on stream 0", "6.1", data(0, b"x"), dies(Code.PROTOCOL_ERROR)),
    Case("HEADERS on stream 0", "6.2", headers(0, BLOCK), dies(Code.PROTOCOL_ERROR)),
    Case("PRIORITY on stream 0", "6.3", priority(0), dies(Code.PROTOCOL_ERROR)),
    Case("RST_STREAM on stream 0", "6.4", rst_stream(0), dies(Code.PROTOCOL_ERROR)),
    Case("CONTINUATION on stream 0", "6.10", frame(Type.CONTINUATION, Flag.END_HEADERS), dies(Code.PROTOCOL_ERROR)),
    Case("SETTINGS on a stream", "6.5", frame(Type.SETTINGS, 0, 1), dies(Code.PROTOCOL_ERROR)),
    Case("PUSH_PROMISE from a client", "8.4", open_call(1) + frame(Type.PUSH_PROMISE, Flag.END_HEADERS, 1, struct.pack(">I", 2) + BLOCK), dies(Code.PROTOCOL_ERROR)),
    Case("PING on a stream", "6.7", frame(Type.PING, 0, 1, bytes(8)), dies(Code.PROTOCOL_ERROR)),
    Case("GOAWAY on a stream", "6.8", frame(Type.GOAWAY, 0, 1, bytes(8)), dies(Code.PROTOCOL_ERROR)),
    Case("push neither on nor off", "6.5.2", setting(Setting.ENABLE_PUSH, 2), dies(Code.PROTOCOL_ERROR)),
    Case("a window that is too large", "6.5.2", setting(Setting.INITIAL_WINDOW_SIZE, 2**31), dies(Code.FLOW_CONTROL_ERROR)),
    Case("a frame size too small", "6.5.2", setting(Setting.MAX_FRAME_SIZE, 2**14 - 1), dies(Code.PROTOCOL_ERROR)),
    Case("a frame size too large", "6.5.2", setting(Setting.MAX_FRAME_SIZE, 2**24), dies(Code.PROTOCOL_ERROR)),
    Case("settings at their bounds", "6.5.2", settings((Setting.ENABLE_PUSH, 0), (Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW), (Setting.MAX_FRAME_SIZE, 2**24 - 1), (Setting.HEADER_TABLE_SIZE, 0), (Setting.HEADER_TABLE_SIZE, 2**32 - 1), (Setting.MAX_CONCURRENT_STREAMS, 0)) + CALL, answers(1)),
    Case("a setting nobody knows", "6.5.2", setting(0xABCD, 2**32 - 1), answers(1)),
    Case("an acknowledgement too many", "6.5.3", SETTINGS_ACK + CALL, answers(1), core_differs="ends the connection"),
    Case("no increment", "6.9", window_update(0, 0), dies(Code.PROTOCOL_ERROR)),
    Case("no increment on a stream", "6.9", open_call(1) + window_update(1, 0), either(resets(1, Code.PROTOCOL_ERROR), dies(Code.PROTOCOL_ERROR))),
    Case("a window beyond its maximum", "6.9.1", window_update(0, MAX_WINDOW), dies(Code.FLOW_CONTROL_ERROR)),
    Case("a stream's window beyond its maximum", "6.9.1", open_call(1) + window_update(1, MAX_WINDOW), either(resets(1, Code.FLOW_CONTROL_ERROR), dies(Code.FLOW_CONTROL_ERROR))),
    Case("a window grown by increments beyond its maximum", "6.9.1", window_update(0, MAX_WINDOW - 65_535) + window_update(0, 1), dies(Code.FLOW_CONTROL_ERROR)),
    Case("a stream's window beyond its maximum by SETTINGS", "6.9.2", open_call(1) + window_update(1, MAX_WINDOW - 65_535) + settings((Setting.INITIAL_WINDOW_SIZE, 65_536)), dies(Code.FLOW_CONTROL_ERROR)),
    Case("the largest window", "6.9.1", window_update(0, MAX_WINDOW - 65_535) + CALL, answers(1)),
]  # fmt: skip


@pytest.mark.parametrize("case", [*PREFACES, *SIZES, *IGNORED, *PADDING, *CONNECTION], ids=str)
async def test_frames(serve: Callable[..., Awaitable[GrpcServer]], transport: str, case: Case) -> None:
    """Each row comes out as the RFC has it, and the next connection is served."""
    server = await serve(**case.options)
    await check(case, server, core=transport == "grpcio")


async def test_settings_are_acknowledged(serve: Callable[..., Awaitable[GrpcServer]], connect: Any) -> None:
    """As many times as they were sent, in order with what else is answered (section 6.5.3)."""
    wire = await connect(await serve())
    await wire.until(lambda: wire.acks == 1)
    for count in (2, 3):
        wire.send(settings((Setting.MAX_CONCURRENT_STREAMS, count)))
        await wire.until(lambda count=count: wire.acks == count)
    await wire.echo(1)
    assert wire.acks == 3


async def test_a_ping_is_answered_with_its_payload(
    serve: Callable[..., Awaitable[GrpcServer]], connect: Any
) -> None:
    """Eight bytes of any kind (section 6.7)."""
    wire = await connect(await serve())
    await wire.pong(b"\x00\xff ping\n")
    await wire.echo(1)


async def test_calls_go_on_after_the_clients_goaway(
    serve: Callable[..., Awaitable[GrpcServer]], connect: Any
) -> None:
    """It tells of streams that the server opened, of which there are none (section 6.8)."""
    wire = await connect(await serve())
    wire.send(open_call(1) + goaway() + data(1, message(b"x"), end=True))
    answer = await wire.answer(1)
    assert (answer.grpc_status, answer.messages()) == (0, [b"x"])
