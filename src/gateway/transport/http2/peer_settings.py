"""The client's SETTINGS (RFC 9113 section 6.5): checked and applied to what is sent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    LARGEST_FRAME_BYTES,
    MAX_WINDOW,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_FRAME_SIZE,
    read_settings,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.transport.http2.sender import Sender
    from gateway.transport.http2.stream import Stream

_SETTING_BYTES: Final = 6


def check_settings_frame(stream_id: int, flags: int, payload: bytes) -> None:
    """Check the frame itself (section 6.5).

    Raises:
        ConnectionFault: it is on a stream, or has no length that is possible.
    """
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
    if len(payload) % _SETTING_BYTES or (flags & ACK and payload):
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of an impossible length")


def apply_settings(payload: bytes, sender: Sender, streams: Collection[Stream]) -> None:
    """Apply each setting in order (section 6.5.3), without sending anything; unknown ones are ignored.

    Windows are resized once, to the last size given, for that visits every stream.

    SETTINGS_HEADER_TABLE_SIZE and SETTINGS_MAX_CONCURRENT_STREAMS change nothing here: answers use no dynamic
    table, and nothing is pushed.

    Raises:
        ConnectionFault: a value is not allowed (section 6.5.2), or makes a window too large (section 6.9.2).
    """
    window = sender.stream_window
    for name, value in read_settings(payload):
        if name == SETTINGS_ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is not 0 or 1")
        if name == SETTINGS_INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large"
                )
            window = value
        elif name == SETTINGS_MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
            sender.resize_frames(value)
    if window != sender.stream_window:
        sender.resize_windows(window, streams)
