"""Infer exchanges answered inside the connection: the same answers as through the application, in order."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import pytest

from gateway.core.calls import HttpResponse
from gateway.transport.http_direct import HeaderMemo
from gateway.transport.options import CorsOptions, HttpLimits
from tests.transport.wire import Echo, Wire, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.transport.http import HttpServer

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]

PLAIN = "/v2/models/m/infer"


def through_the_application(path: str, body: bytes, *headers: str) -> bytes:
    """A chunked body never goes directly."""
    head, rest = chunked(path, body).split(b"\r\n", 1)
    return b"\r\n".join([head, *(h.encode() for h in headers), rest])


@pytest.mark.parametrize("body", [b"x", b"y" * 5000, b"z" * 300_000], ids=len)
@pytest.mark.parametrize(
    "headers", [(), ("Content-Type: application/json", "X-A: 1", "X-A: 2"), ("Connection: close",)], ids=str
)
async def test_both_ways_answer_alike(
    serve: Serve, connect: Connect, echo: Echo, body: bytes, headers: tuple[str, ...]
) -> None:
    """Status, headers and body are the same, and the method sees the same request."""
    server = await serve()
    answers = []
    for request in (post(PLAIN, body, *headers), through_the_application(PLAIN, body, *headers)):
        wire = await connect(server)
        wire.send(request)
        answer = await wire.response()
        answers.append((answer.status, sorted(k for k in answer.headers), answer.body))
        if "Connection: close" in headers:
            assert await wire.closed()
    assert answers[0] == answers[1]
    direct, applied = echo.requests
    assert (direct.path, direct.path_params, direct.query) == (
        applied.path,
        applied.path_params,
        applied.query,
    )
    assert bytes(direct.body) == bytes(applied.body) == body
    framing = {"content-length", "transfer-encoding"}
    assert {k: v for k, v in direct.headers.items() if k not in framing} == {
        k: v for k, v in applied.headers.items() if k not in framing
    }


async def test_pipelined_requests_are_answered_in_order(serve: Serve, connect: Connect, echo: Echo) -> None:
    """What comes behind a direct exchange waits for it, whichever way it goes itself."""
    wire = await connect(await serve())
    wire.send(post("/held", b"1") + post(PLAIN, b"2") + get("/handle") + post(PLAIN, b"4"))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, (b"1",)))
    assert [(await wire.response()).body for _ in range(4)] == [b"1", b"2", b"", b"4"]


async def test_a_body_in_pieces_arrives_whole(serve: Serve, connect: Connect, echo: Echo) -> None:
    """However the bytes are cut, the method sees one body, once."""
    wire = await connect(await serve())
    request = post(PLAIN, b"0123456789" * 100)
    for start in range(0, len(request), 97):
        wire.send(request[start : start + 97])
        await wire.writer.drain()
        await asyncio.sleep(0)
    assert (await wire.response()).body == b"0123456789" * 100
    assert len(echo.requests) == 1


async def test_a_client_that_goes_is_noticed_and_its_budget_given_back(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """The method's hook runs, and the bytes held may be held by others."""
    server = await serve(HttpLimits(max_body_bytes=1000, max_buffered_bytes=1000))
    wire = await connect(server)
    wire.send(post("/held", b"x" * 1000))
    await echo.arrived.wait()
    wire.close()
    await echo.cancelled.wait()
    echo.replies[0](HttpResponse(200))  # too late, and harmless
    other = await connect(server)
    other.send(post(PLAIN, b"y" * 1000))
    assert (await other.response()).status == 200


async def test_a_request_cut_short_is_refused_and_never_begun(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """Half a body and an end of input: 400, and the budget is free again."""
    server = await serve(HttpLimits(max_body_bytes=1000, max_buffered_bytes=1000))
    wire = await connect(server)
    wire.send(post(PLAIN, b"x" * 1000)[:-1])
    wire.half_close()
    assert (await wire.response()).status == 400
    assert not echo.requests
    other = await connect(server)
    other.send(post(PLAIN, b"y" * 1000))
    assert (await other.response()).status == 200


async def test_a_fault_of_the_method_is_its_requests_alone(serve: Serve, connect: Connect) -> None:
    """500 without the text, and the connection goes on."""
    wire = await connect(await serve())
    wire.send(post("/broken-begin", b"x") + post(PLAIN, b"next"))
    broken = await wire.response()
    assert (broken.status, broken.error) == (500, "internal error")
    assert (await wire.response()).body == b"next"


@pytest.mark.parametrize("size", [2_000, 200_000])
async def test_compressed_for_those_who_accept_it(serve: Serve, connect: Connect, size: int) -> None:
    """Small ones at once, large ones in a thread; both inflate to the same."""
    wire = await connect(await serve())
    wire.send(post(PLAIN, b"a" * size, "Accept-Encoding: deflate", "Content-Type: text/plain"))
    answer = await wire.response()
    assert answer.headers["content-encoding"] == "deflate"
    assert answer.headers["vary"] == "accept-encoding"
    assert zlib.decompress(answer.body) == b"a" * size


async def test_cross_origin_requests_get_their_headers(serve: Serve, connect: Connect) -> None:
    """With CORS on, a request with an Origin goes where the headers are added."""
    wire = await connect(await serve(cors=CorsOptions(origins=("https://app.example",))))
    wire.send(post(PLAIN, b"x", "Origin: https://app.example") + post(PLAIN, b"y"))
    assert (await wire.response()).headers["access-control-allow-origin"] == "https://app.example"
    assert (await wire.response()).body == b"y"


async def test_a_body_larger_than_the_whole_budget_is_too_large(serve: Serve, connect: Connect) -> None:
    """It could never be taken, so it is not told to come again."""
    wire = await connect(await serve(HttpLimits(max_body_bytes=5000, max_buffered_bytes=1000)))
    wire.send(post(PLAIN, b"x" * 2000))
    assert (await wire.response()).status == 413


def test_the_header_memo_forgets_rather_than_grows() -> None:
    """Blocks that never repeat leave it bounded, and a known block is one object."""
    memo = HeaderMemo()
    for number in range(3000):
        block = memo.decode([(b"x-id", b"%d" % number)], 10)
        assert block.headers == {"x-id": str(number)}
    assert len(memo._blocks) <= 1024
    raw = [(b"content-length", b"5"), (b"a", b"1"), (b"a", b"2")]
    assert memo.decode(raw, 20) is memo.decode(list(raw), 20)
    assert memo.decode(raw, 20).headers == {"content-length": "5", "a": "1, 2"}
    assert memo.decode(raw, 20).body_bytes == 5
    assert memo.decode([(b"content-length", b"5"), (b"expect", b"x")], 20).body_bytes == -1
