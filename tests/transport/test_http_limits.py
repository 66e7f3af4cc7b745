"""What the HTTP listener refuses, and that the next request succeeds."""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from gateway.core.calls import HttpResponse
from gateway.transport.options import HttpLimits
from tests.transport.wire import Echo, Wire, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.transport.http import HttpServer

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]

INFER = "/v2/models/m/infer"
SMALL = HttpLimits(
    max_body_bytes=1000,
    max_chunks=10,
    max_headers=10,
    max_header_bytes=400,
    max_url_bytes=100,
    header_timeout_s=60.0,
    body_timeout_s=60.0,
)


@pytest.mark.parametrize(
    ("sent", "status", "named"),
    [
        (post(INFER, b"x" * 1001), 413, "1000"),
        (post(INFER, b"")[:-4] + b"\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n", 400, ""),
        (post(INFER).replace(b"Length: 0", b"Length: 1001"), 413, "1000"),
        (post("/handle").replace(b"Length: 0", b"Length: 99999999999"), 413, "1000"),
        (chunked(INFER, b"x" * 600, b"y" * 600), 413, "1000"),
        (chunked(INFER, *[b"x"] * 11), 400, "10 chunks"),
        (post(INFER, b"x", *[f"X-{n}: 1" for n in range(9)]), 431, "10 headers"),
        (post(INFER, b"x", "X-Long: " + "v" * 400), 431, "400"),
        (get("/" + "u" * 100), 414, "100"),
        (get("/" + "u" * 300_000), 414, "100"),
        (post(INFER)[:-4] + b"\r\nX-Endless: " + b"v" * 600_000, 431, "400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "chunked"),
        (chunked(INFER)[:-5] + b"1;" + b"e" * 600_000, 400, "extensions"),
    ],
)
async def test_beyond_a_limit_is_refused(
    serve: Serve, connect: Connect, sent: bytes, status: int, named: str
) -> None:
    """The answer names the limit, the connection is closed, and the server goes on."""
    server = await serve(SMALL)
    wire = await connect(server)
    wire.send(sent)
    response = await wire.response()
    assert (response.status, response.headers["connection"]) == (status, "close")
    assert named in response.error
    assert await wire.closed()
    other = await connect(server)
    other.send(post(INFER, b"x" * 1000))
    assert (await other.response()).status == 200


async def test_at_the_limit_is_accepted(serve: Serve, connect: Connect) -> None:
    """A limit is the largest value allowed, for body, chunks and target alike."""
    wire = await connect(await serve(SMALL))
    wire.send(chunked(INFER, *[b"x" * 100] * 10))
    assert (await wire.response()).status == 200
    wire.send(get("/v2/models/" + "u" * 89))
    assert (await wire.response()).status == 200


async def test_a_client_that_sends_on_reads_its_refusal(serve: Serve, connect: Connect) -> None:
    """A client that sends a whole large body before it reads gets the 413 and not a reset connection."""
    wire = await connect(await serve(SMALL))
    wire.send(post(INFER, b"x" * (16 << 20)))
    await wire.writer.drain()
    assert (await wire.response()).status == 413


async def test_a_refused_upload_takes_no_memory(serve: Serve, connect: Connect) -> None:
    """A body of unstated length is dropped where it passes the limit."""
    server = await serve(HttpLimits(max_body_bytes=1 << 20))
    wire = await connect(server)
    sent = chunked(INFER, *[b"x" * 65536] * 256)
    tracemalloc.start()
    try:
        wire.send(sent)
        assert (await wire.response()).status == 413
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The client's own copy of what the kernel did not take yet is counted too.
    assert peak < len(sent) + (6 << 20)


async def test_a_refusal_waits_for_its_turn(serve: Serve, connect: Connect, echo: Echo) -> None:
    """An answer due before the refused request is sent first."""
    wire = await connect(await serve(SMALL))
    wire.send(post("/held", b"1") + post(INFER, b"x" * 1001))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, (b"first",)))
    assert (await wire.response()).body == b"first"
    assert (await wire.response()).status == 413


async def test_too_many_pipelined_requests_close_after_those_before(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """A connection owes at most so many answers; it gives those and closes."""
    wire = await connect(await serve(HttpLimits(max_pipelined=3)))
    wire.send(post("/held") + get("/handle") * 9)
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200))
    responses = [await wire.response() for _ in range(3)]
    assert [response.headers.get("connection") for response in responses] == [None, None, "close"]
    wire.half_close()
    assert await wire.closed()


async def test_too_many_connections_are_refused(serve: Serve, connect: Connect) -> None:
    """The connection beyond the limit is told to come back, and gets in when another has closed."""
    server = await serve(HttpLimits(max_connections=1))
    first = await connect(server)
    first.send(get("/handle"))
    await first.response()
    second = await connect(server)
    response = await second.response()
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    first.send(get("/handle"))
    assert (await first.response()).status == 200


@pytest.mark.parametrize(
    ("sent", "late"), [(post(INFER)[:-4], "headers"), (post(INFER, b"xy")[:-1], "body"), (b"P", "headers")]
)
async def test_a_slow_request_is_408(
    serve: Serve, connect: Connect, echo: Echo, sent: bytes, late: str
) -> None:
    """A request that stops arriving is refused with the part that is late."""
    wire = await connect(await serve(HttpLimits(header_timeout_s=0.02, body_timeout_s=0.02)))
    wire.send(sent)
    response = await wire.response()
    assert response.status == 408
    assert late in response.error
    assert not echo.requests


async def test_a_connection_without_a_request_is_closed(serve: Serve, connect: Connect) -> None:
    """Connecting and saying nothing holds no connection."""
    wire = await connect(await serve(HttpLimits(header_timeout_s=0.02)))
    assert await wire.closed()


async def test_a_body_that_keeps_up_its_rate_is_not_late(serve: Serve, connect: Connect) -> None:
    """Received bytes buy time at the minimum rate, beyond the timeout itself."""
    limits = HttpLimits(body_timeout_s=0.01, min_body_rate=1.0)
    wire = await connect(await serve(limits))
    request = post(INFER, b"x" * 100)
    wire.send(request[:-1])
    await wire.writer.drain()
    timer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, timer.set_result, None)
    await timer
    wire.send(request[-1:])
    assert (await wire.response()).status == 200


async def test_a_held_request_is_not_late(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Timeouts bound what the client does, not what the method does."""
    wire = await connect(await serve(HttpLimits(header_timeout_s=0.01, body_timeout_s=0.01)))
    wire.send(post("/held", b"x"))
    await echo.arrived.wait()
    asyncio.get_running_loop().call_later(0.05, echo.replies[0], HttpResponse(200, (b"late",)))
    assert (await wire.response()).body == b"late"


@pytest.mark.parametrize("request_bytes", [post("/held"), post("/held", b"", "Connection: close")])
async def test_a_client_that_does_not_read_is_cut(
    serve: Serve, connect: Connect, echo: Echo, request_bytes: bytes
) -> None:
    """A response that nobody reads is dropped with its connection."""
    server = await serve(HttpLimits(send_timeout_s=0.02))
    wire = await connect(server)
    wire.send(request_bytes)
    await echo.arrived.wait()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # WriteTransport is a ReadTransport too
    echo.replies[0](HttpResponse(200, (bytes(64 << 20),), "application/octet-stream"))
    await server.stop(60.0)
    assert server.connections == 0


async def test_an_idle_connection_is_closed(serve: Serve, connect: Connect) -> None:
    """Keep-alive ends after its time."""
    wire = await connect(await serve(keep_alive_s=0))
    wire.send(get("/handle"))
    assert (await wire.response()).status == 200
    assert await wire.closed()


async def test_a_connection_is_idle_after_a_late_body_too(serve: Serve, connect: Connect) -> None:
    """A body that arrives after its answer leaves a connection that keep-alive ends."""
    wire = await connect(await serve(keep_alive_s=1))
    request = post("/nowhere", b"late")
    wire.send(request[:-4])
    assert (await wire.response()).status == 404
    wire.send(request[-4:])
    assert await wire.closed()


async def test_bodies_share_a_budget(serve: Serve, connect: Connect, echo: Echo) -> None:
    """What held requests keep is refused to others, and given back with the answer."""
    server = await serve(HttpLimits(max_body_bytes=1000, max_buffered_bytes=1500))
    holder, other = await connect(server), await connect(server)
    holder.send(post("/held", b"x" * 1000))
    await echo.arrived.wait()
    other.send(post(INFER, b"y" * 1000))
    response = await other.response()
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    echo.replies[0](HttpResponse(200))
    await holder.response()
    again = await connect(server)
    again.send(post(INFER, b"z" * 1000))
    assert (await again.response()).status == 200


async def test_a_bomb_takes_no_memory(serve: Serve, connect: Connect) -> None:
    """64 MiB in 64 KiB are refused before more than the limit is held."""
    bomb = zlib.compress(bytes(64 << 20), 9)
    server = await serve(HttpLimits(max_decompressed_bytes=4 << 20))
    wire = await connect(server)
    tracemalloc.start()
    try:
        wire.send(post(INFER, bomb, "Content-Encoding: deflate"))
        response = await wire.response()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status == 413
    assert peak < (4 << 20) + (4 << 20)
