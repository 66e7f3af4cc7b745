"""A service of the tests' own: methods of every kind that answer, wait, fail and count."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from gateway.core.calls import RpcFailure, RpcService, RpcStatus

if TYPE_CHECKING:
    from gateway.core.calls import RpcCall, RpcStream

SERVICE = "test.Echo"
NAMED = RpcStatus(5, "not here: \u00e4\n100%", (("retry", "no"),))


class Methods:
    """Methods and what they saw.

    Attributes:
        calls: calls of `Hold`, unanswered, in order of arrival.
        seen: how often each method was begun.
        facts: what the last call of `Echo` or `Stream` carried beside its messages.
        arrived: set whenever a call reaches a method that waits.
        cancelled: set when such a method hears that its client has gone.
        cancellations: how many have heard it.
        sent: messages that `Flood` has handed over.
        read: messages that `Sip` has taken; it takes one for each `sips.release()`.
        let_end: set to let `Linger` end.
    """

    def __init__(self) -> None:
        self.calls: list[RpcCall] = []
        self.seen: dict[str, int] = {}
        self.facts: dict[str, Any] = {}
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cancellations = 0
        self.sent = 0
        self.read = 0
        self.sips = asyncio.Semaphore(0)
        self.progress = asyncio.Event()
        self.let_end = asyncio.Event()

    def count(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1

    def note(self, call: RpcCall | RpcStream) -> None:
        self.facts = {"metadata": dict(call.metadata), "deadline_s": call.deadline_s, "peer": call.peer}

    def echo(self, call: RpcCall) -> None:
        self.count("Echo")
        self.note(call)
        self.facts["arrived_s"] = call.arrived_s
        call.reply(bytes(call.message), (("trailer", "value"),))

    def trailers(self, call: RpcCall) -> None:
        """Answer with trailers that the message lists as JSON pairs."""
        call.reply(b"", [(name, value) for name, value in json.loads(bytes(call.message))])

    def size(self, call: RpcCall) -> None:
        """Answer as many bytes as the message says."""
        call.reply(bytes(int(bytes(call.message))))

    def hold(self, call: RpcCall) -> None:
        self.count("Hold")
        self.calls.append(call)
        call.on_cancel(self.broken_hook)
        call.on_cancel(self.gone)
        self.arrived.set()

    def forget(self, call: RpcCall) -> None:
        """Never answer, and keep nothing to answer with."""
        self.count("Forget")

    def broken_hook(self) -> None:
        raise RuntimeError("hook")

    def gone(self) -> None:
        self.cancellations += 1
        self.cancelled.set()

    def fail(self, call: RpcCall) -> None:
        """Fail with the message as text, and the code that metadata may name."""
        code = int(call.metadata.get("code", NAMED.code))
        call.fail(RpcStatus(code, bytes(call.message).decode() or NAMED.message, NAMED.metadata))

    def twice(self, call: RpcCall) -> None:
        call.reply(b"first")
        call.fail(NAMED)
        call.reply(b"second")

    def raises(self, call: RpcCall) -> None:
        raise RuntimeError("secret")

    async def unary(self, call: RpcCall) -> bytes:
        self.count("Unary")
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
            self.gone()

    async def stream(self, stream: RpcStream) -> None:
        self.count("Stream")
        self.note(stream)
        async for message in stream:
            await stream.send(b"re:" + bytes(message))
        await stream.send(b"end")

    async def stream_fails(self, stream: RpcStream) -> None:
        await stream.send(b"one")
        raise RpcFailure(NAMED)

    async def stream_raises(self, stream: RpcStream) -> None:
        await stream.send(b"one")
        raise RuntimeError("secret")

    async def stream_waits(self, stream: RpcStream) -> None:
        await self.wait()

    async def flood(self, stream: RpcStream) -> None:
        """Send messages of 64 KiB until nobody wants more."""
        self.arrived.set()
        try:
            while True:
                await stream.send(bytes(1 << 16))
                self.sent += 1
                self.progress.set()
        finally:
            self.gone()

    async def sip(self, stream: RpcStream) -> None:
        """Take a message whenever the test says so, and answer how many there were."""
        self.arrived.set()
        await self.sips.acquire()
        async for _ in stream:
            self.read += 1
            self.progress.set()
            await self.sips.acquire()
        await stream.send(str(self.read).encode())

    async def linger(self, stream: RpcStream) -> None:
        """Send as `Flood` does, and be slow to end when nobody wants more."""
        try:
            await self.flood(stream)
        finally:
            await self.let_end.wait()

    async def give_up_reading(self, stream: RpcStream) -> None:
        """Begin to read a message when the test says so, stop waiting for it, and answer; end when told."""
        self.arrived.set()
        await self.sips.acquire()
        reading = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
        reading.cancel()
        await stream.send(b"gave up")
        await self.sips.acquire()

    def service(self) -> RpcService:
        return RpcService(
            SERVICE,
            begin={
                "Echo": self.echo,
                "Trailers": self.trailers,
                "Size": self.size,
                "Hold": self.hold,
                "Forget": self.forget,
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
            stream={
                "Stream": self.stream,
                "StreamFail": self.stream_fails,
                "StreamRaise": self.stream_raises,
                "StreamWait": self.stream_waits,
                "Flood": self.flood,
                "Sip": self.sip,
                "Linger": self.linger,
                "GiveUpReading": self.give_up_reading,
            },
            server_stream={"ServerStream": self.stream, "ServerFlood": self.flood},
        )
