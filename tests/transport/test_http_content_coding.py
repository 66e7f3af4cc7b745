"""Compressed bodies through the HTTP listener, both ways."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import TYPE_CHECKING

import pytest

from gateway.core.calls import HttpResponse
from gateway.transport.options import HttpLimits
from tests.transport.wire import Echo, Wire, chunked, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.transport.http import HttpServer

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]

INFER = "/v2/models/m/infer"
PLAIN = b'{"inputs": [1, 2, 3]}' * 100
NOISE = random.Random(1).randbytes(300_000)


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


@pytest.mark.parametrize("body", [PLAIN, NOISE, b""], ids=["small", "large", "empty"])
@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
async def test_a_compressed_request_is_inflated(
    serve: Serve, connect: Connect, coding: str, encode: Callable[[bytes], bytes], body: bytes
) -> None:
    """The method sees the plain body, whether the request has a length or chunks of odd sizes."""
    wire = await connect(await serve())
    encoded = encode(body)
    wire.send(post(INFER, encoded, f"Content-Encoding: {coding}"))
    assert (await wire.response()).body == body
    pieces = [encoded[:1], encoded[1:7], encoded[7:]]
    request = chunked(INFER, *[piece for piece in pieces if piece])
    wire.send(request.replace(b"Host: test", f"Content-Encoding: {coding}".encode()))
    assert (await wire.response()).body == body


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_an_unknown_coding_is_501(serve: Serve, connect: Connect, coding: str) -> None:
    """The client is told what it may send."""
    wire = await connect(await serve())
    wire.send(post(INFER, b"x", f"Content-Encoding: {coding}"))
    response = await wire.response()
    assert (response.status, response.headers["accept-encoding"]) == (501, "gzip, deflate")
    assert coding in response.error


@pytest.mark.parametrize("size", [300, 300_000])
@pytest.mark.parametrize("damage", ["cut", "extended", "garbage"])
@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, raw_deflate])
async def test_damaged_data_is_400(
    serve: Serve, connect: Connect, encode: Callable[[bytes], bytes], damage: str, size: int
) -> None:
    """Truncated, extended and meaningless data is refused."""
    good = encode(NOISE[:size])
    sent = {"cut": good[:-5], "extended": good + b"more", "garbage": b"\xff" * len(good)}[damage]
    coding = "gzip" if encode is gzip.compress else "deflate"
    server = await serve()
    wire = await connect(server)
    wire.send(post(INFER, sent, f"Content-Encoding: {coding}"))
    response = await wire.response()
    assert response.status == 400
    assert coding in response.error
    other = await connect(server)
    other.send(post(INFER, good, f"Content-Encoding: {coding}"))
    assert (await other.response()).status == 200


@pytest.mark.parametrize(
    ("limits", "size", "status"),
    [
        (HttpLimits(max_decompressed_bytes=1 << 20), 1 << 20, 200),
        (HttpLimits(max_decompressed_bytes=1 << 20), (1 << 20) + 1, 413),
        (HttpLimits(max_ratio=10.0), 1 << 20, 200),
        (HttpLimits(max_ratio=10.0), 4 << 20, 413),
        (HttpLimits(max_ratio=2000.0), 4 << 20, 200),
    ],
)
async def test_inflating_is_bounded(
    serve: Serve, connect: Connect, limits: HttpLimits, size: int, status: int
) -> None:
    """Size and ratio have limits, and a limit is the largest value allowed."""
    wire = await connect(await serve(limits))
    wire.send(post(INFER, gzip.compress(bytes(size)), "Content-Encoding: gzip"))
    response = await wire.response()
    assert response.status == status
    assert len(response.body) == size or "error" in response.body.decode()


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("br, *", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("*;q=0, deflate", "deflate"),
        ("gzip;q=nonsense", None),
        ("", None),
    ],
)
async def test_a_response_uses_the_best_accepted_coding(
    serve: Serve, connect: Connect, accept: str, coding: str | None
) -> None:
    """The client's weights decide."""
    wire = await connect(await serve())
    wire.send(post(INFER, PLAIN, "Content-Type: application/json", f"Accept-Encoding: {accept}"))
    response = await wire.response()
    assert response.headers.get("content-encoding") == coding
    decoded = zlib.decompress(response.body, 47) if coding else response.body
    assert decoded == PLAIN
    assert response.headers["vary"] == "accept-encoding"


async def test_a_large_response_is_compressed_whole(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Several parts become one encoded body."""
    wire = await connect(await serve())
    wire.send(post("/held", b"", "Accept-Encoding: gzip"))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, (PLAIN, memoryview(NOISE), b"tail")))
    response = await wire.response()
    assert gzip.decompress(response.body) == PLAIN + NOISE + b"tail"


@pytest.mark.parametrize(
    ("options", "content_type", "size"),
    [
        ({}, "application/octet-stream", 5000),
        ({}, "application/json", 1023),
        ({"compression_min_bytes": None}, "application/json", 5000),
    ],
)
async def test_what_is_not_compressed(
    serve: Serve, connect: Connect, options: dict[str, object], content_type: str, size: int
) -> None:
    """Tensors and small bodies stay plain for a client that accepts gzip."""
    wire = await connect(await serve(**options))
    wire.send(post(INFER, b"x" * size, f"Content-Type: {content_type}", "Accept-Encoding: gzip"))
    assert "content-encoding" not in (await wire.response()).headers


async def test_tensors_are_compressed_if_the_operator_says_so(serve: Serve, connect: Connect) -> None:
    """The option covers application/octet-stream."""
    wire = await connect(await serve(compress_octet_stream=True))
    wire.send(post(INFER, b"x" * 5000, "Content-Type: application/octet-stream", "Accept-Encoding: gzip"))
    response = await wire.response()
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(response.body) == b"x" * 5000


async def test_a_method_can_forbid_compression(serve: Serve, connect: Connect, echo: Echo) -> None:
    """A response that is not compressible stays plain."""
    wire = await connect(await serve())
    wire.send(post("/held", b"", "Accept-Encoding: gzip"))
    await echo.arrived.wait()
    echo.replies[0](HttpResponse(200, (PLAIN,), compressible=False))
    assert (await wire.response()).body == PLAIN
