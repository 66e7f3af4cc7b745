"""A lane and the monitor's own ingest, which goes away under it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from functools import partial
from pathlib import Path

from gateway.config.monitor_ingest import EngineSettings, IngestSettings, PanesSettings
from gateway.monitor.engine import Engine
from gateway.monitor.ingest.server import IngestServer
from gateway.monitor.panes.part import Panes
from gateway.monitor.values import StreamKey
from gateway.predlog.accounts import Accounts
from gateway.predlog.lane import Lane, LaneOptions
from gateway.predlog.rows import Frame
from gateway.predlog.stream.options import StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.transport.grpc_native_duplex import open_duplex
from tests.monitor.panes.making import START_S, Profiles, frame, profile, traffic

KEY = StreamKey("fraud", 3, "d" * 8)


def rows_of(panes: Panes) -> float:
    return panes.window(KEY, START_S - 600, START_S + 600).rows


def wait_for_connection(lane: Lane, number: int) -> None:
    """Wait until the sink was opened so often: it learns of a lost stream when the next frame is sent."""
    never = threading.Event()
    while lane.status().opens < number:
        never.wait(0.005)


async def test_every_row_is_counted_once_though_the_monitor_comes_and_goes() -> None:
    """Rows put = rows in the panes, after three restarts of the monitor, with little memory and a spool."""
    with tempfile.TemporaryDirectory(prefix="lane") as name:
        directory = Path(name)
        options = StreamOptions(address=f"unix:{directory}/s", producer="one", epoch=1, close_s=10.0)
        lane = Lane(
            StreamSink(options, open_duplex),
            LaneOptions(
                epoch=1,
                memory_bytes=8_000,
                spool_directory=directory / "spool",
                backoff_s=0.01,
                max_backoff_s=0.05,
            ),
            Accounts().lane("stream"),
        )
        lane.start()
        rows = 0.0
        for life in range(4):
            panes = Panes(Profiles({"fraud": profile(2, embedding=False)}), PanesSettings())
            engine = Engine([panes], directory / "m.db", EngineSettings(), wall=lambda: START_S + 1.0)
            server = IngestServer(engine, IngestSettings(socket=directory / "s"))
            await asyncio.to_thread(engine.start)
            await server.start()
            for i in range(life * 25, life * 25 + 25):
                data = frame(traffic(10, i, signals=2), i + 1)
                lane.put(Frame(producer="one", epoch=1, sequence=i + 1, rows=10, data=data))
            await asyncio.to_thread(wait_for_connection, lane, life + 1)
            if life == 3:
                await asyncio.to_thread(lane.end, 20.0)
                await asyncio.to_thread(lane.join)
                rows = await engine.call(partial(rows_of, panes))
            await server.aclose()
            await engine.aclose()
        status = lane.status()
        dropped = sum(status.dropped.values())
        assert rows == 1_000 - dropped
        assert status.put == 1_000 == status.applied + dropped
