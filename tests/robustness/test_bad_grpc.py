"""Bad gRPC against a real gateway: the matching code, a message that says what was wrong, nothing harmed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from gateway._proto import open_inference_pb2 as pb
from loadtests.soak_grpc import BytesStream, channel, stream_infer, unary
from tests.acceptance.clients import ON_BOTH
from tests.robustness.grpc_corpus import CASES, GOOD, BadRpc
from tests.robustness.http_corpus import LIMIT_BYTES

if TYPE_CHECKING:
    from loadtests.soak_server import GatewayProcess

pytestmark = ON_BOTH


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_messages_are_refused_in_words(gateway: GatewayProcess, case: BadRpc) -> None:
    """Every message of the corpus gets its code and a message that names what was wrong."""
    async with channel(gateway.grpc_port) as over:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(over, case.method)(case.message)
    details = caught.value.details() or ""
    assert caught.value.code() is case.code, details
    for word in case.words:
        assert word in details


async def test_a_compressed_bomb_is_refused(gateway: GatewayProcess) -> None:
    """A message that inflates beyond the limit is RESOURCE_EXHAUSTED, and is not inflated to its end."""
    bomb = GOOD + b"\x3a" + bytes([0x80, 0x80, 0x80, 0x20]) + bytes(16 * LIMIT_BYTES)
    async with channel(gateway.grpc_port) as over:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(over)(bomb, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_oversize_metadata_is_refused(gateway: GatewayProcess) -> None:
    """Metadata beyond the limit fails its own call."""
    async with channel(gateway.grpc_port) as over:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(over)(GOOD, metadata=(("x", "v" * 20_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await unary(over)(GOOD)


async def stream_answer(stream: BytesStream) -> pb.ModelStreamInferResponse:
    message = await stream.read()
    assert isinstance(message, bytes)
    return pb.ModelStreamInferResponse.FromString(message)


async def test_a_bad_message_leaves_its_stream_alive(gateway: GatewayProcess) -> None:
    """In a stream of requests a bad one is answered in its place, and the next one works."""
    bad = pb.ModelInferRequest(model_name="nobody").SerializeToString()
    async with channel(gateway.grpc_port) as over:
        stream = stream_infer(over)
        for message, error in ((GOOD, ""), (bad, "nobody"), (GOOD, "")):
            await stream.write(message)
            answer = await stream_answer(stream)
            assert error in answer.error_message
            assert bool(error) == bool(answer.error_message)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_half_closed_empty_stream_ends(gateway: GatewayProcess) -> None:
    """A stream that never asks anything ends well."""
    async with channel(gateway.grpc_port) as over:
        stream = stream_infer(over)
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        PREFACE[:10] + b"nonsense of some length",
        PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        PREFACE + SETTINGS + b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff",
        PREFACE + SETTINGS + b"\x00\x00\x00\x00\x00\x00\x00\x00\x07",
        PREFACE + SETTINGS + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        PREFACE + b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00",
    ],
    ids=[
        "HTTP/1",
        "TLS",
        "preface",
        "length",
        "header block",
        "data on no stream",
        "no window",
        "frame size",
    ],
)
async def test_what_is_no_http2_ends_its_connection_alone(gateway: GatewayProcess, data: bytes) -> None:
    """Bytes that break HTTP/2 end their own connection; calls on another one go on."""
    async with channel(gateway.grpc_port) as over:
        await unary(over)(GOOD)
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.grpc_port)
        writer.write(data)
        writer.write_eof()
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
        await unary(over)(GOOD)


async def test_calls_broken_off_are_forgotten(gateway: GatewayProcess) -> None:
    """Calls cancelled at any moment harm neither their channel nor those beside them."""
    async with channel(gateway.grpc_port) as over:
        infer = unary(over)
        calls = [infer(GOOD) for _ in range(200)]
        for call in calls[::2]:
            call.cancel()
        kept = await asyncio.gather(*calls[1::2])
        assert len({bytes(answer) for answer in kept}) == 1
