"""What a client sees of the gRPC listener."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway.core.calls import RpcCall, RpcFailure, RpcService, RpcStatus, RpcStream
from gateway.core.errors import ConfigError
from gateway.testing import settle
from gateway.transport.grpc_aio import GrpcAioServer
from gateway.transport.options import GrpcServerOptions, TlsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

NAMED = RpcStatus(5, "not here: \u00e4\n100%", (("retry", "no"),))


class Methods:
    """Methods of the tests' own."""

    def __init__(self) -> None:
        self.calls: list[RpcCall] = []
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.facts: dict[str, Any] = {}

    def echo(self, call: RpcCall) -> None:
        self.facts = {"metadata": call.metadata, "deadline_s": call.deadline_s, "peer": call.peer}
        self.facts["arrived_s"] = call.arrived_s
        call.reply(bytes(call.message), (("trailer", "value"),))

    def hold(self, call: RpcCall) -> None:
        self.calls.append(call)
        call.on_cancel(self.broken_hook)
        call.on_cancel(self.cancelled.set)
        self.arrived.set()

    def broken_hook(self) -> None:
        raise RuntimeError("hook")

    def fail(self, call: RpcCall) -> None:
        call.fail(RpcStatus(NAMED.code, bytes(call.message).decode() or NAMED.message, NAMED.metadata))

    def twice(self, call: RpcCall) -> None:
        call.reply(b"first")
        call.fail(NAMED)
        call.reply(b"second")

    def raises(self, call: RpcCall) -> None:
        raise RuntimeError("secret")

    async def unary(self, call: RpcCall) -> bytes:
        return bytes(call.message)

    async def unary_fails(self, call: RpcCall) -> bytes:
        raise RpcFailure(NAMED)

    async def unary_raises(self, call: RpcCall) -> bytes:
        raise RuntimeError("secret")

    async def unary_waits(self, call: RpcCall) -> bytes:
        await self.wait()
        return b""

    async def wait(self) -> None:
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def stream(self, stream: RpcStream) -> None:
        self.facts = {"metadata": stream.metadata, "deadline_s": stream.deadline_s, "peer": stream.peer}
        async for message in stream:
            await stream.send(b"re:" + bytes(message))
        await stream.send(b"end")

    async def stream_fails(self, stream: RpcStream) -> None:
        await stream.send(b"one")
        raise RpcFailure(NAMED)

    async def stream_waits(self, stream: RpcStream) -> None:
        await self.wait()

    def service(self) -> RpcService:
        return RpcService(
            "test.Echo",
            begin={
                "Echo": self.echo,
                "Hold": self.hold,
                "Fail": self.fail,
                "Twice": self.twice,
                "Raise": self.raises,
            },
            unary={
                "Unary": self.unary,
                "UnaryFail": self.unary_fails,
                "UnaryRaise": self.unary_raises,
                "UnaryWait": self.unary_waits,
            },
            stream={"Stream": self.stream, "StreamFail": self.stream_fails, "StreamWait": self.stream_waits},
            server_stream={"ServerStream": self.stream},
        )


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def start(methods: Methods) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:

        async def start_server(**options: object) -> tuple[GrpcAioServer, grpc.aio.Channel]:
            server = GrpcAioServer([methods.service()], GrpcServerOptions(port=0, **options))  # type: ignore[arg-type]
            port = await server.start()
            stack.push_async_callback(server.stop, 0.0)
            limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limits)
            return server, await stack.enter_async_context(channel)

        yield start_server


def call(channel: grpc.aio.Channel, method: str, message: bytes = b"", **options: Any) -> Any:
    multicallable: Any = channel.unary_unary(f"/test.Echo/{method}")
    return multicallable(message, **options)


async def failure(awaitable: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize("method", ["Echo", "Unary"])
@pytest.mark.parametrize("message", [b"", b"x", b"y" * 3_000_000], ids=len)
async def test_a_message_comes_back(start: Any, method: str, message: bytes) -> None:
    """Messages are bytes to the transport, of any size within the limit."""
    _, channel = await start()
    assert await call(channel, method, message) == message


async def test_a_call_carries_its_facts(start: Any, methods: Methods) -> None:
    """Metadata is joined text without binary entries, the deadline monotonic time; trailers go back."""
    _, channel = await start()
    metadata = (("a", "1"), ("a", "2"), ("b-bin", b"\x00"))
    reply = call(channel, "Echo", b"x", metadata=metadata, timeout=3600)
    assert await reply == b"x"
    assert ("trailer", "value") in tuple(await reply.trailing_metadata())
    facts = methods.facts
    assert facts["metadata"]["a"] == "1, 2"
    assert "b-bin" not in facts["metadata"]
    assert 3500 < facts["deadline_s"] - facts["arrived_s"] <= 3601
    assert "127.0.0.1" in facts["peer"]


async def test_a_call_without_deadline_has_none(start: Any, methods: Methods) -> None:
    """No deadline is None, not a far one."""
    _, channel = await start()
    await call(channel, "Echo")
    assert methods.facts["deadline_s"] is None


async def test_only_the_first_answer_counts(start: Any) -> None:
    """Later answers are ignored."""
    _, channel = await start()
    assert await call(channel, "Twice") == b"first"


@pytest.mark.parametrize("method", ["Fail", "UnaryFail"])
async def test_a_failure_arrives_with_its_status(start: Any, method: str) -> None:
    """Code, message of any characters, and metadata arrive as given."""
    _, channel = await start()
    error = await failure(call(channel, method))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, NAMED.message)
    assert ("retry", "no") in tuple(error.trailing_metadata())


@pytest.mark.parametrize("text", ["a" * 100_000, "\u00e4" * 100_000, "%\n" * 50_000])
async def test_a_long_status_message_is_cut(start: Any, text: str) -> None:
    """A message beyond what clients accept as metadata is cut and keeps its code."""
    _, channel = await start()
    error = await failure(call(channel, "Fail", text.encode()))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    details = error.details()
    assert details
    assert len(details) > 300
    assert text.startswith(details)


@pytest.mark.parametrize("method", ["Raise", "UnaryRaise"])
async def test_an_unexpected_exception_is_neutral(start: Any, method: str) -> None:
    """The client learns nothing of what was raised, and the next call succeeds."""
    _, channel = await start()
    error = await failure(call(channel, method))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert await call(channel, "Echo", b"next") == b"next"


async def test_an_unknown_method_is_unimplemented(start: Any) -> None:
    """Methods and services nobody has are answered as the specification says."""
    _, channel = await start()
    for path in ("/test.Echo/Nothing", "/test.Nothing/Echo"):
        error = await failure(channel.unary_unary(path)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["Hold", "UnaryWait"])
async def test_a_cancelled_call_tells_its_method(start: Any, methods: Methods, method: str) -> None:
    """Every callback runs, one that raises included, the coroutine is cancelled, a late answer is ignored."""
    _, channel = await start()
    pending = call(channel, method)
    await methods.arrived.wait()
    pending.cancel()
    await methods.cancelled.wait()
    for held in methods.calls:
        held.reply(b"late")
    assert await call(channel, "Echo", b"next") == b"next"


@pytest.mark.parametrize("method", ["Hold", "UnaryWait"])
async def test_an_expired_deadline_cancels(start: Any, methods: Methods, method: str) -> None:
    """The client gets DEADLINE_EXCEEDED and the method is told."""
    _, channel = await start()
    error = await failure(call(channel, method, timeout=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await methods.cancelled.wait()


async def test_a_lost_connection_cancels(start: Any, methods: Methods) -> None:
    """A client that vanishes is a client that cancels."""
    _, channel = await start()
    pending = call(channel, "Hold")
    await methods.arrived.wait()
    await channel.close()
    await methods.cancelled.wait()
    assert pending.done()


async def test_a_stream_goes_both_ways(start: Any, methods: Methods) -> None:
    """Requests are iterated until the client half-closes, and responses come as they are sent."""
    _, channel = await start()
    stream = channel.stream_stream("/test.Echo/Stream")(metadata=(("a", "1"),))
    for text in (b"a", b"", b"c" * 100_000):
        await stream.write(text)
        assert await stream.read() == b"re:" + text
    await stream.done_writing()
    assert await stream.read() == b"end"
    assert await stream.read() is grpc.aio.EOF
    assert methods.facts["metadata"]["a"] == "1"
    assert methods.facts["deadline_s"] is None


async def test_a_server_stream_has_one_request(start: Any) -> None:
    """The request is iterated once, an empty one too."""
    _, channel = await start()
    for message in (b"x", b""):
        stream = channel.unary_stream("/test.Echo/ServerStream")(message)
        assert [response async for response in stream] == [b"re:" + message, b"end"]


async def test_a_stream_fails_after_its_responses(start: Any) -> None:
    """What was sent before the failure arrives, then the status."""
    _, channel = await start()
    stream = channel.stream_stream("/test.Echo/StreamFail")()
    assert await stream.read() == b"one"
    error = await failure(stream.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, NAMED.message)


async def test_a_cancelled_stream_tells_its_method(start: Any, methods: Methods) -> None:
    """The coroutine is cancelled when the client gives the stream up."""
    _, channel = await start()
    stream = channel.stream_stream("/test.Echo/StreamWait")()
    await stream.write(b"x")
    await methods.arrived.wait()
    stream.cancel()
    await methods.cancelled.wait()


async def test_a_message_beyond_the_limit_is_refused(start: Any) -> None:
    """The limit is the largest size allowed, and the next call succeeds."""
    _, channel = await start(max_receive_bytes=1000)
    assert len(await call(channel, "Echo", b"x" * 1000)) == 1000
    error = await failure(call(channel, "Echo", b"x" * 1001))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_metadata_beyond_the_limit_is_refused(start: Any) -> None:
    """Large metadata is refused, and the next call succeeds."""
    _, channel = await start(max_metadata_bytes=2000)
    error = await failure(call(channel, "Echo", metadata=(("big", "x" * 4000),)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_calls_beyond_the_limit_are_refused(start: Any, methods: Methods) -> None:
    """The call beyond the limit is refused at once; those before it go on."""
    _, channel = await start(max_concurrent_rpcs=1)
    held = call(channel, "Hold")
    await methods.arrived.wait()
    error = await failure(call(channel, "Echo"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    methods.calls[0].reply(b"held")
    assert await held == b"held"


async def test_connections_beyond_the_limit_are_closed(start: Any) -> None:
    """A connection too many is closed, and those before it go on."""
    server, channel = await start(max_connections=2)
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{server.port}"
    assert await call(channel, "Echo", b"first") == b"first"
    async with grpc.aio.insecure_channel(address, options=own_connection) as second:
        assert await call(second, "Echo", b"second") == b"second"
        async with grpc.aio.insecure_channel(address, options=own_connection) as third:
            error = await failure(call(third, "Echo"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, "Echo", b"again") == b"again"


async def test_an_answer_beyond_the_limit_fails(start: Any) -> None:
    """An operator can bound what is sent; the next call succeeds."""
    _, channel = await start(max_send_bytes=1000)
    error = await failure(call(channel, "Echo", b"x" * 1001))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await call(channel, "Echo", b"x" * 1000) == b"x" * 1000


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_message_is_inflated(start: Any, compression: grpc.Compression) -> None:
    """The method sees the plain message."""
    _, channel = await start(response_compression="gzip")
    message = b"x" * 100_000
    assert await call(channel, "Echo", message, compression=compression) == message


async def test_a_bomb_is_refused(start: Any, methods: Methods) -> None:
    """Inflating stops at the message limit, and the next call succeeds."""
    _, channel = await start(max_receive_bytes=1 << 20)
    error = await failure(call(channel, "Echo", bytes(8 << 20), compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not methods.facts
    assert await call(channel, "Echo", b"next") == b"next"


async def test_compression_can_be_refused(start: Any) -> None:
    """With compression off a compressed request is UNIMPLEMENTED and a plain one is served."""
    _, channel = await start(accept_compression=False)
    error = await failure(call(channel, "Echo", b"x" * 1000, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_stopping_lets_calls_finish(start: Any, methods: Methods) -> None:
    """A call in flight is answered, a new one is refused, and then the stop ends."""
    server, channel = await start()
    held = call(channel, "Hold")
    await methods.arrived.wait()
    stopping = asyncio.create_task(server.stop(60.0))
    await settle()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as other:
        error = await failure(call(other, "Echo"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    methods.calls[0].reply(b"held")
    assert await held == b"held"
    await stopping


async def test_a_second_stop_may_cut_the_grace(start: Any, methods: Methods) -> None:
    """Stopping again without grace cancels what is left and ends the first stop too."""
    server, channel = await start()
    held = call(channel, "Hold")
    await methods.arrived.wait()
    first = asyncio.create_task(server.stop(3600.0))
    await settle()
    await server.stop(0.0)
    await first
    assert (await failure(held)).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await methods.cancelled.wait()


async def test_a_port_in_use_is_a_config_error(start: Any) -> None:
    """Two servers do not share a port unnoticed."""
    server, _ = await start()
    with pytest.raises(ConfigError, match=str(server.port)):
        await GrpcAioServer([], GrpcServerOptions(port=server.port)).start()


@pytest.mark.parametrize("shown", [True, False])
async def test_mutual_tls_asks_for_a_certificate(
    methods: Methods, certificates: TlsOptions, shown: bool
) -> None:
    """Only a client with a certificate of the authority is served."""
    tls = replace(certificates, client_ca=certificates.certificate)
    server = GrpcAioServer([methods.service()], GrpcServerOptions(port=0, tls=tls))
    port = await server.start()
    roots, key = certificates.certificate.read_bytes(), certificates.key.read_bytes()
    credentials = grpc.ssl_channel_credentials(roots, key if shown else None, roots if shown else None)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        if shown:
            assert await call(channel, "Echo", b"secret") == b"secret"
        else:
            assert (await failure(call(channel, "Echo"))).code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0.0)


async def test_unusable_tls_files_are_a_config_error(certificates: TlsOptions, tmp_path: Path) -> None:
    """The message names the file."""
    tls = replace(certificates, key=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        await GrpcAioServer([], GrpcServerOptions(port=0, tls=tls)).start()
