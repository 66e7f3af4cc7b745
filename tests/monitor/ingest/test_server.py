"""The log stream: a real gateway's sink, credits, acks, refusals, labels and ends of either side."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway._proto import prediction_log_pb2 as pb
from gateway.config.monitor_ingest import EngineSettings, IngestSettings, PanesSettings
from gateway.core.errors import InvalidRequest
from gateway.monitor.engine import Engine
from gateway.monitor.ingest.server import IngestServer
from gateway.monitor.panes.part import Panes
from gateway.monitor.values import StreamKey
from gateway.predlog.rows import Frame
from gateway.predlog.stream.options import StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.transport.grpc_native_duplex import open_duplex
from tests.monitor.panes.making import START_S, Profiles, frame, profile, traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    Call = grpc.aio.StreamStreamCall[bytes, pb.LogAck]
    Method = grpc.aio.StreamStreamMultiCallable[bytes, pb.LogAck]

KEY = StreamKey("fraud", 3, "d" * 8)
STREAM = "/model_gateway.prediction_log.v1.PredictionLog/Stream"
POST = "/model_gateway.prediction_log.v1.Labels/Post"


class Served:
    """A monitor's ingest over a directory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.socket = directory / "log.sock"
        self.panes = Panes(Profiles({"fraud": profile(2, embedding=False)}), PanesSettings())
        self.engine = Engine(
            [self.panes],
            directory / "monitor.db",
            EngineSettings.model_validate({"checkpoint": "10m", "inbox": settings.pop("inbox", 8 << 20)}),
            wall=lambda: START_S + 1.0,
        )
        self.server = IngestServer(
            self.engine, IngestSettings(socket=self.socket, listen="127.0.0.1:0", **settings), self._post
        )

    async def _post(self, batch: pb.LabelBatch) -> pb.LabelReply:
        if not batch.model:
            raise InvalidRequest("no model")
        return pb.LabelReply(accepted=len(batch.labels))

    async def start(self) -> None:
        """Begin."""
        await asyncio.to_thread(self.engine.start)
        await self.server.start()

    async def aclose(self) -> None:
        """End, in the order that a monitor ends."""
        await self.server.aclose()
        await self.engine.aclose()

    async def rows(self) -> float:
        """Return the rows applied."""
        return await self.engine.call(lambda: self.panes.window(KEY, START_S - 600, START_S + 600).rows)

    def channel(self) -> grpc.aio.Channel:
        """Return a channel to it."""
        return grpc.aio.insecure_channel(f"unix:{self.socket}")


@pytest.fixture
async def directory() -> AsyncIterator[Path]:
    """A directory whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mon") as name:
        yield Path(name)


@pytest.fixture
async def served(directory: Path) -> AsyncIterator[Served]:
    """A monitor that takes frames."""
    made = Served(directory)
    await made.start()
    yield made
    await made.aclose()


def stream(channel: grpc.aio.Channel, producer: str = "one", epoch: int = 1) -> Call:
    """Open a log stream; raw frames in, acks out."""
    method: Method = channel.stream_stream(STREAM, None, pb.LogAck.FromString)
    return method(metadata=(("gateway-producer", producer), ("gateway-epoch", str(epoch))))


async def told(call: Call) -> pb.LogAck:
    """Return the next ack."""
    ack = await call.read()
    assert isinstance(ack, pb.LogAck)
    return ack


async def rest(call: Call) -> list[pb.LogAck]:
    """Return the acks up to the stream's end."""
    acks = []
    while isinstance(ack := await call.read(), pb.LogAck):
        acks.append(ack)
    return acks


def frames(count: int, rows: int = 10) -> Iterable[bytes]:
    """Yield a producer's frames, from sequence 1."""
    for i in range(count):
        yield frame(traffic(rows, i, signals=2), i + 1)


async def test_a_gateways_own_sink_delivers(served: Served) -> None:
    """What the sink sends is applied, and acknowledged as durable when it closes."""
    acknowledged: list[tuple[int, int]] = []
    sink = StreamSink(
        StreamOptions(address=f"unix:{served.socket}", producer="one", epoch=1, close_s=10.0), open_duplex
    )

    def send() -> None:
        sink.open(lambda epoch, sequence: acknowledged.append((epoch, sequence)))
        for i, data in enumerate(frames(20)):
            sink.send(Frame(producer="one", epoch=1, sequence=i + 1, rows=10, data=data))
        sink.close()

    await asyncio.to_thread(send)
    assert await served.rows() == 200
    assert acknowledged[-1] == (1, 20)


async def test_the_greeting_says_how_far_it_is(served: Served) -> None:
    """A producer that comes back is told what is durable of each of its epochs, and does not count twice."""
    async with served.channel() as channel:
        call = stream(channel)
        first = await told(call)
        assert (first.producer, first.epoch, first.applied_sequence, first.durable_sequence) == (
            "one",
            1,
            0,
            0,
        )
        assert first.credit_bytes > 1 << 20
        assert first.credit_frames > 0
        for data in frames(5):
            await call.write(data)
        await call.done_writing()
        acks = await rest(call)
        assert acks[-1].durable_sequence == 5
        again = stream(channel, epoch=2)
        greeting = [await told(again), await told(again)]
        assert [(ack.epoch, ack.durable_sequence) for ack in greeting] == [(1, 5), (2, 0)]
        for data in frames(7):
            await again.write(data)
        await again.done_writing()
        assert (await rest(again))[-1].applied_sequence == 7
    assert await served.rows() == 70


async def test_a_stream_without_metadata(served: Served) -> None:
    """Any client may send frames; it is greeted with credit, and acknowledged by what frames say."""
    async with served.channel() as channel:
        method: Method = channel.stream_stream(STREAM, None, pb.LogAck.FromString)
        call = method()
        assert (await told(call)).credit_bytes > 0
        for data in frames(3):
            await call.write(data)
        await call.done_writing()
        last = (await rest(call))[-1]
        assert (last.producer, last.epoch, last.durable_sequence) == ("one", 1, 3)


async def test_refusals_are_told(served: Served) -> None:
    """A frame that cannot be used is refused by its sequence; the stream goes on."""
    broken = pb.LogFrame.FromString(next(iter(frames(1))))
    broken.crc32 ^= 1
    async with served.channel() as channel:
        call = stream(channel)
        await call.read()
        await call.write(broken.SerializeToString())
        await call.write(b"\xff\xff\xff")
        for data in list(frames(3))[1:]:
            await call.write(data)
        await call.done_writing()
        acks = await rest(call)
    refused = [(r.sequence, r.reason) for ack in acks for r in ack.refused]
    assert refused == [(1, "crc"), (0, "malformed")]
    assert acks[-1].durable_sequence == 3
    assert await served.rows() == 20


async def test_a_sender_beyond_its_credit_is_held_back(directory: Path) -> None:
    """Frames beyond the inbox wait in the sender; all of them arrive once."""
    made = Served(directory, inbox=1 << 20)
    await made.start()
    async with made.channel() as channel:
        call = stream(channel)
        await call.read()
        sent = 0
        for data in frames(60, rows=2000):
            await call.write(data)
            sent += len(data)
        assert sent > 4 << 20
        await call.done_writing()
        acks = await rest(call)
    assert acks[-1].applied_sequence == 60
    assert all(ack.credit_bytes <= 1 << 20 for ack in acks)
    assert await made.rows() == 120_000
    await made.aclose()


async def test_the_socket_is_its_owners_and_replaced(directory: Path) -> None:
    """The socket has mode 0600, and one left by a crash is no obstacle."""
    for _ in range(2):
        made = Served(directory)
        await made.start()
        assert stat.S_IMODE(made.socket.stat().st_mode) == 0o600
        await made.aclose()
        made.socket.unlink(missing_ok=True)
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(made.socket))
        left.close()


async def test_streams_are_bounded(directory: Path) -> None:
    """One more gateway than allowed is refused, not queued."""
    made = Served(directory, max_streams=1)
    await made.start()
    async with made.channel() as channel:
        call = stream(channel)
        await call.read()
        second = stream(channel, "two")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
    await made.aclose()


async def test_a_gateway_that_vanishes_leaves_nothing_behind(served: Served) -> None:
    """What was read of a cancelled stream is applied; the next one is served."""
    async with served.channel() as channel:
        call = stream(channel)
        await call.read()
        for data in frames(3):
            await call.write(data)
        while (await told(call)).applied_sequence < 3:
            pass
        call.cancel()
    async with served.channel() as channel:
        call = stream(channel)
        assert (await told(call)).applied_sequence == 3
        call.cancel()
    assert await served.rows() == 30


async def test_closing_ends_streams_and_keeps_rows(directory: Path) -> None:
    """A monitor that ends lets go of its streams, and has what was taken when it comes back."""
    made = Served(directory)
    await made.start()
    async with made.channel() as channel:
        call = stream(channel)
        await call.read()
        for data in frames(4):
            await call.write(data)
        while (await told(call)).applied_sequence < 4:
            pass
        await made.aclose()
        with pytest.raises(grpc.aio.AioRpcError):
            await rest(call)
    again = Served(directory)
    await again.start()
    assert await again.rows() == 40
    async with again.channel() as channel:
        call = stream(channel)
        assert (await told(call)).durable_sequence == 4
        call.cancel()
    await again.aclose()


async def test_labels_by_the_same_port(served: Served) -> None:
    """Labels reach the callable; what it refuses is the client's fault."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
        post = channel.unary_unary(POST, pb.LabelBatch.SerializeToString, pb.LabelReply.FromString)
        reply = await post(pb.LabelBatch(model="fraud", labels=[pb.Label(id="a", number=1.0)]))
        assert reply.accepted == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await post(pb.LabelBatch())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
