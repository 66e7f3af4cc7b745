"""What every sink of the prediction log does: subclass `SinkContract` and give it a `rig`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest

from gateway.predlog.lane_errors import NoCredit
from gateway.predlog.seams import SinkUnavailable
from tests.predlog.delivery.frames import EPOCH, accounting, frame

if TYPE_CHECKING:
    from gateway.predlog.rows import Frame
    from gateway.predlog.seams import FrameSink

PATIENCE_S = 20.0


class SinkRig(Protocol):
    """A sink and what it delivers to."""

    def sink(self) -> FrameSink:
        """Return a new sink."""

    def start(self) -> None:
        """Let the other side answer, with what it had before."""

    def stop(self) -> None:
        """Let the other side be away."""

    def received(self) -> dict[tuple[int, int], int]:
        """Return the rows that the other side has durably, by epoch and sequence, each counted once."""


class Acks:
    """Takes acknowledgements, and waits for them."""

    def __init__(self) -> None:
        self.highest: dict[int, int] = {}
        self._changed = threading.Condition()

    def __call__(self, epoch: int, sequence: int) -> None:
        with self._changed:
            self.highest[epoch] = max(sequence, self.highest.get(epoch, 0))
            self._changed.notify_all()

    def wait_for(self, epoch: int, sequence: int) -> None:
        with self._changed:
            reached = self._changed.wait_for(lambda: self.highest.get(epoch, 0) >= sequence, PATIENCE_S)
        assert reached, f"{self.highest}, never {sequence}"


def send(sink: FrameSink, given: Frame) -> None:
    """Send as a lane does."""
    while True:
        try:
            sink.send(given)
        except NoCredit:
            continue
        return


def send_all(sink: FrameSink, sequences: range) -> None:
    """Send frames of two rows."""
    for sequence in sequences:
        send(sink, frame(sequence))


class SinkContract(ABC):
    """Tests that every sink passes."""

    @pytest.fixture
    @abstractmethod
    def rig(self) -> SinkRig:
        """Return what to test, started."""

    def test_what_is_acknowledged_is_there(self, rig: SinkRig) -> None:
        """All frames are there when the last of them is acknowledged, at the latest after close."""
        acks, sink = Acks(), rig.sink()
        sink.open(acks)
        for sequence in range(1, 6):
            send(sink, frame(sequence, rows=sequence))
        sink.close()
        acks.wait_for(EPOCH, 5)
        assert rig.received() == {(EPOCH, s): s for s in range(1, 6)}
        assert acks.highest == {EPOCH: 5}

    def test_nothing_is_acknowledged_that_was_not_sent(self, rig: SinkRig) -> None:
        """Accounting alone has the sequence of the frame before, and acknowledges no other."""
        acks, sink = Acks(), rig.sink()
        sink.open(acks)
        send(sink, frame(1))
        send(sink, accounting(1))
        sink.close()
        acks.wait_for(EPOCH, 1)
        assert acks.highest == {EPOCH: 1}
        assert rig.received() == {(EPOCH, 1): 2}

    def test_nobody_there_is_unavailable(self, rig: SinkRig) -> None:
        """Opening says so, and the sink can be closed then, or opened when somebody is there."""
        rig.stop()
        acks, sink = Acks(), rig.sink()
        with closing(sink):
            with pytest.raises(SinkUnavailable):
                sink.open(acks)
            rig.start()
            sink.open(acks)
            send(sink, frame(1))
        acks.wait_for(EPOCH, 1)

    def test_frames_go_again_over_a_new_connection(self, rig: SinkRig) -> None:
        """After the other side was away, what was not acknowledged is sent once more and is there once."""
        acks, sink = Acks(), rig.sink()
        sink.open(acks)
        send(sink, frame(1))
        rig.stop()
        with pytest.raises(SinkUnavailable):
            send_all(sink, range(2, 200))
        rig.start()
        sink.open(acks)
        send_all(sink, range(acks.highest.get(EPOCH, 0) + 1, 201))
        sink.close()
        acks.wait_for(EPOCH, 200)
        assert rig.received() == {(EPOCH, s): 2 for s in range(1, 201)}

    def test_frames_of_two_epochs(self, rig: SinkRig) -> None:
        """What an earlier process left goes first; each epoch is acknowledged for itself."""
        acks, sink = Acks(), rig.sink()
        sink.open(acks)
        for epoch in (EPOCH - 1, EPOCH):
            for sequence in (1, 2):
                send(sink, frame(sequence, epoch=epoch))
        sink.close()
        for epoch in (EPOCH - 1, EPOCH):
            acks.wait_for(epoch, 2)
        assert len(rig.received()) == 4

    def test_close_after_nothing(self, rig: SinkRig) -> None:
        """A sink that was never opened can be closed."""
        rig.sink().close()
