"""Frames into NATS JetStream, so that many gateways feed one fleet of monitors.

A message is a `LogFrame` as bytes, on the subject `PREFIX.MODEL.PRODUCER`: a monitor that answers for some
models subscribes to theirs. Frames that carry accounting alone have the model `_`, for every monitor. The
message id `PRODUCER-EPOCH-SEQUENCE` lets the server drop what is sent twice within its window; the monitor
tells the rest apart by the same three. A PubAck says that the server has it durably.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import nats
import nats.errors
import nats.js.api
import nats.js.errors

from gateway.predlog.lane_errors import FrameRefused, NoCredit
from gateway.predlog.seams import SinkUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from nats.aio.client import Client

    from gateway.predlog.rows import Frame

NO_MODEL: Final = "_"
_ID_HEADER: Final = "Nats-Msg-Id"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """Where the server is, and what is asked of it.

    Attributes:
        servers: `nats://host:4222` or `tls://host:4222`.
        stream: JetStream stream; made, with file storage, unless it is there.
        prefix: of the subjects.
        tls: for `tls://`; None: the system's authorities.
        token: sent at connecting; empty: none.
        max_pending: frames sent and not acknowledged; `send` waits beyond.
        publish_timeout_s: an acknowledgement is waited for so long.
        open_timeout_s: a connection is waited for so long.
        max_age_s: of a stream that is made here: messages are kept so long.
        duplicate_window_s: likewise: so long the server knows messages again.
    """

    servers: tuple[str, ...]
    stream: str = "PREDICTIONS"
    prefix: str = "predictions"
    tls: ssl.SSLContext | None = None
    token: str = field(default="", repr=False)
    max_pending: int = 64
    publish_timeout_s: float = 5.0
    open_timeout_s: float = 2.0
    max_age_s: float = 86_400.0
    duplicate_window_s: float = 120.0


def subject(prefix: str, model: str, producer: str) -> str:
    """Return the subject of a frame; names are percent-encoded as far as subjects need."""
    return f"{prefix}.{_token(model) or NO_MODEL}.{_token(producer)}"


def _token(name: str) -> str:
    encoded = re.sub(r"[^A-Za-z0-9_\-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), name)
    return f"%{ord(encoded):02X}" if encoded == NO_MODEL else encoded


class NatsSink:
    """A `FrameSink`. The client lives on an event loop in a thread of its own."""

    name: str = "nats"

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: _Session | None = None

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Connect, and make the stream if it is not there.

        Raises:
            SinkUnavailable: no server, or it has no JetStream.
        """
        loop = self._started()
        self._end_session()
        session = _Session(self._options, acknowledged)
        self._session = session
        try:
            self._run(loop, session.connect(), 2 * self._options.open_timeout_s)
        except Exception as error:
            self._end_session()
            raise SinkUnavailable(f"NATS at {', '.join(self._options.servers)}: {error!r}") from error

    def send(self, frame: Frame) -> None:
        """Publish a frame, as soon as fewer than `max_pending` wait for their acknowledgement.

        Raises:
            NoCredit: that took too long.
            SinkUnavailable: the connection is lost, or the server did not acknowledge.
            FrameRefused: it is longer than the server takes.
        """
        session, loop = self._session, self._loop
        if session is None or loop is None:
            raise SinkUnavailable("NATS is not connected")
        if session.failure:
            raise SinkUnavailable(session.failure)
        if len(frame.data) > session.max_payload:
            raise FrameRefused(f"{len(frame.data)} bytes; the server's max_payload is {session.max_payload}")
        self._run(loop, session.publish(frame), self._options.open_timeout_s)

    def close(self) -> None:
        """Wait for what is on its way, then disconnect."""
        session, loop = self._session, self._loop
        if session is not None and loop is not None:
            self._run(loop, session.settled(self._options.open_timeout_s), 2 * self._options.open_timeout_s)
        self._end_session()
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(self._options.open_timeout_s)
        self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="predlog-nats", daemon=True
            )
            self._thread.start()
        return self._loop

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._loop is not None:
            self._run(self._loop, session.disconnect(), 2 * self._options.open_timeout_s)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], timeout_s: float) -> None:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise SinkUnavailable("NATS does not answer") from None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Session:
    """One connection; all but the constructor and `failure` on the loop."""

    def __init__(self, options: NatsOptions, acknowledged: Callable[[int, int], None]) -> None:
        self.failure = ""
        self.max_payload = 0
        self._options = options
        self._acknowledged = acknowledged
        self._client: Client | None = None
        self._room = asyncio.Semaphore(options.max_pending)
        # In the order of sending: whether the server has it.
        self._pending: OrderedDict[int, tuple[int, int, bool]] = OrderedDict()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        options = self._options
        self._client = await nats.connect(
            list(options.servers),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.02,
            connect_timeout=max(1, round(options.open_timeout_s)),
            disconnected_cb=self._lost,
            error_cb=self._error,
            tls=options.tls,
            token=options.token or None,
        )
        self.max_payload = self._client.max_payload
        stream = self._client.jetstream(timeout=options.open_timeout_s)
        try:
            await stream.stream_info(options.stream)
        except nats.js.errors.NotFoundError:
            await stream.add_stream(
                name=options.stream,
                subjects=[f"{options.prefix}.>"],
                storage=nats.js.api.StorageType.FILE,
                max_age=options.max_age_s,
                duplicate_window=min(options.duplicate_window_s, options.max_age_s),
            )

    async def publish(self, frame: Frame) -> None:
        try:
            await asyncio.wait_for(self._room.acquire(), self._options.open_timeout_s / 2)
        except TimeoutError:
            raise NoCredit(f"{self._options.max_pending} frames wait for their acknowledgement") from None
        self._count += 1
        self._pending[self._count] = (frame.epoch, frame.sequence, False)
        task = asyncio.get_running_loop().create_task(self._deliver(self._count, frame))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, number: int, frame: Frame) -> None:
        assert self._client is not None
        # Accounting alone has no sequence of its own, and must not pass for the frame before it.
        ident = {_ID_HEADER: f"{frame.producer}-{frame.epoch}-{frame.sequence}"} if frame.rows else None
        try:
            await self._client.jetstream().publish(
                subject(self._options.prefix, frame.model, frame.producer),
                frame.data,
                timeout=self._options.publish_timeout_s,
                stream=self._options.stream,
                headers=ident,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the frame has to go again
            self.failure = self.failure or f"NATS did not acknowledge: {error!r}"
        else:
            self._done(number)
        finally:
            self._room.release()

    def _done(self, number: int) -> None:
        epoch, sequence, _ = self._pending[number]
        self._pending[number] = (epoch, sequence, True)
        durable: dict[int, int] = {}
        while self._pending:
            first, (epoch, sequence, done) = next(iter(self._pending.items()))
            if not done:
                break
            del self._pending[first]
            durable[epoch] = sequence
        for epoch, sequence in durable.items():
            self._acknowledged(epoch, sequence)

    async def settled(self, wait_s: float) -> None:
        """Wait until every publication has ended."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=wait_s)

    async def disconnect(self) -> None:
        self.failure = self.failure or "NATS is not connected"
        for task in tuple(self._tasks):
            task.cancel()
        if self._client is not None:
            await self._client.close()

    async def _lost(self) -> None:
        self.failure = self.failure or "the connection to NATS is lost"

    async def _error(self, error: Exception) -> None:
        self.failure = self.failure or f"NATS: {error!r}"
