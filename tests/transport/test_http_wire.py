"""What a client sees on the wire of the HTTP listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.calls import HttpResponse
from gateway.transport.options import CorsOptions
from tests.transport.wire import Echo, Wire, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.transport.http import HttpServer

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]

INFER = "/v2/models/m/infer"


@pytest.mark.parametrize("path", [INFER, "/handle"])
async def test_a_request_reaches_its_method_whole(
    serve: Serve, connect: Connect, echo: Echo, path: str
) -> None:
    """Method, path, query, headers and body arrive as sent, and the answer is the method's."""
    wire = await connect(await serve())
    wire.send(post(path + "?a=1", b"body", "X-Two: 1", "x-two: 2", "Content-Type: text/x"))
    response = await wire.response()
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"body", "text/x")
    assert response.headers["server"] == "model-gateway"
    assert "gmt" in response.headers["date"]
    request = echo.requests[0]
    assert (request.method, request.path, request.query, bytes(request.body)) == (
        "POST",
        path,
        "a=1",
        b"body",
    )
    assert request.headers["x-two"] == "1, 2"
    assert request.peer.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("segment", "model"),
    [("a%2Fb", "a/b"), ("%2525", "%25"), ("%C3%A4", "\u00e4"), ("a+b", "a+b"), ("a%20:b", "a :b")],
)
async def test_a_path_parameter_is_one_segment_decoded_once(
    serve: Serve, connect: Connect, echo: Echo, segment: str, model: str
) -> None:
    """An encoded slash stays inside its segment, on begin routes and on others."""
    wire = await connect(await serve())
    wire.send(post(f"/v2/models/{segment}/infer") + get(f"/v2/models/{segment}"))
    assert [(await wire.response()).status for _ in range(2)] == [200, 200]
    assert [request.path_params for request in echo.requests] == [{"model": model}] * 2


async def test_encoded_literals_match_their_route(serve: Serve, connect: Connect, echo: Echo) -> None:
    """`%6dodels` is the same path as `models`."""
    wire = await connect(await serve())
    wire.send(post("/v2/%6dodels/m/versions/12/infer"))
    assert (await wire.response()).status == 200
    assert echo.requests[0].path_params == {"model": "m", "version": "12"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/models//infer",
        "/v2/models/m/versions/x/infer",
        "/v2/models/m/versions/1x/infer",
        INFER + "/",
    ],
)
async def test_an_unknown_path_is_404(serve: Serve, connect: Connect, path: str) -> None:
    """A path no route has is answered in JSON, and the connection goes on."""
    wire = await connect(await serve())
    for _ in range(2):
        wire.send(post(path, b"ignored"))
        response = await wire.response()
        assert (response.status, response.body) == (404, b'{"error":"Not Found"}')


@pytest.mark.parametrize(("path", "allow"), [(INFER, "post"), ("/handle", "get, head, post")])
async def test_a_wrong_method_is_405(serve: Serve, connect: Connect, path: str, allow: str) -> None:
    """The answer lists every method of the path."""
    wire = await connect(await serve())
    wire.send(get(path).replace(b"GET", b"DELETE"))
    response = await wire.response()
    assert (response.status, response.body) == (405, b'{"error":"Method Not Allowed"}')
    assert response.headers["allow"] == allow


async def test_head_is_get_without_a_body(serve: Serve, connect: Connect) -> None:
    """HEAD gets the headers of GET and leaves the connection usable."""
    wire = await connect(await serve())
    wire.send(get("/handle").replace(b"GET", b"HEAD") + get("/handle"))
    assert (await wire.response(head=True)).status == 200
    assert (await wire.response()).status == 200


async def test_pipelined_requests_are_answered_in_order(serve: Serve, connect: Connect, echo: Echo) -> None:
    """A later request waits for the answer of an earlier one."""
    wire = await connect(await serve())
    wire.send(post("/held", b"1") + post(INFER, b"2") + post("/handle", b"3"))
    await echo.arrived.wait()
    assert len(echo.requests) == 1
    echo.replies[0](HttpResponse(200, (b"first",)))
    assert [(await wire.response()).body for _ in range(3)] == [b"first", b"2", b"3"]


async def test_a_chunked_body_is_joined(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Chunks arrive as one body, and trailers are no headers."""
    wire = await connect(await serve())
    request = chunked(INFER, b"ab", b"c" * 100_000, b"d")
    wire.send(request[:-2] + b"X-Trailer: 1\r\n\r\n")
    wire.send(post(INFER, b"next"))
    assert (await wire.response()).body == b"ab" + b"c" * 100_000 + b"d"
    assert (await wire.response()).body == b"next"
    assert "x-trailer" not in echo.requests[0].headers


async def test_a_body_sent_in_pieces_is_joined(serve: Serve, connect: Connect, echo: Echo) -> None:
    """A request may arrive byte by byte."""
    wire = await connect(await serve())
    for byte in post(INFER, b"slowly"):
        wire.send(bytes([byte]))
        await wire.writer.drain()
    assert (await wire.response()).body == b"slowly"


async def test_a_large_body_goes_both_ways(serve: Serve, connect: Connect) -> None:
    """Eight MiB are returned bit for bit."""
    body = bytes(range(256)) * 32768
    wire = await connect(await serve())
    wire.send(post(INFER, body))
    assert (await wire.response()).body == body


async def test_expect_continue_is_answered_before_the_body(serve: Serve, connect: Connect) -> None:
    """A client that asks first is told to go on."""
    wire = await connect(await serve())
    head, body = post(INFER, b"body", "Expect: 100-continue")[:-4], b"body"
    wire.send(head)
    assert (await wire.head())[0] == 100
    wire.send(body)
    assert (await wire.response()).body == b"body"


async def test_response_parts_are_sent_one_after_the_other(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """Buffers of any kind and size make one body with its length."""
    wire = await connect(await serve())
    wire.send(post("/held"))
    await echo.arrived.wait()
    parts = (b"head", memoryview(b"x" * 300_000), bytearray(b"tail"))
    echo.replies[0](HttpResponse(201, parts, "application/octet-stream", (("X-Name", "value"),)))
    response = await wire.response()
    assert (response.status, response.body) == (201, b"head" + b"x" * 300_000 + b"tail")
    assert response.headers["x-name"] == "value"


async def test_an_empty_response_has_length_zero(serve: Serve, connect: Connect, echo: Echo) -> None:
    """No body and no content type is a complete response."""
    wire = await connect(await serve())
    wire.send(post("/held"))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, content_type=""))
    response = await wire.response()
    assert (response.body, response.headers["content-length"]) == (b"", "0")
    assert "content-type" not in response.headers


async def test_a_stream_is_sent_chunk_by_chunk(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Every event is a chunk of its own, and the iterator is closed at the end."""
    wire = await connect(await serve())
    wire.send(get("/events?2"))
    response = await wire.response()
    assert response.parts == (b"data: 0\n\n", b"data: 1\n\n")
    assert response.headers["content-type"] == "text/event-stream"
    await echo.cancelled.wait()


@pytest.mark.parametrize("path", ["/held", "/wait"])
async def test_a_client_that_goes_cancels_its_request(
    serve: Serve, connect: Connect, echo: Echo, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook runs, the coroutine is cancelled, a late reply is ignored, and no error is logged."""
    server = await serve()
    wire = await connect(server)
    wire.send(post(path, b"x"))
    await echo.arrived.wait()
    wire.close()
    await echo.cancelled.wait()
    for reply in echo.replies:
        reply(HttpResponse(200))
    other = await connect(server)
    other.send(post(INFER, b"next"))
    assert (await other.response()).body == b"next"
    await server.stop(60.0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_client_that_leaves_a_stream_ends_it(serve: Serve, connect: Connect, echo: Echo) -> None:
    """The iterator is closed while it waits for its next item."""
    wire = await connect(await serve())
    wire.send(get("/events?3"))
    await echo.arrived.wait()
    wire.close()
    await echo.cancelled.wait()


@pytest.mark.parametrize("path", ["/broken", "/broken-begin"])
async def test_a_failing_method_is_a_neutral_500(serve: Serve, connect: Connect, path: str) -> None:
    """The client learns nothing of what was raised, and the connection goes on."""
    wire = await connect(await serve())
    wire.send(post(path, b"x") + post(INFER, b"y"))
    response = await wire.response()
    assert (response.status, response.error) == (500, "internal error")
    assert (await wire.response()).body == b"y"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nBad Header: 1\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/models/%FF HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_400(serve: Serve, connect: Connect, request_bytes: bytes) -> None:
    """Malformed input gets one JSON error, and the server goes on."""
    server = await serve()
    wire = await connect(server)
    wire.send(request_bytes)
    response = await wire.response()
    assert response.status == 400
    assert response.error
    other = await connect(server)
    other.send(post(INFER, b"next"))
    assert (await other.response()).body == b"next"


async def test_bad_input_after_a_request_lets_that_one_finish(
    serve: Serve, connect: Connect, echo: Echo
) -> None:
    """The answer due is given, and then the connection is closed."""
    wire = await connect(await serve())
    wire.send(post("/held") + b"garbage\r\n\r\n")
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, (b"good",)))
    response = await wire.response()
    assert (response.body, response.headers["connection"]) == (b"good", "close")
    wire.half_close()
    assert await wire.closed()


@pytest.mark.parametrize(
    ("sent", "part"),
    [(post(INFER, b"whole")[:-2], "body"), (post(INFER)[:-4], "headers"), (b"PO", "headers")],
)
async def test_a_request_that_ends_early_is_400(
    serve: Serve, connect: Connect, echo: Echo, sent: bytes, part: str
) -> None:
    """A client that shuts down its side in the middle is told which part is missing; no method sees it."""
    wire = await connect(await serve())
    wire.send(sent)
    wire.half_close()
    response = await wire.response()
    assert response.status == 400
    assert part in response.error
    assert await wire.closed()
    assert not echo.requests


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (post(INFER, b"body"), b"body"),
        (post(INFER, b""), b""),
        (chunked(INFER, b"bo", b"dy"), b"body"),
        (post(INFER, b"b" * 400_000), b"b" * 400_000),
    ],
)
async def test_an_upgrade_is_declined(serve: Serve, connect: Connect, sent: bytes, body: bytes) -> None:
    """A client that offers HTTP/2 gets its answer in HTTP/1.1, and so do its next requests."""
    wire = await connect(await serve())
    offer = sent.replace(b"Host: test", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", 1)
    wire.send(offer + offer + post(INFER, b"next"))
    assert [(await wire.response()).body for _ in range(3)] == [body, body, b"next"]


async def test_http_1_0_closes(serve: Serve, connect: Connect) -> None:
    """An HTTP/1.0 client gets one answer a connection."""
    wire = await connect(await serve())
    wire.send(get("/handle").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await wire.response()).headers["connection"] == "close"
    assert await wire.closed()


@pytest.mark.parametrize("path", [INFER, "/handle", "/nowhere"])
async def test_cors_headers_are_on_every_answer(serve: Serve, connect: Connect, path: str) -> None:
    """An allowed page may read answers of begin routes, other routes and errors."""
    wire = await connect(await serve(cors=CorsOptions(origins=("https://app.example",))))
    wire.send(post(path, b"x", "Origin: https://app.example"))
    assert (await wire.response()).headers["access-control-allow-origin"] == "https://app.example"
    wire.send(post(path, b"x", "Origin: https://other.example"))
    assert "access-control-allow-origin" not in (await wire.response()).headers


async def test_cors_preflight_allows_the_binary_header(serve: Serve, connect: Connect) -> None:
    """A page may send binary tensors."""
    wire = await connect(await serve(cors=CorsOptions(origins=("https://app.example",))))
    asked = (
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: inference-header-content-length",
    )
    wire.send(get(INFER, "Origin: https://app.example", *asked).replace(b"GET", b"OPTIONS"))
    response = await wire.response()
    assert response.status == 200
    assert "inference-header-content-length" in response.headers["access-control-allow-headers"]


async def test_cors_is_off_by_default(serve: Serve, connect: Connect) -> None:
    """Without options no page may call."""
    wire = await connect(await serve())
    wire.send(post(INFER, b"x", "Origin: https://app.example"))
    assert not [name for name in (await wire.response()).headers if name.startswith("access-control")]
