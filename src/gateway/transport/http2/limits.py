"""What a connection is told about its limits, and the names under which limits are counted when they fire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_LIST_BYTES: Final = 64 << 10
_CONTINUATIONS: Final = 16


class Limit(StrEnum):
    """Limits on what a client may cost; each is a label of a metric."""

    CONTINUATIONS = "continuations"
    HEADER_BLOCK = "header_block"
    METADATA = "metadata"
    RESETS = "resets"
    CONTROL_FRAMES = "control_frames"
    PINGS = "pings"
    STREAMS = "streams"
    RPCS = "rpcs"
    CONNECTIONS = "connections"
    MESSAGE = "message"
    BUFFERED = "buffered"
    UNSENT = "unsent"
    PREFACE_TIMEOUT = "preface_timeout"
    HEADER_TIMEOUT = "header_timeout"
    BODY_TIMEOUT = "body_timeout"
    SEND_TIMEOUT = "send_timeout"
    KEEPALIVE_TIMEOUT = "keepalive_timeout"


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits and timeouts of one connection, in bytes and seconds; a timeout of None never comes.

    Attributes:
        connection_window_bytes: receive window of the connection.
        stream_window_bytes: receive window of a stream.
        max_frame_bytes: SETTINGS_MAX_FRAME_SIZE.
        max_streams: SETTINGS_MAX_CONCURRENT_STREAMS; None for no limit.
        max_header_list_bytes: SETTINGS_MAX_HEADER_LIST_SIZE.
        max_header_block_bytes: one header block as sent.
        max_continuations: CONTINUATION frames of one block.
        max_unsent_bytes: DATA waiting to be sent.
        max_resets: streams reset by the client or for its faults, per `abuse_interval_s`.
        max_control_frames: frames without use, per `abuse_interval_s`.
        abuse_interval_s: see above.
        preface_timeout_s: until the client's preface and SETTINGS.
        header_timeout_s: from first to last byte of a header block.
        body_timeout_s: of a message, beyond its bytes at `min_body_rate`.
        min_body_rate: bytes per second.
        send_timeout_s: without progress in sending.
        keepalive_time_s: of silence before a ping.
        keepalive_timeout_s: for its answer.
        min_ping_interval_s: between pings of the client while nothing is sent to it.
        max_idle_s: without a stream.
        max_age_s: of the connection.
        max_age_grace_s: for its streams after that.
    """

    connection_window_bytes: int
    stream_window_bytes: int
    max_frame_bytes: int
    max_streams: int | None
    max_header_list_bytes: int
    max_header_block_bytes: int
    max_continuations: int
    max_unsent_bytes: int
    max_resets: int
    max_control_frames: int
    abuse_interval_s: float
    preface_timeout_s: float
    header_timeout_s: float
    body_timeout_s: float
    min_body_rate: float
    send_timeout_s: float
    keepalive_time_s: float
    keepalive_timeout_s: float
    min_ping_interval_s: float
    max_idle_s: float | None
    max_age_s: float | None
    max_age_grace_s: float | None


def client_limits(
    connection_window_bytes: int,
    stream_window_bytes: int,
    max_frame_bytes: int,
    keepalive_s: tuple[float, float],
) -> ConnectionLimits:
    """Return the limits of a client's connection.

    Args:
        connection_window_bytes: see `ConnectionLimits`.
        stream_window_bytes: likewise.
        max_frame_bytes: likewise.
        keepalive_s: of silence before a ping, and for its answer.
    """
    return ConnectionLimits(
        connection_window_bytes=connection_window_bytes,
        stream_window_bytes=stream_window_bytes,
        max_frame_bytes=max_frame_bytes,
        max_streams=0,
        max_header_list_bytes=_LIST_BYTES,
        max_header_block_bytes=_LIST_BYTES,
        max_continuations=_CONTINUATIONS,
        keepalive_time_s=keepalive_s[0],
        keepalive_timeout_s=keepalive_s[1],
        # What follows bounds clients of a server.
        max_unsent_bytes=0,
        max_resets=0,
        max_control_frames=0,
        abuse_interval_s=0.0,
        preface_timeout_s=0.0,
        header_timeout_s=0.0,
        body_timeout_s=0.0,
        min_body_rate=0.0,
        send_timeout_s=0.0,
        min_ping_interval_s=0.0,
        max_idle_s=None,
        max_age_s=None,
        max_age_grace_s=None,
    )
