"""What grpcio clients see of both transports: limits, compression, stopping, TLS."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway.core.errors import ConfigError
from gateway.testing import settle
from gateway.transport.options import GrpcServerOptions, Http2Limits, TlsOptions
from tests.transport.grpc_wire.frames import Type, frame, whole_call
from tests.transport.grpc_wire.methods import SERVICE
from tests.transport.grpc_wire.servers import NO_LIMITS, OWN_CONNECTION, TRANSPORTS, call, failure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transport.grpc_wire.methods import Methods

MIB = 1 << 20
COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Deflate, grpc.Compression.Gzip]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_message_beyond_the_limit_is_refused(start: Any) -> None:
    """The limit is the largest size allowed, and the next call succeeds."""
    _, channel = await start(max_receive_bytes=1000)
    assert len(await call(channel, "Echo", b"x" * 1000)) == 1000
    for size in (1001, 5 * MIB):
        assert (await failure(call(channel, "Echo", b"x" * size))).code() is EXHAUSTED
        assert await call(channel, "Echo", b"next") == b"next"


async def test_a_message_of_a_stream_beyond_the_limit_is_refused(start: Any, methods: Methods) -> None:
    """The stream ends with the status, and the next call succeeds."""
    _, channel = await start(max_receive_bytes=1000)
    stream = channel.stream_stream(f"/{SERVICE}/Stream")()
    await stream.write(b"x" * 1000)
    assert len(await stream.read()) == 1003
    await stream.write(b"x" * 1001)
    assert await stream.code() is EXHAUSTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_metadata_beyond_the_limit_is_refused(start: Any) -> None:
    """Large metadata is refused, and the next call succeeds."""
    _, channel = await start(max_metadata_bytes=2000)
    for metadata in ([("big", "x" * 4000)], [(f"name-{n}", "x" * 100) for n in range(30)]):
        error = await failure(call(channel, "Echo", metadata=metadata))
        assert error.code() is EXHAUSTED
        assert await call(channel, "Echo", b"next") == b"next"


async def test_calls_beyond_the_limit_are_refused(start: Any, methods: Methods) -> None:
    """The call beyond the limit is refused at once; those before it go on."""
    _, channel = await start(max_concurrent_rpcs=1)
    held = call(channel, "Hold")
    await methods.arrived.wait()
    assert (await failure(call(channel, "Echo"))).code() is EXHAUSTED
    methods.calls[0].reply(b"held")
    assert await held == b"held"


async def test_streams_count_as_calls(start: Any, methods: Methods) -> None:
    """A stream takes a place for as long as it is open."""
    _, channel = await start(max_concurrent_rpcs=1)
    stream = channel.stream_stream(f"/{SERVICE}/Stream")()
    await stream.write(b"x")
    assert await stream.read() == b"re:x"
    assert (await failure(call(channel, "Echo"))).code() is EXHAUSTED
    await stream.done_writing()
    assert await stream.read() == b"end"
    assert await stream.read() is grpc.aio.EOF


async def test_connections_beyond_the_limit_are_closed(start: Any) -> None:
    """A connection too many is closed, and those before it go on."""
    server, channel = await start(max_connections=2)
    address = f"127.0.0.1:{server.port}"
    assert await call(channel, "Echo", b"first") == b"first"
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as second:
        assert await call(second, "Echo", b"second") == b"second"
        async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as third:
            error = await failure(call(third, "Echo"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, "Echo", b"again") == b"again"


async def test_a_connection_that_ended_makes_room(serve: Any, connect: Any, transport: str) -> None:
    """The limit counts what is open."""
    if transport == "grpcio":
        pytest.skip("the C core was seen not to take connections again after some had ended")
    server = await serve(max_connections=2, http2=Http2Limits(linger_s=0.0))
    for _ in range(20):
        wire = await connect(server)
        await wire.echo(1)
        wire.send(b"no frame at all, but enough of it to be taken for one")
        await wire.end()


async def test_an_answer_beyond_the_limit_fails(start: Any) -> None:
    """An operator can bound what is sent; the next call succeeds."""
    _, channel = await start(max_send_bytes=1000)
    assert (await failure(call(channel, "Echo", b"x" * 1001))).code() is EXHAUSTED
    assert await call(channel, "Echo", b"x" * 1000) == b"x" * 1000


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("response", ["none", "deflate", "gzip"])
async def test_compressed_messages_are_inflated(
    start: Any, compression: grpc.Compression, response: str
) -> None:
    """The method sees the plain message and so does the client, whatever each does; empty ones too."""
    _, channel = await start(response_compression=response)
    for message in (b"x" * 100_000, b"", b"short", bytes(range(256)) * 400):
        assert await call(channel, "Echo", message, compression=compression) == message
    stream = channel.stream_stream(f"/{SERVICE}/Stream")(compression=compression)
    for message in (b"x" * 100_000, b""):
        await stream.write(message)
        assert await stream.read() == b"re:" + message
    await stream.done_writing()
    assert await stream.read() == b"end"
    assert await stream.read() is grpc.aio.EOF


async def test_a_bomb_is_refused(start: Any, methods: Methods) -> None:
    """Inflating stops at the message limit, and the next call succeeds."""
    _, channel = await start(max_receive_bytes=1 << 20)
    for compression in COMPRESSIONS[1:]:
        error = await failure(call(channel, "Echo", bytes(8 << 20), compression=compression))
        assert error.code() is EXHAUSTED
        assert not methods.facts
    assert len(await call(channel, "Echo", bytes(1 << 20), compression=compression)) == 1 << 20


async def test_compression_can_be_refused(start: Any) -> None:
    """With compression off a compressed request is UNIMPLEMENTED and a plain one is served."""
    _, channel = await start(accept_compression=False)
    error = await failure(call(channel, "Echo", b"x" * 1000, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await call(channel, "Echo", b"next") == b"next"


async def test_stopping_lets_calls_finish(start: Any, methods: Methods) -> None:
    """Calls in flight are answered, a new one is refused, and then the stop ends."""
    server, channel = await start()
    held = call(channel, "Hold")
    await methods.arrived.wait()
    stream = channel.stream_stream(f"/{SERVICE}/Stream")()
    await stream.write(b"before")
    assert await stream.read() == b"re:before"
    stopping = asyncio.create_task(server.stop(60.0))
    await settle()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OWN_CONNECTION) as other:
        error = await failure(call(other, "Echo"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await stream.write(b"during")
    assert await stream.read() == b"re:during"
    await stream.done_writing()
    assert await stream.read() == b"end"
    methods.calls[0].reply(b"held")
    assert await held == b"held"
    await stopping


async def test_stopping_loses_no_call(start: Any, transport: str) -> None:
    """A call is answered or told that it may be sent elsewhere, whenever the server stops."""
    elsewhere = {grpc.StatusCode.UNAVAILABLE}
    if transport == "grpcio":
        elsewhere.add(grpc.StatusCode.CANCELLED)  # what had arrived but not reached Python yet
    server, channel = await start()
    await call(channel, "Echo")
    calls = [asyncio.ensure_future(call(channel, "Unary", b"%d" % n)) for n in range(300)]
    await calls[0]
    await server.stop(60.0)
    for number, result in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
        if isinstance(result, grpc.aio.AioRpcError):
            assert result.code() in elsewhere
        else:
            assert result == b"%d" % number


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


async def test_the_grace_ends(start: Any, methods: Methods) -> None:
    """What is not done by then is cancelled."""
    server, channel = await start()
    held: list[Any] = []
    for begin in (
        lambda: call(channel, "Hold"),
        lambda: call(channel, "UnaryWait"),
        channel.stream_stream(f"/{SERVICE}/StreamWait"),
    ):
        held.append(begin())
        await methods.arrived.wait()
        methods.arrived.clear()
    await server.stop(0.05)
    for one in held:
        assert await one.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    while methods.cancellations < 3:
        methods.cancelled.clear()
        await methods.cancelled.wait()


async def test_stopping_goes_away_in_two_steps(serve: Any, connect: Any, methods: Methods) -> None:
    """First a GOAWAY that refuses nothing, then one that names the last call (RFC 9113 section 6.8)."""
    server = await serve()
    wire = await connect(server)

    await wire.echo(1)
    wire.send(whole_call(3, b"x", "Hold"))
    await methods.arrived.wait()
    stopping = asyncio.create_task(server.stop(60.0))
    await wire.until(lambda: len(wire.goaways) >= 2)
    assert wire.goaways[0] == (2**31 - 1, 0)
    assert wire.goaways[1] == (3, 0)
    methods.calls[0].reply(b"held")
    assert (await wire.answer(3)).messages() == [b"held"]
    assert await wire.end() == 0
    await stopping


async def test_stopping_with_a_broken_connection(serve: Any, connect: Any, methods: Methods) -> None:
    """One that was told why it ends, and still stands open, does not hinder the stop of the others."""
    server = await serve()
    wires = [await connect(server) for _ in range(3)]
    wires[0].send(whole_call(1, b"x", "Hold"))
    await methods.arrived.wait()
    for wire in wires[1:]:
        wire.send(frame(Type.PING, payload=bytes(7)))
        await wire.until(lambda wire=wire: bool(wire.goaways))
    stopping = asyncio.create_task(server.stop(60.0))
    await wires[0].until(lambda: bool(wires[0].goaways))
    methods.calls[0].reply(b"held")
    assert (await wires[0].answer(1)).messages() == [b"held"]
    await stopping


async def test_a_port_in_use_is_a_config_error(serve: Any, transport: str) -> None:
    """Two servers do not share a port unnoticed."""
    server = await serve()
    with pytest.raises(ConfigError, match=str(server.port)):
        await TRANSPORTS[transport]([], GrpcServerOptions(port=server.port)).start()


async def test_tls_is_served(serve: Any, certificates: TlsOptions) -> None:
    """Large messages both ways, and nothing for who does not speak it."""
    server = await serve(tls=certificates)
    credentials = grpc.ssl_channel_credentials(certificates.certificate.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials, options=NO_LIMITS) as channel:
        for message in (b"secret", bytes(5 * MIB)):
            assert await call(channel, "Echo", message) == message
    async with grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
        assert (await failure(call(channel, "Echo"))).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("shown", [True, False])
async def test_mutual_tls_asks_for_a_certificate(serve: Any, certificates: TlsOptions, shown: bool) -> None:
    """Only a client with a certificate of the authority is served."""
    server = await serve(tls=replace(certificates, client_ca=certificates.certificate))
    roots, key = certificates.certificate.read_bytes(), certificates.key.read_bytes()
    credentials = grpc.ssl_channel_credentials(roots, key if shown else None, roots if shown else None)
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
        if shown:
            assert await call(channel, "Echo", b"secret") == b"secret"
        else:
            assert (await failure(call(channel, "Echo"))).code() is grpc.StatusCode.UNAVAILABLE


async def test_unusable_tls_files_are_a_config_error(
    transport: str, certificates: TlsOptions, tmp_path: Path
) -> None:
    """The message names the file."""
    tls = replace(certificates, key=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        await TRANSPORTS[transport]([], GrpcServerOptions(port=0, tls=tls)).start()
