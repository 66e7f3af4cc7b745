"""How long connections live: keepalive, age, idleness, pings, certificates that change, methods that stay."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway.transport.http2.limits import Limit
from gateway.transport.options import TlsOptions
from tests.transport.grpc_wire.frames import (
    PREFACE,
    Setting,
    message,
    open_call,
    rst_stream,
    settings,
    whole_call,
)
from tests.transport.grpc_wire.methods import SERVICE
from tests.transport.grpc_wire.servers import OWN_CONNECTION, call, failure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transport.grpc_wire.methods import Methods

FOREVER_S = 3600.0
CUT_OFF = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_pings_between_answers_are_forgiven(guarded: Any, connect: Any, methods: Methods) -> None:
    """Clients that measure the bandwidth ping after DATA, though they may have called long before."""
    server = await guarded(min_ping_interval_s=FOREVER_S)
    wire = await connect(server)
    streams = range(1, 21, 2)
    for stream_id in streams:
        wire.send(whole_call(stream_id, b"x", "Hold"))
    await wire.pong()
    for stream_id, held in zip(streams, methods.calls, strict=True):
        held.reply(b"answer")
        assert (await wire.answer(stream_id)).messages() == [b"answer"]
        await wire.pong()
        await wire.pong()
    assert not server.fired


async def test_pings_between_refusals_are_forgiven(guarded: Any, connect: Any, methods: Methods) -> None:
    """Trailers alone are an answer, too."""
    server = await guarded(min_ping_interval_s=FOREVER_S)
    wire = await connect(server)
    streams = range(1, 21, 2)
    wire.send(b"".join(open_call(stream_id) for stream_id in streams))
    await wire.pong()
    for stream_id in streams:
        await wire.upload(stream_id, message(b"x")[:-1])
        assert (await wire.answer(stream_id)).grpc_status != 0
        await wire.pong()
        await wire.pong()
    assert not server.fired


async def test_pings_between_window_updates_are_forgiven(
    guarded: Any, connect: Any, methods: Methods
) -> None:
    """A client that uploads is told that it may go on, and has nothing else to hear."""
    server = await guarded(min_ping_interval_s=FOREVER_S, stream_window_bytes=1 << 16)
    wire = await connect(server)
    wire.send(open_call(1, "Sip"))
    uploading = asyncio.create_task(wire.upload(1, message(bytes(60_000)) * 20))
    for _ in range(20):
        methods.progress.clear()
        methods.sips.release()
        await methods.progress.wait()
        await wire.pong()
    await uploading
    assert not server.fired


async def test_a_client_that_answers_no_ping_is_given_up(
    guarded: Any, connect: Any, methods: Methods
) -> None:
    """Its connection is closed and its calls are cancelled."""
    server = await guarded(keepalive_time_s=0.05, keepalive_timeout_s=0.05)
    wire = await connect(server, polite=False)
    wire.send(whole_call(1, b"x", "Hold"))
    await wire.end()
    await methods.cancelled.wait()
    assert wire.pings
    assert server.fired == {Limit.KEEPALIVE_TIMEOUT: 1}


async def test_a_client_that_answers_pings_is_kept(start: Any, connect: Any, methods: Methods) -> None:
    """However long its call takes."""
    server, channel = await start(keepalive_time_s=0.05, keepalive_timeout_s=20.0)
    held = asyncio.ensure_future(call(channel, "Hold"))
    await methods.arrived.wait()
    other = await connect(server)
    other.send(whole_call(1, b"x", "Hold"))
    await other.until(lambda: other.pings >= 3)
    assert not other.closed
    methods.calls[0].reply(b"at last")
    assert await held == b"at last"


async def peers_of(channel: grpc.aio.Channel, methods: Methods, count: int) -> None:
    """Call one by one until the calls have come from `count` connections."""
    seen: set[str] = set()
    while len(seen) < count:
        assert await call(channel, "Unary", b"x") == b"x"
        await call(channel, "Echo")
        seen.add(methods.facts["peer"])


async def test_old_connections_are_replaced_unnoticed(start: Any, methods: Methods) -> None:
    """A client that calls all the time loses no call, nor one that was begun before."""
    _, channel = await start(max_connection_age_s=0.1)
    held = asyncio.ensure_future(call(channel, "Hold"))
    await methods.arrived.wait()
    stream = channel.stream_stream(f"/{SERVICE}/Stream")()
    await stream.write(b"before")
    assert await stream.read() == b"re:before"
    await peers_of(channel, methods, 4)
    methods.calls[0].reply(b"at last")
    assert await held == b"at last"
    await stream.write(b"after")
    assert await stream.read() == b"re:after"
    await stream.done_writing()
    assert await stream.read() == b"end"


async def test_many_calls_at_once_survive_old_connections(start: Any, methods: Methods) -> None:
    """Those on their way when the server says GOAWAY are served, or sent again by the client's library."""
    _, channel = await start(max_connection_age_s=0.05, max_concurrent_streams=None)

    async def converse(number: int) -> None:
        for turn in range(30):
            text = b"%d/%d" % (number, turn)
            assert await call(channel, "Unary", text, wait_for_ready=True) == text

    await asyncio.gather(*(converse(number) for number in range(20)))


@pytest.mark.parametrize("method", ["Hold", "UnaryWait"])
async def test_the_grace_of_an_old_connection_ends(start: Any, methods: Methods, method: str) -> None:
    """What is not answered by then is cut off, and its method told."""
    _, channel = await start(max_connection_age_s=0.1, max_connection_age_grace_s=0.1)
    assert (await failure(call(channel, method))).code() in CUT_OFF
    await methods.cancelled.wait()
    assert await call(channel, "Echo", b"next") == b"next"


async def test_an_idle_connection_is_closed(start: Any, methods: Methods) -> None:
    """The client's library hears of it, and connects again for the next call."""
    _, channel = await start(max_connection_idle_s=0.1)
    for _ in range(2):
        assert await call(channel, "Echo", b"x") == b"x"
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)


async def test_a_connection_with_a_call_is_not_idle(start: Any, connect: Any, methods: Methods) -> None:
    """Nor does it become so while others do."""
    server, channel = await start(max_connection_idle_s=0.1)
    held = asyncio.ensure_future(call(channel, "Hold"))
    await methods.arrived.wait()
    for _ in range(2):
        idle = await connect(server)
        await idle.echo(1)
        await idle.end()
    await call(channel, "Echo")
    assert methods.facts["peer"] == methods.calls[0].peer  # the connection was not told to go
    methods.calls[0].reply(b"at last")
    assert await held == b"at last"


async def test_a_method_that_will_not_end_is_abandoned(
    guarded: Any, connect: Any, methods: Methods, caplog: pytest.LogCaptureFixture
) -> None:
    """The stop takes its grace and a second at most, and says so in the log."""
    server = await guarded()
    wire = await connect(server, greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    wire.send(open_call(1, "Linger"))
    await methods.arrived.wait()
    with caplog.at_level(logging.WARNING):
        await server.server.stop(0.0)
    assert [(r.msg, getattr(r, "count", 0)) for r in caplog.records] == [("rpc_methods_abandoned", 1)]
    assert methods.cancellations == 1
    methods.let_end.set()


async def test_a_second_stop_ends_a_wait_for_a_method(
    guarded: Any, connect: Any, methods: Methods, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has gone, and the first stop has hours to wait for the method."""
    server = await guarded()
    wire = await connect(server, greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    wire.send(open_call(1, "Linger"))
    await methods.arrived.wait()
    wire.send(rst_stream(1))
    await methods.cancelled.wait()
    first = asyncio.create_task(server.server.stop(FOREVER_S))
    await wire.end()
    await server.server.stop(0.0)
    await first
    assert "rpc_methods_abandoned" in caplog.messages
    methods.let_end.set()


async def test_a_method_that_takes_its_time_to_end_is_waited_for(
    guarded: Any, connect: Any, methods: Methods, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as the grace lasts."""
    server = await guarded()
    wire = await connect(server, greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    wire.send(open_call(1, "Linger"))
    await methods.arrived.wait()
    wire.send(rst_stream(1))
    await methods.cancelled.wait()
    stopping = asyncio.create_task(server.server.stop(FOREVER_S))
    await wire.end()
    assert not stopping.done()
    methods.let_end.set()
    await stopping
    assert not caplog.records


async def test_a_certificate_may_change(guarded: Any, certificates: TlsOptions, tmp_path: Path) -> None:
    """New connections are shown the new one; those that are open go on."""
    live = TlsOptions(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
    shutil.copy(certificates.certificate, live.certificate)
    shutil.copy(certificates.key, live.key)
    server = await guarded(tls=live)
    address = f"localhost:{server.port}"

    def trusting(options: TlsOptions) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(options.certificate.read_bytes())
        return grpc.aio.secure_channel(address, credentials, options=OWN_CONNECTION)

    async with trusting(certificates) as before:
        assert await call(before, "Echo", b"old") == b"old"
        new_pair(live)
        async with trusting(live) as after, trusting(certificates) as late:
            assert await call(after, "Echo", b"new") == b"new"
            assert (await failure(call(late, "Echo"))).code() is grpc.StatusCode.UNAVAILABLE
        assert await call(before, "Echo", b"still") == b"still"


def new_pair(options: TlsOptions) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(options.key), "-out", str(options.certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)


async def test_a_tls_client_must_ask_for_http2(guarded: Any, certificates: TlsOptions) -> None:
    """By ALPN (RFC 9113 section 3.2); one that does not is closed before it has said anything."""
    server = await guarded(tls=certificates)
    for protocols, served in ((["h2"], True), (["http/1.1"], False), (None, False)):
        context = ssl.create_default_context(cafile=str(certificates.certificate))
        if protocols is not None:
            context.set_alpn_protocols(protocols)
        try:
            reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
            assert bool(await reader.read(9)) is served
        except (ssl.SSLError, ConnectionError):
            assert not served
        else:
            writer.transport.abort()
