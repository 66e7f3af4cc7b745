"""An HTTP/1.1 server that answers as a test says: wrong, slow, cut off. One request per connection."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        method: `GET`.
        target: path and query as sent.
        headers: by lower-case name.
    """

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer.

    Attributes:
        status: status code.
        body: what Content-Length says.
        headers: more headers.
        send: how many bytes of the body are sent; None for all.
        stall: the connection stays open after that, without another byte; else it is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    send: int | None = None
    stall: bool = False


@dataclass(slots=True)
class ScriptedServer:
    """A running server.

    Attributes:
        endpoint: `http://127.0.0.1:port`.
        answer: what the next requests get; a test may replace it at any time.
        asked: every request so far.
    """

    endpoint: str
    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)


@asynccontextmanager
async def scripted_http(answer: Callable[[Asked], Reply]) -> AsyncIterator[ScriptedServer]:
    """Serve until the context is left, which ends every connection."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _answer_one(server, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            connections.discard(task)
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    server = ScriptedServer(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", answer)
    try:
        yield server
    finally:
        listener.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _answer_one(
    server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    pairs = (line.split(":", 1) for line in head[1:] if line)
    asked = Asked(method, target, {name.lower(): value.strip() for name, value in pairs})
    server.asked.append(asked)
    reply = server.answer(asked)
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"Content-Length: {len(reply.body)}", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + reply.body[: reply.send])
    await writer.drain()
    if reply.stall:
        await reader.read()  # until the client goes, or the test is over
