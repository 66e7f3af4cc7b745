"""The client over sockets: against gRPC's own server, and against servers that are none."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import hpack
import pytest

from gateway.transport.grpc_native_client import ClientMemory, GrpcClient
from tests.backends.triton.certificates import Authority, Pair
from tests.transport.grpc_client.memory import HEAD, OK, message, options
from tests.transport.http2.peer import data, frame, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[bytes, Any], Awaitable[bytes]]
    Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENCE_S = 60.0


@asynccontextmanager
async def client(port: int, **more: Any) -> AsyncIterator[GrpcClient]:
    made = GrpcClient(options(port, **more), ClientMemory())
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def grpc_server(handler: Handler, port: int = 0, **more: Any) -> AsyncIterator[int]:
    """Run gRPC's own server with one method, in bytes; give its port."""
    arguments = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    arguments += more.pop("options", [])
    server = grpc.aio.server(options=arguments, **more)
    methods: dict[str, Any] = {"C": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", methods)])
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def echo(body: bytes, _: Any) -> bytes:
    return body[::-1]


class RawServer:
    """Says what a test wants to whoever connects.

    Attributes:
        port: where.
        accepted: connections so far.
    """

    def __init__(self, conversation: Conversation, tls: ssl.SSLContext | None = None) -> None:
        self._conversation = conversation
        self._tls = tls
        self._writers: list[asyncio.StreamWriter] = []
        self.accepted = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        try:
            await self._conversation(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> int:
    """Read frames to the end of a request; return its stream."""
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == 0 and head[4] & 1:
            return int.from_bytes(head[5:], "big")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(24)
    writer.write(settings())


def answer(stream_id: int, body: bytes) -> bytes:
    """Return an answer that uses no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    head = frame(1, 4, stream_id, encoder.encode(HEAD))
    return head + data(stream_id, message(body)) + frame(1, 5, stream_id, encoder.encode(OK))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with its number."""
    await greet(reader, writer)
    while True:
        stream_id = await read_request(reader)
        writer.write(answer(stream_id, b"%d" % stream_id))


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and read what comes."""
    await greet(reader, writer)
    while await reader.read(1 << 16):
        pass


# Against gRPC's own server


@pytest.mark.parametrize("size", [0, 1, 5, 16_379, 16_380, 65_531, 300_000, 9_000_000])
async def test_messages_of_any_size(size: int) -> None:
    """Both ways, through the server's windows and ours."""
    body = bytes(n % 251 for n in range(min(size, 1000))) * (size // 1000 or 1)
    async with grpc_server(echo) as port, client(port, max_message_bytes=1 << 30) as made:
        for _ in range(3):
            assert await made.call(body, PATIENCE_S) == (0, "", body[::-1], (), None)


async def test_many_at_a_time() -> None:
    """Each gets its own answer; large ones and small ones take turns."""
    bodies = [b"%d " % n * (1 if n % 7 else 40_000) for n in range(200)]
    async with grpc_server(echo) as port, client(port) as made:
        answers = await asyncio.gather(*(made.call(body, PATIENCE_S) for body in bodies))
    assert [one.body for one in answers] == [body[::-1] for body in bodies]


async def test_more_than_the_server_takes() -> None:
    """Calls wait for each other, and all are answered."""
    most = running = 0

    async def slow(body: bytes, _: Any) -> bytes:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return body

    async with (
        grpc_server(slow, options=[("grpc.max_concurrent_streams", 3)]) as port,
        client(port) as made,
    ):

        async def ask(body: bytes) -> bytes:
            # gRPC's server counts a call for a moment after it has answered it, and refuses one more.
            while (end := await made.call(body, PATIENCE_S)).sent is False:
                assert end.details == "Received RST_STREAM with error code 7"
            return end.body

        answers = await asyncio.gather(*(ask(b"%d" % n) for n in range(50)))
    assert answers == [b"%d" % n for n in range(50)]
    assert most <= 3


async def test_statuses_metadata_and_time() -> None:
    """As gRPC's server gives them, and as it hears them."""
    heard: dict[str, Any] = {}

    async def fail(_: bytes, context: Any) -> bytes:
        heard.update(dict(context.invocation_metadata()), left=context.time_remaining())
        await context.abort(grpc.StatusCode.NOT_FOUND, "kein Modell „m“", (("a", "b"), ("c-bin", b"\0")))
        raise AssertionError

    async with grpc_server(fail) as port, client(port) as made:
        for _ in range(3):
            end = await made.call(b"", 30.0, [("traceparent", "00-1")])
            assert (end.code, end.details, end.sent) == (5, "kein Modell „m“", None)
            assert ("a", "b") in end.metadata
    assert heard["traceparent"] == "00-1"
    assert 29 < heard["left"] < 31
    assert heard["user-agent"] == "model-gateway"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_server_that_compresses(compression: grpc.Compression) -> None:
    """Its messages are inflated."""
    async with grpc_server(echo, compression=compression) as port, client(port) as made:
        for size in (10, 100_000):
            assert (await made.call(bytes(size), PATIENCE_S)).body == bytes(size)


async def test_the_server_hears_of_calls_that_are_called_off() -> None:
    """By whoever waited, or by time."""
    began, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def wait(_: bytes, context: Any) -> bytes:
        began.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.release()
        raise AssertionError

    async with grpc_server(wait) as port, client(port) as made:
        call = asyncio.ensure_future(made.call(b"", None))
        await began.acquire()
        call.cancel()
        await cancelled.acquire()
        assert (await made.call(b"", 0.05)).code == 4
        assert (await asyncio.wait_for(asyncio.shield(made.call(b"", 0.05)), PATIENCE_S)).code == 4


async def test_a_server_that_comes_back() -> None:
    """It is used again, without anybody's help."""
    async with client_of_nobody() as (made, port):
        async with grpc_server(echo, port):
            assert await made.connect() == ""
            assert (await made.call(b"ab", PATIENCE_S)).body == b"ba"
        end = await made.call(b"ab", PATIENCE_S)
        assert end.code == 14
        async with grpc_server(echo, port):
            while (await made.call(b"ab", PATIENCE_S)).code:
                await made.connect()


@asynccontextmanager
async def client_of_nobody() -> AsyncIterator[tuple[GrpcClient, int]]:
    async with grpc_server(echo) as port:
        pass
    async with client(port) as made:
        yield made, port


# Against servers that are none


async def test_nobody_there() -> None:
    """Calls fail unsent: the first by trying, those after it at once for a while."""
    async with client_of_nobody() as (made, port):
        ends = [await made.call(b"", PATIENCE_S) for _ in range(3)]
        assert {end.code for end in ends} == {14}
        assert not any(end.sent for end in ends)
        assert ends[0].details.startswith(f"failed to connect to 127.0.0.1:{port}: ")
        assert "refused" in ends[0].details.lower() or "Connect call failed" in ends[0].details
        assert await made.connect() == ends[0].details


async def test_a_host_without_address() -> None:
    """It is said."""
    async with client(1, host="no-such-host.invalid") as made:
        assert "failed to connect to no-such-host.invalid:1: " in await made.connect()


async def test_a_pause_is_kept() -> None:
    """Nobody is bothered by the calls in it, but one who asks for a connection gets another attempt."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with RawServer(hang_up) as server, client(server.port, max_backoff_s=1e9) as made:
        made._backoff_s = 1e6
        ends = [await made.call(b"", PATIENCE_S) for _ in range(5)]
        said = f"failed to connect to 127.0.0.1:{server.port}: Socket closed"
        assert {end.details for end in ends} == {said}
        assert server.accepted == 1
        assert await made.connect() == said
        assert server.accepted == 2


async def test_a_server_that_does_not_greet() -> None:
    """It is waited for as long as connecting may take; calls that waited fail unsent."""

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with RawServer(say_nothing) as server, client(server.port, connect_timeout_s=0.05) as made:
        end = await made.call(b"", None)
        assert (end.code, end.sent) == (14, False)
        assert end.details == f"failed to connect to 127.0.0.1:{server.port}: no connection in 0.05 s"


async def test_a_deadline_before_there_is_a_connection() -> None:
    """It ends the call, unsent; connecting goes on."""

    async def greet_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await late.wait()
        await serve(reader, writer)

    late = asyncio.Event()
    async with RawServer(greet_late) as server, client(server.port) as made:
        end = await made.call(b"", 0.02)
        assert (end.code, end.sent) == (4, False)
        late.set()
        assert (await made.call(b"", PATIENCE_S)).body == b"1"
        assert server.accepted == 1


async def test_a_server_that_goes_away() -> None:
    """The call goes over a new connection, without a failure in between."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        stream_id = await read_request(reader)
        writer.write(frame(7, payload=stream_id.to_bytes(4, "big") + bytes(4)) + answer(stream_id, b"x"))

    async with RawServer(once) as server, client(server.port) as made:
        for _ in range(5):
            assert (await made.call(b"", PATIENCE_S)).body == b"x"
        assert server.accepted == 5


async def test_a_server_that_goes_away_at_once() -> None:
    """There is no connection to it."""

    async def greet_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(settings() + frame(7, payload=bytes(8)))

    async with RawServer(greet_and_go) as server, client(server.port) as made:
        assert "failed to connect" in await made.connect()
        assert (await made.call(b"", PATIENCE_S)).sent is False


async def test_calls_that_waited_find_the_next_connection() -> None:
    """A server that goes away while calls wait for room loses them to the one after it."""

    async def one_at_a_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(frame(4, payload=b"\0\3\0\0\0\1"))
        stream_id = await read_request(reader)
        writer.write(frame(7, payload=stream_id.to_bytes(4, "big") + bytes(4)) + answer(stream_id, b"x"))

    async with RawServer(one_at_a_time) as server, client(server.port) as made:
        answers = await asyncio.gather(*(made.call(b"", PATIENCE_S) for _ in range(4)))
        assert [one.body for one in answers] == [b"x"] * 4
        assert server.accepted == 4


async def test_a_connection_that_is_cut() -> None:
    """Calls under way fail, the next goes over a new one."""
    read = asyncio.Event()

    async def cut_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.accepted > 1:
            await serve(reader, writer)
        await greet(reader, writer)
        await read_request(reader)
        read.set()
        writer.transport.abort()

    async with RawServer(cut_first) as server, client(server.port) as made:
        end = await made.call(b"", PATIENCE_S)
        assert (end.code, end.sent) == (14, True)
        assert end.details.startswith("Socket closed")
        assert (await made.call(b"", PATIENCE_S)).body == b"1"


async def test_a_server_that_falls_silent() -> None:
    """With or without a deadline, calls fail when a ping is not answered."""
    async with (
        RawServer(never) as server,
        client(server.port, keepalive_time_s=0.05, keepalive_timeout_s=0.05) as made,
    ):
        ends = await asyncio.gather(made.call(b"", None), made.call(b"", PATIENCE_S))
        assert {(end.code, end.details) for end in ends} == {(14, "keepalive: a ping was not answered")}


async def test_a_server_that_answers_pings_is_waited_for() -> None:
    """Silence is no failure then."""
    pings = 0

    async def answer_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pings
        await greet(reader, writer)
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == 6:
                pings += 1
                writer.write(frame(6, 1, 0, payload))
            if pings == 2:
                writer.write(answer(1, b"late"))

    async with (
        RawServer(answer_the_second) as server,
        client(server.port, keepalive_time_s=0.02, keepalive_timeout_s=PATIENCE_S) as made,
    ):
        assert (await made.call(b"", None)).body == b"late"


async def test_a_server_that_reads_slowly() -> None:
    """A request larger than any buffer waits in here, and others behind it; all are answered."""
    go = asyncio.Event()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(settings(w=1 << 30) + frame(8, 0, 0, (1 << 30).to_bytes(4, "big")))
        await go.wait()
        for _ in range(2):
            stream_id = await read_request(reader)
            writer.write(answer(stream_id, b"x"))

    async with RawServer(read_late) as server, client(server.port) as made:
        large = asyncio.ensure_future(made.call(bytes(20 << 20), PATIENCE_S))
        while not made._link or not made._link.connection.sender.paused:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        small = asyncio.ensure_future(made.call(b"", PATIENCE_S))
        go.set()
        assert [(await call).body for call in (large, small)] == [b"x", b"x"]


async def test_tls(tmp_path: Path) -> None:
    """With ALPN, a name to expect, and our own certificate where one is asked for."""
    authority = Authority(tmp_path, "ca")
    there, here = authority.issue("triton.example"), authority.issue("gateway.example")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(here.certificate, here.key)
    context.set_alpn_protocols(["h2"])
    secured = tls_of(there)
    secured.load_verify_locations(authority.certificate)
    secured.verify_mode = ssl.CERT_REQUIRED
    secured.set_alpn_protocols(["h2"])
    async with RawServer(serve, secured) as server:
        async with client(server.port, tls=context, server_name="triton.example") as made:
            assert (await made.call(b"", PATIENCE_S)).body == b"1"
        async with client(server.port, tls=context) as made:
            assert "CERTIFICATE_VERIFY_FAILED" in await made.connect()
        stranger = ssl.create_default_context(cafile=authority.certificate)
        stranger.set_alpn_protocols(["h2"])
        async with client(server.port, tls=stranger, server_name="triton.example") as made:
            assert "failed to connect" in await made.connect()


async def test_tls_without_http2(tmp_path: Path) -> None:
    """A server that has not agreed to HTTP/2 is not spoken to."""
    authority = Authority(tmp_path, "ca")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2"])
    async with (
        RawServer(serve, tls_of(authority.issue("127.0.0.1"))) as server,
        client(server.port, tls=context) as made,
    ):
        assert "it does not speak HTTP/2 over TLS" in await made.connect()


def tls_of(pair: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


async def test_closing() -> None:
    """What is under way, what waits and what comes later fails."""
    async with RawServer(never) as server:
        made = GrpcClient(options(server.port), ClientMemory())
        assert await made.connect() == ""
        under_way = asyncio.ensure_future(made.call(b"", None))
        await asyncio.sleep(0)
        await made.aclose()
        assert (await under_way)[:2] == (14, "the connection was closed")
        end = await made.call(b"", None)
        assert (end.code, end.details, end.sent) == (1, "the connection was closed", False)
        assert await made.connect() == "the connection was closed"
        await made.aclose()


async def test_closing_while_it_connects() -> None:
    """The attempt is given up."""

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()

    came = asyncio.Event()
    async with RawServer(say_nothing) as server:
        made = GrpcClient(options(server.port), ClientMemory())
        waiting = asyncio.ensure_future(made.call(b"", None))
        connecting = asyncio.ensure_future(made.connect())
        await came.wait()
        await made.aclose()
        assert (await waiting)[:2] == (1, "the connection was closed")
        await connecting
