"""Frames to a monitor over one bidirectional gRPC stream, within the credit that it gives.

The gateway sends metadata `gateway-producer` and `gateway-epoch`; the monitor's first message is its
greeting: credit, and for this producer and epoch how far it is. Each (epoch, durable sequence) of an ack is
passed on as it is said. gRPC pings are not used, for servers count them as abuse unless told otherwise:
a monitor that stands still is noticed by its silence while it has frames that it has not applied.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Final

import grpc

from gateway._proto import prediction_log_pb2 as pb
from gateway.predlog.lane_errors import FrameRefused, NoCredit
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.stream.credits import Credits

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.predlog.rows import Frame
    from gateway.predlog.stream.options import ClientTls, StreamOptions

METHOD: Final = "/model_gateway.prediction_log.v1.PredictionLog/Stream"
PRODUCER_METADATA: Final = "gateway-producer"
EPOCH_METADATA: Final = "gateway-epoch"

MAX_FRAME_BYTES: Final = 4 << 20
"""What a gRPC server takes unless told otherwise."""


class StreamSink:
    """A `FrameSink`.

    Args:
        options: where the monitor is.
        hint: is called, from a thread of the sink's, when the monitor names another sampling ratio that it
            can follow: above 0, 1 for all.

    Attributes:
        refused: frames that the monitor refused, by reason.
    """

    name: str = "stream"

    def __init__(self, options: StreamOptions, hint: Callable[[float], None] | None = None) -> None:
        self.refused: dict[str, int] = {}
        self._options = options
        self._hint = hint
        self._hinted = 1.0
        self._connection: _Connection | None = None

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Connect and wait for the monitor's greeting.

        Raises:
            SinkUnavailable: nobody is there, or it says nothing in time.
        """
        self._let_go()
        self._connection = _Connection(self._options, acknowledged, self._heard)
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


class _Connection:
    """One stream: grpc's threads write what lies in a queue, one of ours reads the acks."""

    def __init__(
        self,
        options: StreamOptions,
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
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._channel = _channel(options)
        call: grpc.StreamStreamMultiCallable[bytes, pb.LogAck] = self._channel.stream_stream(
            METHOD,
            request_serializer=None,
            response_deserializer=pb.LogAck.FromString,
        )
        metadata = ((PRODUCER_METADATA, _ascii(options.producer)), (EPOCH_METADATA, str(options.epoch)))
        self._call = call(iter(self._outgoing.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="predlog-stream-acks", daemon=True)
        self._reader.start()

    @property
    def credit_bytes(self) -> int:
        return max(self._credits.bytes_left, 0)

    def wait_for_greeting(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._greeted or self._lost, self._options.open_timeout_s)
            if self._lost:
                raise SinkUnavailable(f"the monitor cannot be reached: {self._lost}")
            if not self._greeted:
                raise SinkUnavailable(f"no greeting from the monitor in {self._options.open_timeout_s} s")

    def send(self, frame: Frame) -> None:
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
        self._outgoing.put(frame.data)

    def finish(self, wait_s: float) -> None:
        """Say that nothing more comes, and wait for the monitor to end the stream or apply all."""
        self._outgoing.put(None)
        with self._changed:
            self._changed.wait_for(lambda: self._lost, wait_s)

    def close(self) -> None:
        self._outgoing.put(None)
        self._call.cancel()
        self._reader.join(1.0)
        self._channel.close()

    def _read(self) -> None:
        reason = "the monitor ended it"
        try:
            for ack in self._call:
                self._take(ack)
        except grpc.RpcError:
            reason = f"{self._call.code().name}: {self._call.details()}"[:200]
        with self._changed:
            self._lost = reason
            self._changed.notify_all()

    def _take(self, ack: pb.LogAck) -> None:
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


def _channel(options: StreamOptions) -> grpc.Channel:
    settings: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", 1 << 20),
        ("grpc.max_send_message_length", MAX_FRAME_BYTES),
        # The lane decides when to try again, with a channel of its own each time.
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if options.tls is None:
        return grpc.insecure_channel(options.address, options=settings)
    if options.tls.server_name:
        settings.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return grpc.secure_channel(options.address, _credentials(options.tls), options=settings)


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    try:
        key = tls.key.read_bytes() if tls.key is not None else None
        certificate = tls.certificate.read_bytes() if tls.certificate is not None else None
        return grpc.ssl_channel_credentials(tls.ca.read_bytes(), key, certificate)
    except OSError as error:
        raise SinkUnavailable(f"a TLS file of the stream cannot be read: {error}") from error


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
