"""The frames of a connection as a whole: SETTINGS, PING, GOAWAY, and how many useless ones are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.transport.http2.allowance import Allowance
from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import ACK, SETTINGS_ACK, ping_frame
from gateway.transport.http2.limits import Limit
from gateway.transport.http2.peer_settings import apply_settings, check_settings_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.transport.http2.lifetime import Lifetime
    from gateway.transport.http2.limits import ConnectionLimits
    from gateway.transport.http2.sender import Sender
    from gateway.transport.http2.stream import Stream

_EARNED_BY_STREAM: Final = 4  # control frames that a call, or a frame sent, gives a client reason to send


class Control:
    """Takes the control frames of one connection.

    Attributes:
        settled: the client's first SETTINGS have come (section 3.4).
        peer_leaves: the client has said GOAWAY.
    """

    __slots__ = (
        "_count_limit",
        "_earned",
        "_frames",
        "_lifetime",
        "_resets",
        "_sender",
        "peer_leaves",
        "settled",
    )

    def __init__(
        self,
        limits: ConnectionLimits,
        sender: Sender,
        lifetime: Lifetime,
        count_limit: Callable[[Limit], None],
        now_s: float,
    ) -> None:
        self._sender = sender
        self._lifetime = lifetime
        self._count_limit = count_limit
        self._frames = Allowance(limits.max_control_frames, limits.abuse_interval_s, now_s)
        self._resets = Allowance(limits.max_resets, limits.abuse_interval_s, now_s)
        self._earned = 0
        self.settled = False
        self.peer_leaves = False

    def spend_frame(self, opened: int, now_s: float) -> None:
        """Charge a frame that costs its sender nothing.

        Args:
            opened: streams that the client has opened so far.
            now_s: monotonic time.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM, there were too many.
        """
        frames = self._frames
        frames.left -= 1
        if frames.left >= 0:
            return
        earned = _EARNED_BY_STREAM * (opened + self._sender.sent_frames)
        extra, self._earned = earned - self._earned, earned
        if not frames.refill(now_s, extra):
            self._count_limit(Limit.CONTROL_FRAMES)
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def spend_reset(self, now_s: float) -> None:
        """Charge a stream that was reset by the client or for a fault of its own.

        Running work is limited elsewhere; this bounds what opening and closing costs (CVE-2023-44487,
        CVE-2025-8671).

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM, there were too many.
        """
        self._resets.left -= 1
        if self._resets.left < 0 and not self._resets.refill(now_s, 0):
            self._count_limit(Limit.RESETS)
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")

    def settings(self, frame: tuple[int, int, bytes], streams: Mapping[int, Stream], now_s: float) -> None:
        """Take a SETTINGS frame: its flags, stream and payload (section 6.5)."""
        flags, stream_id, payload = frame
        check_settings_frame(stream_id, flags, payload)
        if flags & ACK:
            if not self.settled:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame acknowledges SETTINGS")
            return
        self.settled = True
        apply_settings(payload, self._sender, streams.values())
        self._sender.frame(SETTINGS_ACK)
        self._sender.pump(now_s)

    def ping(self, frame: tuple[int, int, bytes], last_stream_id: int, now_s: float) -> None:
        """Take a PING frame (section 6.7)."""
        flags, stream_id, payload = frame
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of an impossible length")
        if flags & ACK:
            self._lifetime.on_ping_ack(payload, last_stream_id)
            return
        self._lifetime.on_ping(last_stream_id + self._sender.sent_frames, now_s)
        self._sender.frame(ping_frame(payload, ack=True))

    def goaway(self, stream_id: int, payload: bytes) -> None:
        """Take a GOAWAY frame (section 6.8): the client opens no more streams, those open go on."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of an impossible length")
        self.peer_leaves = True
