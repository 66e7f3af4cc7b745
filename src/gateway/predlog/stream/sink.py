"""Frames to a monitor over one bidirectional gRPC stream, within the credit that it gives.

The gateway sends metadata `gateway-producer` and `gateway-epoch`; the monitor's first message is its
greeting: credit, and for this producer and epoch how far it is. Each (epoch, durable sequence) of an ack is
passed on as it is said. gRPC pings are not used, for servers count them as abuse unless told otherwise:
a monitor that stands still is noticed by its silence while it has frames that it has not applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.stream.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway._proto import prediction_log_pb2 as pb
    from gateway.core.duplex import OpenDuplex
    from gateway.predlog.rows import Frame
    from gateway.predlog.stream.options import StreamOptions

MAX_FRAME_BYTES: Final = 4 << 20
"""What a gRPC server takes unless told otherwise."""


class StreamSink:
    """A `FrameSink`.

    Args:
        options: where the monitor is.
        open_duplex: connects.
        hint: is called, from a thread of the sink's, when the monitor names another sampling ratio that it
            can follow: above 0, 1 for all.

    Attributes:
        refused: frames that the monitor refused, by reason.
    """

    name: str = "stream"

    def __init__(
        self, options: StreamOptions, open_duplex: OpenDuplex, hint: Callable[[float], None] | None = None
    ) -> None:
        self.refused: dict[str, int] = {}
        self._options = options
        self._open_duplex = open_duplex
        self._hint = hint
        self._hinted = 1.0
        self._connection: Connection | None = None

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Connect and wait for the monitor's greeting.

        Raises:
            SinkUnavailable: nobody is there, or it says nothing in time.
        """
        self._let_go()
        self._connection = Connection(self._options, self._open_duplex, acknowledged, self._heard)
        try:
            self._connection.wait_for_greeting()
        except BaseException:
            self._let_go()
            raise

    def send(self, frame: Frame) -> None:
        """Hand a frame to the stream when there is credit for it.

        Raises:
            NoCredit: there was none in time; the connection stands.
            SinkUnavailable: the connection is lost, or the monitor is silent.
            FrameRefused: it is longer than any monitor takes.
        """
        if len(frame.data) > MAX_FRAME_BYTES:
            raise FrameRefused(f"a frame of {len(frame.data)} bytes, at most {MAX_FRAME_BYTES} can be sent")
        if self._connection is None:
            raise SinkUnavailable("the stream is not open")
        self._connection.send(frame)

    def close(self) -> None:
        """Wait a little for what is on its way, then let go."""
        if self._connection is not None:
            self._connection.finish(self._options.close_s)
        self._let_go()

    @property
    def credit_bytes(self) -> int:
        """What may be sent now."""
        connection = self._connection
        return 0 if connection is None else connection.credit_bytes

    def _heard(self, ack: pb.LogAck) -> None:
        ratio = ack.sample_hint if 0 < ack.sample_hint < 1 else 1.0
        if self._hint is not None and ratio != self._hinted:
            self._hinted = ratio
            self._hint(ratio)
        for refusal in ack.refused:
            known = refusal.reason if refusal.reason in _REASONS else "other"
            self.refused[known] = self.refused.get(known, 0) + 1

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_REASONS: Final = frozenset({"crc", "schema", "malformed", "too_large"})
