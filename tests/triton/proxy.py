"""A TCP proxy before one endpoint that a test makes faulty: on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

_CHUNK: Final = 1 << 16
_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST."""


class Fault(enum.Enum):
    """What becomes of connections."""

    PASS = "pass"
    """They are forwarded."""
    REFUSE = "refuse"
    """New ones are reset at once, and those there were too."""
    BLACK_HOLE = "black_hole"
    """New ones are accepted and never answered; of those there are nothing is forwarded any more, either way,
    without any end: half-open, as when a host or a cable between is gone."""


class FaultProxy:
    """Forwards connections to a port, until told otherwise. Made by `fault_proxy`.

    Its methods may be called in any thread, and have taken effect when they return.

    Attributes:
        port: of 127.0.0.1, the same throughout.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._fault = Fault.PASS
        self._delay_s = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def address(self) -> str:
        """As clients name it."""
        return f"127.0.0.1:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections came, whatever became of them."""
        return self._accepted

    def set(self, fault: Fault, *, delay_s: float = 0.0) -> None:
        """Change what becomes of connections; what PASS forwards is late by `delay_s` each way.

        From BLACK_HOLE to PASS, what was held back goes on: the cable is in again.
        """
        self._run(self._change(fault, delay_s))

    def cut(self) -> None:
        """Reset every connection there is; new ones are treated as before."""
        self._run(self._cut())

    def open(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        self._run(self._listen())
        return self

    def close(self) -> None:
        """End everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _change(self, fault: Fault, delay_s: float) -> None:
        self._fault, self._delay_s = fault, delay_s
        if fault is Fault.BLACK_HOLE:
            self._flowing.clear()
        else:
            self._flowing.set()
        if fault is Fault.REFUSE:
            await self._cut()

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)

    async def _close(self) -> None:
        # What asyncio is accepting just now comes to `_accept` first: nobody else would close its socket.
        accepting = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        await asyncio.gather(*accepting, return_exceptions=True)
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: before 3.12 asyncio takes one that was cancelled for one that failed, and says so.
        self._accepted += 1
        self._writers.add(writer)
        self._own(self._loop.create_task(self._serve(reader, writer)))

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.REFUSE:
            _reset(writer)
            self._writers.discard(writer)
            return
        try:
            await self._flowing.wait()
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            self._writers.discard(writer)
            return
        self._writers.add(there[1])
        try:
            async with asyncio.TaskGroup() as group:
                self._own(group.create_task(self._forward(reader, there[1])))
                self._own(group.create_task(self._forward(there[0], writer)))
        finally:
            for end in (writer, there[1]):
                self._writers.discard(end)
                end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """Run a proxy until the context is left.

    Args:
        target: the port of 127.0.0.1 that it forwards to.
    """
    proxy = FaultProxy(target).open()
    try:
        yield proxy
    finally:
        proxy.close()
