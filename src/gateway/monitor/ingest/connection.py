"""One gateway's stream: frames into the engine, acks of what became of them back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway._proto import prediction_log_pb2 as pb
from gateway.monitor.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.monitor.engine import Engine, Receipt

ACK_PAUSE_S: Final = 0.02
"""Acks are at least so far apart; what happens between two is said by the later one."""

MAX_SEEN: Final = 64
"""Epochs that one stream is told about; a gateway replays those of its spool one after the other."""

MAX_REFUSALS: Final = 256
"""Refusals of one ack; those beyond are counted by the engine alone."""

CREDIT_FRAMES: Final = 1024

Who = tuple[str, int]


class Connection:
    """Reads frames, offers them to the engine, and acknowledges; lives on the event loop.

    What the engine's thread tells it is handed over by atomic assignments and a call to the loop.
    """

    def __init__(self, engine: Engine, who: Who, share: Callable[[], int]) -> None:
        """Describe a stream.

        Args:
            engine: takes the frames.
            who: producer and epoch that the stream was opened for; the producer may be empty.
            share: how many streams the inbox is shared by.
        """
        self._engine = engine
        self._who = who
        self._share = share
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._seen: dict[Who, None] = {who: None} if who[0] else {}
        self._positions: dict[Who, tuple[int, int]] = {}
        self._said: dict[Who, tuple[int, int]] = {}
        self._said_room = 0
        self._refused: deque[tuple[Who, int, str]] = deque(maxlen=MAX_REFUSALS)
        self._offered = 0
        self._settled = 0
        self._ended = False

    async def run(
        self, read: Callable[[], Awaitable[bytes | None]], write: Callable[[pb.LogAck], Awaitable[object]]
    ) -> None:
        """Greet, then take frames until there are no more; then make what was taken durable, and say so.

        Args:
            read: returns the next frame, None at the end.
            write: sends an ack.
        """
        greeting = await self._engine.call(self._known)
        self._positions = greeting
        end = self._engine.subscribe(self._listen)
        try:
            for ack in self._acks(everything=True):
                await write(ack)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._acknowledge(write))
                await self._read(read)
                await self._make_durable()
                self._ended = True
                self._changed.set()
        finally:
            end()

    def _known(self) -> dict[Who, tuple[int, int]]:
        producer, epoch = self._who
        if not producer:
            return {}
        positions = self._engine.positions(producer)
        newest = sorted(positions)[-MAX_SEEN:]
        for one in newest:
            self._seen[producer, one] = None
        return {(producer, one): positions.get(one, (0, 0)) for one in {*newest, epoch}}

    def _listen(self) -> None:
        """Look at the positions again, on the engine's thread."""
        self._positions = {who: self._engine.position(*who) for who in tuple(self._seen)}
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._room.set()

    def _done(self, receipt: Receipt) -> None:
        """Take note of what became of a frame, on the engine's thread."""
        who = (receipt.producer, receipt.epoch) if receipt.producer else self._who
        if receipt.refused:
            self._refused.append((who, receipt.sequence, receipt.refused))
        if who not in self._seen:
            while len(self._seen) >= MAX_SEEN:
                self._seen.pop(next(iter(self._seen)))
            self._seen[who] = None
        self._settled += 1

    async def _read(self, read: Callable[[], Awaitable[bytes | None]]) -> None:
        while (data := await read()) is not None:
            self._room.clear()
            while not self._engine.offer(data, self._done):
                if self._engine.closing:
                    return
                # gRPC stops a sender that is not read from.
                await self._room.wait()
                self._room.clear()
            self._offered += 1

    async def _make_durable(self) -> None:
        while self._settled < self._offered and not self._engine.closing:
            self._room.clear()
            if self._settled < self._offered:
                await self._room.wait()
        if self._offered:
            try:
                await self._engine.make_durable()
            except StoreError:
                return

    async def _acknowledge(self, write: Callable[[pb.LogAck], Awaitable[object]]) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            ended = self._ended
            for ack in self._acks(everything=False):
                await write(ack)
            if ended:
                return
            await asyncio.sleep(ACK_PAUSE_S)

    def _acks(self, *, everything: bool) -> list[pb.LogAck]:
        """Return an ack for each epoch of which there is news, or one where only credit has changed."""
        positions, credit = self._positions, self._engine.room // max(1, self._share())
        refused: dict[Who, list[pb.Refusal]] = {}
        while self._refused:
            who, sequence, reason = self._refused.popleft()
            refused.setdefault(who, []).append(pb.Refusal(sequence=sequence, reason=reason))
        news = {
            who for who, at in positions.items() if everything or self._said.get(who) != at
        } | refused.keys()
        if everything or (not news and credit != self._said_room):
            news.add(self._who if self._who[0] else next(iter(positions), self._who))
        self._said.update(positions)
        self._said_room = credit
        # The stream's own epoch comes last: a sender of an earlier one learns first what became of that.
        return [
            pb.LogAck(
                producer=who[0],
                epoch=who[1],
                applied_sequence=positions.get(who, (0, 0))[0],
                durable_sequence=positions.get(who, (0, 0))[1],
                credit_bytes=credit,
                credit_frames=CREDIT_FRAMES if credit else 0,
                refused=refused.get(who, ()),
            )
            for who in sorted(news, key=lambda who: (who == self._who, who))
        ]
