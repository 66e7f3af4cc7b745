"""One connection to a monitor: its greeting, its credit, its acknowledgements, its silence."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from gateway._proto import prediction_log_pb2 as pb
from gateway.core.duplex import DuplexTarget
from gateway.predlog.lane_errors import NoCredit
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.stream.credits import Credits
from gateway.predlog.stream.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.duplex import OpenDuplex
    from gateway.predlog.rows import Frame
    from gateway.predlog.stream.options import StreamOptions

METHOD: Final = "/model_gateway.prediction_log.v1.PredictionLog/Stream"
PRODUCER_METADATA: Final = "gateway-producer"
EPOCH_METADATA: Final = "gateway-epoch"

_MAX_ACK_BYTES: Final = 1 << 20
_SHOWN: Final = 200


class Connection:
    """A call to the monitor; the `DuplexListener` of that call.

    Args:
        options: where the monitor is.
        open_duplex: connects.
        acknowledged: is told (epoch, sequence) of what is durable.
        heard: is told of every ack, first.

    Raises:
        SinkUnavailable: nobody is there, or a TLS file cannot be used.
    """

    def __init__(
        self,
        options: StreamOptions,
        open_duplex: OpenDuplex,
        acknowledged: Callable[[int, int], None],
        heard: Callable[[pb.LogAck], None],
    ) -> None:
        self._options = options
        self._acknowledged = acknowledged
        self._heard = heard
        self._changed = threading.Condition()
        self._credits = Credits()
        self._greeted = False
        self._lost = ""
        self._heard_at_s = time.monotonic()
        self._greeting_due_s = self._heard_at_s + options.open_timeout_s
        target = _target(options)
        try:
            self._call = open_duplex(target, self)
        except OSError as error:
            raise SinkUnavailable(f"the monitor cannot be reached: {error}") from error

    @property
    def credit_bytes(self) -> int:
        """What may be sent now."""
        return max(self._credits.bytes_left, 0)

    def wait_for_greeting(self) -> None:
        """Wait for the monitor's first message.

        Raises:
            SinkUnavailable: it says nothing in time, or is gone.
        """
        with self._changed:
            left_s = max(0.0, self._greeting_due_s - time.monotonic())
            self._changed.wait_for(lambda: self._greeted or self._lost, left_s)
            if self._lost:
                raise SinkUnavailable(f"the monitor cannot be reached: {self._lost}")
            if not self._greeted:
                raise SinkUnavailable(f"no greeting from the monitor in {self._options.open_timeout_s} s")

    def send(self, frame: Frame) -> None:
        """Send a frame when there is credit for it; see `StreamSink.send`."""
        size = len(frame.data)
        with self._changed:
            self._changed.wait_for(
                lambda: self._credits.allows(size) or self._lost, self._options.credit_wait_s
            )
            if self._lost:
                raise SinkUnavailable(f"the stream is lost: {self._lost}")
            silent_s = time.monotonic() - self._heard_at_s
            if self._credits.outstanding and silent_s > self._options.silence_s:
                raise SinkUnavailable(f"the monitor has said nothing for {silent_s:.0f} s")
            if not self._credits.allows(size):
                raise NoCredit("the monitor gives no credit")
            if not self._credits.outstanding:
                self._heard_at_s = time.monotonic()
            self._credits.sent(frame.epoch, frame.sequence, size)
        try:
            self._call.send(frame.data)
        except ConnectionError as error:
            raise SinkUnavailable(f"the stream is lost: {error}") from error

    def finish(self, wait_s: float) -> None:
        """Say that nothing more comes, and wait for the monitor to end the stream."""
        self._call.end()
        with self._changed:
            self._changed.wait_for(lambda: self._lost, wait_s)

    def close(self) -> None:
        """Let go."""
        self._call.close()

    # DuplexListener

    def on_message(self, message: bytes) -> None:
        """Take an ack."""
        ack = pb.LogAck.FromString(message)
        self._heard(ack)
        if ack.durable_sequence and ack.producer in {"", self._options.producer}:
            self._acknowledged(ack.epoch or self._options.epoch, ack.durable_sequence)
        with self._changed:
            self._greeted = True
            self._heard_at_s = time.monotonic()
            self._credits.acked(
                ack.epoch or self._options.epoch, ack.applied_sequence, ack.credit_bytes, ack.credit_frames
            )
            self._changed.notify_all()

    def on_end(self, code: str, details: str) -> None:
        """Hear why the stream is over."""
        with self._changed:
            self._lost = "the monitor ended it" if code == "OK" else f"{code}: {details}"[:_SHOWN]
            self._changed.notify_all()


def _target(options: StreamOptions) -> DuplexTarget:
    tls = options.tls
    return DuplexTarget(
        address=options.address,
        path=METHOD,
        metadata=((PRODUCER_METADATA, _ascii(options.producer)), (EPOCH_METADATA, str(options.epoch))),
        tls=None if tls is None else client_context(tls),
        server_name="" if tls is None else tls.server_name,
        connect_timeout_s=options.open_timeout_s,
        max_message_bytes=_MAX_ACK_BYTES,
    )


def _ascii(text: str) -> str:
    """Return `text` as metadata may have it."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
