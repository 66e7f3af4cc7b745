"""A fake application's stream, shipped for tests.

It is compiled with the connection where that is: no class of a test can derive from `Stream` then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.transport.http2.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordedStream(Stream):
    """Records what it hears.

    Attributes:
        answer: called when the request has ended.
        received: bytes of DATA.
        ended: the request is complete.
        reset_code: of the stream's early end, None while there was none.
        drained: times that nothing was unsent any more.
        late: times that the message was called slow.
    """

    def __init__(
        self,
        stream_id: int,
        send_window: int,
        receive_window: int,
        answer: Callable[[RecordedStream], None],
    ) -> None:
        super().__init__(stream_id, send_window, receive_window)
        self.answer = answer
        self.received = b""
        self.ended = False
        self.reset_code: int | None = None
        self.drained = 0
        self.late = 0

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Keep a copy."""
        self.received += data[start:end]
        self.ended = ended
        if ended:
            self.answer(self)

    def on_reset(self, code: int) -> None:
        """Keep the code."""
        self.reset_code = code

    def on_sent(self) -> None:
        """Count it."""
        self.drained += 1

    def on_late(self) -> None:
        """Count it."""
        self.late += 1
