"""Frames from a real NATS server: applied once, acknowledged when durable, found again after either's end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import nats
import pytest

from gateway.config.monitor_ingest import EngineSettings, NatsSourceSettings, PanesSettings
from gateway.monitor.engine import Engine
from gateway.monitor.ingest.nats_source import NatsSource
from gateway.monitor.panes.part import Panes
from gateway.monitor.values import StreamKey
from tests.monitor.panes.making import START_S, Profiles, frame, profile, traffic
from tests.predlog.delivery.test_nats import SERVER, NatsRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = StreamKey("fraud", 3, "d" * 8)
PATIENCE_S = 20.0

pytestmark = pytest.mark.skipif(SERVER is None, reason="no nats-server on PATH")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[NatsRig]:
    """A server of its own."""
    made = NatsRig(tmp_path)
    yield made
    made.stop()


class Fed:
    """A monitor that reads from a server."""

    def __init__(self, path: Path, rig: NatsRig, **settings: Any) -> None:
        self.panes = Panes(Profiles({"fraud": profile(2, embedding=False)}), PanesSettings())
        self.engine = Engine(
            [self.panes],
            path / "monitor.db",
            EngineSettings.model_validate({"checkpoint": "10m"}),
            wall=lambda: START_S + 1.0,
        )
        server = f"nats://127.0.0.1:{rig.port}"
        self.source = NatsSource(
            self.engine, NatsSourceSettings.model_validate({"servers": (server,), **settings})
        )

    async def start(self) -> None:
        """Begin."""
        await asyncio.to_thread(self.engine.start)
        await self.source.start()

    async def aclose(self) -> None:
        """End."""
        await self.source.aclose()
        await self.engine.aclose()

    async def until_rows(self, wanted: float) -> None:
        """Wait until so many rows are applied."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note() -> None:
            loop.call_soon_threadsafe(changed.set)

        end = self.engine.subscribe(note)
        async with asyncio.timeout(PATIENCE_S):
            while await self.rows() < wanted:
                await changed.wait()
                changed.clear()
        end()

    async def rows(self) -> float:
        """Return the rows applied."""
        return await self.engine.call(lambda: self.panes.window(KEY, START_S - 600, START_S + 600).rows)


async def publish(rig: NatsRig, sequences: list[int], subject: str = "predictions.fraud.one") -> None:
    """Publish frames as a gateway does, by sequence; without message ids, so that the server keeps all."""
    client = await nats.connect(f"nats://127.0.0.1:{rig.port}")
    stream = client.jetstream()
    await stream.add_stream(name="PREDICTIONS", subjects=["predictions.>"])
    for sequence in sequences:
        await stream.publish(subject, frame(traffic(10, sequence, signals=2), sequence))
    await client.close()


async def unacknowledged(rig: NatsRig, durable: str = "monitor") -> int:
    """Return how many messages the server would hand out (again)."""
    client = await nats.connect(f"nats://127.0.0.1:{rig.port}")
    info = await client.jetstream().consumer_info("PREDICTIONS", durable)
    await client.close()
    return int((info.num_ack_pending or 0) + (info.num_pending or 0))


async def until_acknowledged(rig: NatsRig, fed: Fed) -> None:
    """Make checkpoints until the server has every acknowledgement."""
    async with asyncio.timeout(PATIENCE_S):
        while await unacknowledged(rig):
            await fed.engine.make_durable()
            await asyncio.sleep(0.02)  # the server tells nobody


async def test_reordered_and_repeated_frames_count_once(rig: NatsRig, tmp_path: Path) -> None:
    """Whatever the order and however often: each frame once; acknowledged after the checkpoint alone."""
    await publish(rig, [3, 1, 2, 2, 5, 4, 1, 3])
    fed = Fed(tmp_path, rig)
    await fed.start()
    await fed.until_rows(50)
    assert await unacknowledged(rig) == 8
    await until_acknowledged(rig, fed)
    assert fed.source.connected
    assert await fed.rows() == 50
    await fed.aclose()


async def test_a_monitor_that_comes_back_misses_nothing(rig: NatsRig, tmp_path: Path) -> None:
    """What was not durable is handed out again, and what was is not counted again."""
    await publish(rig, [1, 2, 3])
    fed = Fed(tmp_path, rig, ack_wait="1s")
    await fed.start()
    await fed.until_rows(30)
    await fed.source.aclose()
    await fed.engine.aclose()
    await publish(rig, [4, 5])
    again = Fed(tmp_path, rig, ack_wait="1s")
    await again.start()
    await again.until_rows(50)
    await until_acknowledged(rig, again)
    assert await again.rows() == 50
    await again.aclose()


async def test_a_server_that_goes_and_comes_back(rig: NatsRig, tmp_path: Path) -> None:
    """The source says that the server is away, and reads on when it is there again."""
    await publish(rig, [1])
    fed = Fed(tmp_path, rig)
    await fed.start()
    await fed.until_rows(10)
    await asyncio.to_thread(rig.stop)
    async with asyncio.timeout(PATIENCE_S):
        while not fed.source.failure:  # noqa: ASYNC110 - as a page would look
            await asyncio.sleep(0.02)
    await asyncio.to_thread(rig.start)
    await publish(rig, [2])
    await fed.until_rows(20)
    await fed.aclose()


async def test_a_fleet_divides_the_subjects(rig: NatsRig, tmp_path: Path) -> None:
    """Each monitor reads the subjects it is told to."""
    await publish(rig, [1, 2])
    await publish(rig, [3], "predictions.other.one")
    await publish(rig, [4], "predictions._.one")
    fed = Fed(tmp_path, rig, subjects=("predictions.fraud.>", "predictions._.>"), durable="shard")
    await fed.start()
    await fed.until_rows(30)
    assert await unacknowledged(rig, "shard-0") + await unacknowledged(rig, "shard-1") == 3
    await fed.aclose()
