"""Frames from NATS JetStream: a durable pull consumer that acknowledges what is durable here.

The stream may hand frames out in another order than they were published, and again after `ack_wait`: the
engine's positions sort that out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

import nats
import nats.errors
import nats.js.api

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from gateway.config.monitor_ingest import NatsSourceSettings
    from gateway.monitor.engine import Engine, Receipt

FETCH_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 10.0
MAX_PENDING: Final = 8192
"""Messages taken and not durable yet; the server hands out no more until some are."""

FRAME_ROOM: Final = 1 << 20
"""Free inbox for which one message is asked for: frames are at most about this large."""

_log: Final = logging.getLogger(__name__)


class NatsSource:
    """Reads frames until it is closed; connects again for as long as that takes.

    Attributes:
        connected: whether the server is there.
        failure: why not; empty where it is.
        pending: messages taken and not durable yet.
    """

    def __init__(self, engine: Engine, settings: NatsSourceSettings) -> None:
        self.connected = False
        self.failure = ""
        self._engine = engine
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._settled: deque[tuple[Client, Msg, Receipt]] = deque()
        self._waiting: deque[tuple[Client, Msg, Receipt]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def pending(self) -> int:
        """Messages that were taken and are not durable yet."""
        return len(self._settled) + len(self._waiting)

    async def start(self) -> None:
        """Begin to read, in a task of its own."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="monitor-nats")

    async def aclose(self) -> None:
        """Stop reading and let the connection go; messages not acknowledged are sent again later."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        end = self._engine.subscribe(self._listen)
        try:
            while True:
                try:
                    await self._read()
                except (nats.errors.Error, OSError) as exc:
                    self.connected, self.failure = False, str(exc) or type(exc).__name__
                    _log.warning("monitor.nats_unavailable", extra={"error": self.failure})
                pause_s = FIRST_PAUSE_S if self._client is not None else min(2 * pause_s, LAST_PAUSE_S)
                self._client = None
                await asyncio.sleep(pause_s)
        finally:
            end()
            self.connected = False

    def _listen(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._room.set()

    async def _read(self) -> None:
        client = await self._connect()
        try:
            stream = client.jetstream()
            subscriptions = [await self._subscribe(stream, i) for i in range(len(self._settings.subjects))]
            self._client, self.connected, self.failure = client, True, ""
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._acknowledge())
                for subscription in subscriptions:
                    tasks.create_task(self._fetch(client, subscription))
        except* (nats.errors.Error, OSError) as errors:
            raise errors.exceptions[0] from None
        finally:
            self.connected = False
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()

    async def _connect(self) -> Client:
        settings = self._settings
        tls = None
        if settings.ca_file is not None:
            tls = ssl.create_default_context(cafile=str(settings.ca_file))
        return await nats.connect(
            list(settings.servers),
            token=settings.token.read() if settings.token else None,
            tls=tls,
            name="model-gateway-monitor",
            allow_reconnect=False,
            error_cb=_quiet,
            connect_timeout=5,
        )

    async def _subscribe(self, stream: JetStreamContext, place: int) -> JetStreamContext.PullSubscription:
        settings = self._settings
        name = settings.durable if len(settings.subjects) == 1 else f"{settings.durable}-{place}"
        config = nats.js.api.ConsumerConfig(
            durable_name=name,
            ack_policy=nats.js.api.AckPolicy.EXPLICIT,
            ack_wait=settings.ack_wait,
            max_ack_pending=MAX_PENDING,
            deliver_policy=nats.js.api.DeliverPolicy.ALL,
        )
        return await stream.pull_subscribe(
            settings.subjects[place], durable=name, stream=settings.stream, config=config
        )

    async def _fetch(self, client: Client, subscription: JetStreamContext.PullSubscription) -> None:
        while True:
            self._room.clear()
            wanted = min(self._settings.batch, self._engine.room // FRAME_ROOM)
            if wanted <= 0:
                await self._room.wait()
                continue
            try:
                messages = await subscription.fetch(wanted, timeout=FETCH_S)
            except (TimeoutError, nats.errors.TimeoutError):
                if client.is_closed:
                    raise nats.errors.ConnectionClosedError from None
                continue
            for message in messages:
                await self._offer(client, message)

    async def _offer(self, client: Client, message: Msg) -> None:
        def done(receipt: Receipt) -> None:
            self._settled.append((client, message, receipt))

        while not self._engine.offer(message.data, done):
            # Shared by all subscriptions: whoever clears it looks at the inbox again.
            self._room.clear()
            if self._engine.room < len(message.data):
                await self._room.wait()

    async def _acknowledge(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._settled:
                self._waiting.append(self._settled.popleft())
            durable = self._engine.generation
            while self._waiting and self._waiting[0][2].generation <= durable:
                client, message, receipt = self._waiting.popleft()
                if client is not self._client:
                    # Of a connection that was lost: the server hands it out again.
                    continue
                if receipt.refused:
                    await message.term()
                else:
                    await message.ack()


async def _quiet(error: Exception) -> None:
    _log.debug("monitor.nats_error", extra={"error": str(error)})
