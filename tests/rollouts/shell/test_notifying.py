"""Webhooks: in order, again after a failure, counted where nothing helps; none delays another."""

from __future__ import annotations

import asyncio
import json

from gateway.rollouts.notifying import MAX_WAITING, PAUSES_S, Webhooks
from tests.rollouts.shell.http_peer import peer
from tests.rollouts.shell.waiting import until


class Pauses:
    """Ends them at once, or when told."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()
        self.over.set()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.over.wait()


async def delivered(webhooks: Webhooks, count: int) -> None:
    await until(lambda: webhooks.sent + webhooks.dropped >= count, 0.001)


async def test_notices_come_in_order_and_whole() -> None:
    with peer() as server:
        async with Webhooks([server.url]) as webhooks:
            for n in range(20):
                webhooks.offer({"rollout": "line", "n": n})
            await delivered(webhooks, 20)
        assert [json.loads(body)["n"] for body in server.bodies] == list(range(20))
        assert (webhooks.sent, webhooks.dropped) == (20, 0)


async def test_a_notice_that_fails_is_sent_again_before_the_next() -> None:
    pauses = Pauses()
    with peer() as server:
        answers = iter([(500, b""), (503, b"")])
        server.reply = lambda: next(answers, (200, b""))
        async with Webhooks([server.url], pauses) as webhooks:
            webhooks.offer({"n": 1})
            webhooks.offer({"n": 2})
            await delivered(webhooks, 2)
        assert [json.loads(body)["n"] for body in server.bodies] == [1, 1, 1, 2]
        assert pauses.asked == list(PAUSES_S[:2])


async def test_a_notice_that_nobody_takes_is_counted_and_the_next_one_tried() -> None:
    with peer() as server:
        server.reply = lambda: (500, b"") if len(server.bodies) <= len(PAUSES_S) + 1 else (200, b"")
        async with Webhooks([server.url], Pauses()) as webhooks:
            webhooks.offer({"n": 1})
            webhooks.offer({"n": 2})
            await delivered(webhooks, 2)
        assert (webhooks.sent, webhooks.dropped) == (1, 1)
        assert json.loads(server.bodies[-1])["n"] == 2


async def test_a_full_queue_drops_its_oldest_and_no_other_webhook_waits() -> None:
    pauses = Pauses()
    pauses.over.clear()
    with peer() as broken, peer() as well:
        broken.reply = lambda: (500, b"")
        async with Webhooks([broken.url, well.url], pauses) as webhooks:
            webhooks.offer({"n": -1})
            await until(lambda: bool(pauses.asked), 0.001)
            for n in range(MAX_WAITING):
                webhooks.offer({"n": n})
            await delivered(webhooks, MAX_WAITING + 1)
            assert webhooks.dropped == 0
            webhooks.offer({"n": MAX_WAITING})
            assert webhooks.dropped == 1
            broken.reply = lambda: (200, b"")
            pauses.over.set()
            await delivered(webhooks, 2 * (MAX_WAITING + 2))
        got = [json.loads(body)["n"] for body in broken.bodies]
        assert got == [-1, -1, *range(1, MAX_WAITING + 1)]
        assert len(well.bodies) == MAX_WAITING + 2


async def test_an_answer_that_is_no_http_does_not_end_the_webhook() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    async with (
        server,
        Webhooks([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], Pauses()) as webhooks,
    ):
        webhooks.offer({"n": 1})
        webhooks.offer({"n": 2})
        await delivered(webhooks, 2)
        assert webhooks.dropped == 2
