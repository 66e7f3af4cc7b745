"""The stream to a monitor, over a real gRPC server."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from gateway.predlog.lane_errors import FrameRefused, NoCredit
from gateway.predlog.rows import Frame
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.stream.credits import Credits
from gateway.predlog.stream.options import StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.transport.grpc_native_duplex import open_duplex
from tests.predlog.delivery.frames import EPOCH, frame
from tests.predlog.delivery.monitor_server import MonitorServer, unix_address
from tests.predlog.sink_contract import Acks, SinkContract, send, send_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def options(address: str, **changes: float) -> StreamOptions:
    return StreamOptions(address=address, producer="gw", epoch=EPOCH, **changes)  # type: ignore[arg-type]


class StreamRig:
    def __init__(self, directory: Path) -> None:
        self.server = MonitorServer(unix_address(directory))
        self.server.start()

    def sink(self) -> StreamSink:
        return StreamSink(options(self.server.address, open_timeout_s=3.0), open_duplex)

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def received(self) -> dict[tuple[int, int], int]:
        return dict(self.server.rows)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StreamRig]:
    made = StreamRig(tmp_path)
    yield made
    made.stop()


class TestContract(SinkContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[StreamRig]:
        made = StreamRig(tmp_path)
        yield made
        made.stop()


def test_the_monitor_is_told_who_speaks(rig: StreamRig) -> None:
    """Producer and epoch come as metadata, so that the greeting can say how far the monitor is."""
    with closing(rig.sink()) as sink:
        sink.open(Acks())
    assert rig.server.metadata["gateway-producer"] == "gw"
    assert rig.server.metadata["gateway-epoch"] == str(EPOCH)


def test_no_credit_is_no_failure(rig: StreamRig) -> None:
    """Without credit a frame is offered again over the same connection."""
    rig.server.credit_frames = 0
    sink = StreamSink(options(rig.server.address, open_timeout_s=3.0, credit_wait_s=0.01), open_duplex)
    with closing(sink):
        sink.open(Acks())
        for _ in range(3):
            with pytest.raises(NoCredit):
                sink.send(frame(1))
    assert rig.server.copies == 0


def test_a_monitor_that_stands_still_is_lost(rig: StreamRig) -> None:
    """One that has a frame and says nothing for long enough is taken for dead."""
    rig.server.credit_frames = 1
    rig.server.mute = True
    sink = StreamSink(
        options(rig.server.address, open_timeout_s=3.0, credit_wait_s=0.01, silence_s=0.02), open_duplex
    )
    with closing(sink):
        sink.open(Acks())
        with pytest.raises(SinkUnavailable, match="said nothing"):
            send_all(sink, range(1, 1_000))


def test_no_greeting_is_nobody(rig: StreamRig) -> None:
    """A server that accepts and says nothing is no monitor."""
    rig.server.silent = True
    sink = StreamSink(options(rig.server.address, open_timeout_s=0.2), open_duplex)
    with closing(sink), pytest.raises(SinkUnavailable, match="greeting"):
        sink.open(Acks())


def test_a_monitor_that_cannot_follow_is_heard(rig: StreamRig) -> None:
    """The ratio that it can follow is passed on, once."""
    hints: list[float] = []
    rig.server.sample_hint = 0.25
    acks, sink = (
        Acks(),
        StreamSink(options(rig.server.address, open_timeout_s=3.0), open_duplex, hints.append),
    )
    with closing(sink):
        sink.open(acks)
        send_all(sink, range(1, 4))
        acks.wait_for(EPOCH, 3)
    assert hints == [0.25]


def test_a_frame_no_monitor_takes_is_refused(rig: StreamRig) -> None:
    """What is longer than a gRPC message may be is refused before it breaks the stream."""
    with closing(rig.sink()) as sink:
        sink.open(Acks())
        with pytest.raises(FrameRefused):
            sink.send(Frame(producer="gw", epoch=EPOCH, sequence=1, rows=1, data=bytes(5 << 20)))
        acks = Acks()
        sink.open(acks)
        send(sink, frame(2))
        acks.wait_for(EPOCH, 2)


def test_credit_counts_what_is_on_its_way() -> None:
    """What the monitor had not applied when it gave credit comes off it."""
    credit = Credits()
    credit.acked(EPOCH, 0, 100, 10)
    credit.sent(EPOCH, 1, 40)
    credit.sent(EPOCH, 2, 40)
    assert not credit.allows(30)
    credit.acked(EPOCH, 1, 100, 10)
    assert credit.bytes_left == 60
    assert credit.frames_left == 9
    assert credit.allows(60)
    assert not credit.allows(61)


def test_a_frame_larger_than_all_credit_goes_alone() -> None:
    """It would be stuck for ever otherwise."""
    credit = Credits()
    credit.acked(EPOCH, 0, 10, 10)
    assert credit.allows(1_000)
    credit.sent(EPOCH, 1, 1_000)
    assert not credit.allows(1)
    credit.acked(EPOCH, 1, 10, 10)
    assert credit.allows(1_000)
