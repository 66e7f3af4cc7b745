"""Requests whose head was seen before: recognised without the parser, answered as if parsed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.calls import HttpResponse
from gateway.transport.options import HttpLimits
from tests.properties import examples
from tests.transport.wire import Echo, Wire, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.transport.http import HttpServer

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]

PLAIN = "/v2/models/m/infer"


async def exchange(wire: Wire, request: bytes) -> bytes:
    wire.send(request)
    return (await wire.response()).body


async def test_a_head_seen_before_is_recognised_on_every_connection(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """The method sees the same request but for the body, and the one shared head."""
    server = await serve()
    first, second = await connect(server), await connect(server)
    bodies = [b"one", b"two", b"six"]
    for wire, body in zip((first, first, second), bodies, strict=True):
        assert await exchange(wire, post(PLAIN, body, "X-A: 1")) == body
    parsed, known, elsewhere = echo.requests
    assert parsed.head is None
    assert known.head is not None
    assert known.head is elsewhere.head
    for request in (known, elsewhere):
        assert (request.method, request.path, request.query) == ("POST", PLAIN, "")
        assert (request.path_params, request.headers) == (parsed.path_params, parsed.headers)
    assert parsed.arrived_s <= known.arrived_s <= elsewhere.arrived_s
    assert known.peer == parsed.peer != elsewhere.peer


async def test_headers_that_tell_requests_apart_may_differ(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """Trace context, ids and time limits: each request has its own, everything else is known."""
    wire = await connect(await serve())
    for number in range(3):
        values = (f"traceparent: 00-{number}", "X-A: same", f"X-Request-ID: {number} of 3")
        await exchange(wire, post(PLAIN, b"x", *values, f"x-request-timeout-ms: {9 - number}"))
    parsed, known, again = echo.requests
    assert parsed.head is None
    assert known.head is again.head is not None
    for number, request in enumerate(echo.requests):
        framing = {"host": "test", "content-length": "1"}
        assert request.headers == framing | {
            "traceparent": f"00-{number}",
            "x-a": "same",
            "x-request-id": f"{number} of 3",
            "x-request-timeout-ms": str(9 - number),
        }


@pytest.mark.parametrize(
    "lines",
    [
        ("traceparent: 1", "traceparent: 2"),
        ("traceparent: 1", "Traceparent: 2"),
        ("traceparent:  two spaces",),
        ("traceparent: trailing ",),
        ("traceparent: caf\u00e9",),
        ("traceparent:",),
        ("tracestate: a=1", "traceparent: 1"),
        ("X-A: 1", "traceparent: 1"),
    ],
    ids=str,
)
async def test_odd_volatile_headers_are_read_as_by_the_parser(
    serve: Serve, connect: Connect, echo: Echo, lines: tuple[str, ...]
) -> None:
    """Repeated, padded, not ASCII, empty, in another order: whatever was known before."""
    server = await serve()
    wire = await connect(server)
    for known in (("traceparent: 7",), ("traceparent: 7", "tracestate: b"), ("X-A: 1", "traceparent: 7")):
        for _ in range(2):
            await exchange(wire, post(PLAIN, b"x", *known))
    for _ in range(2):
        await exchange(await connect(server), post(PLAIN, b"x", *lines))
    expected: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.lstrip()
        expected[name] = f"{expected[name]}, {value}" if name in expected else value
    for request in echo.requests[-2:]:
        assert {k: v for k, v in request.headers.items() if k not in {"host", "content-length"}} == expected


async def test_another_head_is_another_request(serve: Serve, connect: Connect, echo: Echo) -> None:
    """One byte of difference, a longer body, another target: parsed, and kept apart."""
    wire = await connect(await serve())
    for _ in range(2):
        for request in (post(PLAIN, b"x", "X-A: 1"), post(PLAIN, b"x", "X-A: 2"), post(PLAIN, b"xy")):
            await exchange(wire, request)
    heads = [request.head for request in echo.requests[3:]]
    assert len({id(head) for head in heads}) == 3
    assert [request.headers.get("x-a") for request in echo.requests] == ["1", "2", None] * 2


@pytest.mark.parametrize("body", [b"", b"x" * 10, b"y" * 5000, b"z" * 200_000], ids=len)
async def test_a_known_request_may_be_cut_anywhere(
    serve: Serve, connect: Connect, echo: Echo, body: bytes
) -> None:
    """In two pieces it is parsed as ever; its successor in one piece is recognised again."""
    wire = await connect(await serve())
    request = post(PLAIN, body)
    assert await exchange(wire, request) == body
    for cut in (1, 20, request.index(b"\r\n\r\n") + 2, request.index(b"\r\n\r\n") + 4, len(request) - 1):
        wire.send(request[:cut])
        await wire.writer.drain()
        count = len(echo.requests)
        wire.send(request[cut:])
        assert (await wire.response()).body == body
        assert len(echo.requests) == count + 1
    assert await exchange(wire, request) == body


async def test_known_requests_behind_each_other_are_answered_in_order(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """Pipelined in one segment, or behind a request that is still held."""
    wire = await connect(await serve())
    await exchange(wire, post(PLAIN, b"0"))
    wire.send(post(PLAIN, b"1") + post(PLAIN, b"2"))
    assert [(await wire.response()).body for _ in range(2)] == [b"1", b"2"]
    echo.arrived.clear()
    wire.send(post("/held", b"3"))
    await echo.arrived.wait()
    wire.send(post(PLAIN, b"4"))
    echo.replies[0](HttpResponse(200, (b"3",)))
    assert [(await wire.response()).body for _ in range(2)] == [b"3", b"4"]


async def test_a_client_that_goes_cancels_its_known_request(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """The hook runs and the bytes held are free for others."""
    server = await serve(HttpLimits(max_body_bytes=1000, max_buffered_bytes=1000))
    wire = await connect(server)
    wire.send(post("/held", b"x" * 1000))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200))
    await wire.response()
    echo.arrived.clear()
    wire.send(post("/held", b"x" * 1000))
    await echo.arrived.wait()
    assert echo.requests[1].head is not None
    wire.close()
    await echo.cancelled.wait()
    assert await exchange(await connect(server), post(PLAIN, b"y" * 1000)) == b"y" * 1000


async def test_a_known_request_beyond_the_budget_is_refused_as_ever(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """503 while others hold the bytes, and served when they are free."""
    server = await serve(HttpLimits(max_body_bytes=1000, max_buffered_bytes=1500))
    wire, holder = await connect(server), await connect(server)
    assert await exchange(wire, post(PLAIN, b"y" * 1000)) == b"y" * 1000
    echo.arrived.clear()
    holder.send(post("/held", b"x" * 1000))
    await echo.arrived.wait()
    wire.send(post(PLAIN, b"y" * 1000))
    assert (await wire.response()).status == 503
    echo.replies[0](HttpResponse(200))
    await holder.response()
    other = await connect(server)
    assert await exchange(other, post(PLAIN, b"y" * 1000)) == b"y" * 1000


@pytest.mark.parametrize("header", ["Connection: close", "Upgrade: websocket", "Content-Encoding: gzip"])
async def test_what_is_not_ordinary_is_never_remembered(
    serve: Serve, connect: Connect, echo: Echo, header: str
) -> None:
    """Each is parsed, also the second time."""
    server = await serve()
    for _ in range(2):
        wire = await connect(server)
        wire.send(post(PLAIN, b"", header))
        await wire.response()
    assert all(request.head is None for request in echo.requests)


async def test_a_draining_server_says_so_to_known_requests_too(serve: Serve, connect: Connect) -> None:
    """The connection is closed after the answer."""
    server = await serve()
    wire = await connect(server)
    await exchange(wire, post(PLAIN, b"1"))
    server.drain()
    wire.send(post(PLAIN, b"2"))
    answer = await wire.response()
    assert (answer.body, answer.headers["connection"]) == (b"2", "close")
    assert await wire.closed()


LINES = st.sampled_from(
    [b"X-A: 1", b"x-a:2", b"X-B:\t3", b"Content-Type: application/json", b"X-A: 1\r", b" folded", b"X-Bad"]
)


REQUESTS = st.builds(
    lambda lines, end, body: (
        end.join([b"POST /v2/models/m/infer HTTP/1.1", b"Host: t", b"Content-Length: %d" % len(body), *lines])
        + 2 * end
        + body
    ),
    st.lists(LINES, max_size=3),
    st.sampled_from([b"\r\n", b"\n"]),
    st.binary(max_size=40),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(request=REQUESTS)
async def test_the_second_time_is_as_the_first(
    serve: Serve, connect: Connect, echo: Echo, request: bytes
) -> None:
    """Whatever the head looks like, and whatever the body holds: same status, same request."""
    server = await serve()
    answers = []
    for _ in range(2):
        wire = await connect(server)
        wire.send(request)
        wire.half_close()
        answers.append(await wire.response())
    first, second = answers
    assert (first.status, first.body) == (second.status, second.body)
    if first.status == 200:
        assert echo.requests[-1].headers == echo.requests[-2].headers


async def test_a_client_that_reads_nothing_is_answered_no_further(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """What it has not read bounds what is made for it, known request or not."""
    server = await serve()
    wire = await connect(server)
    answer, sent = b"x" * 1_000_000, 40
    for number in range(sent):
        echo.arrived.clear()
        wire.send(post("/held", b"x"))
        try:
            async with asyncio.timeout(0.3):
                await echo.arrived.wait()
        except TimeoutError:
            break
        echo.replies[number](HttpResponse(200, (answer,), "application/octet-stream", compressible=False))
    assert len(echo.replies) < sent // 2
    for _ in range(len(echo.replies)):
        assert (await wire.response()).body == answer


async def test_an_idle_connection_keeps_no_body(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Neither of a parsed request nor of a recognised one, once they are answered."""
    server = await serve()
    wire = await connect(server)
    for number in range(2):
        body = bytes([65 + number]) * 100_000
        assert await exchange(wire, post(PLAIN, body)) == body
        echo.requests.clear()
        del body
        connection: Any
        (connection,) = server._connections.connections
        assert connection._exchange is None
        assert connection.cycle._body == b""
