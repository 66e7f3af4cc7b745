"""What a sink of the prediction log is. The contract suite is tests/predlog/sink_contract.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.predlog.rows import Frame


class SinkUnavailable(GatewayError):
    """The sink takes nothing now; what was not acknowledged is sent again later."""


class FrameSink(Protocol):
    """Takes frames in order of their sequence, from one thread of the log's own, never from the request path.

    Attributes:
        name: for metrics and accounts, bounded: `stream`, `parquet`, `nats`, `cloudevents`.
    """

    name: str

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Connect, or get ready to. May block for at most a few seconds.

        Args:
            acknowledged: call it, from any thread, with (epoch, sequence) when every frame of that epoch up
                to that sequence is durable at the sink, so that the sender may forget them.

        Raises:
            SinkUnavailable: nobody is there; `open` is called again after a pause that grows.
        """

    def send(self, frame: Frame) -> None:
        """Hand one frame over. May block for credit, for at most a second. A frame may be sent again.

        Raises:
            SinkUnavailable: the connection is lost or there is no credit; call `open` before the next.
        """

    def close(self) -> None:
        """Flush for at most a few seconds, then let go. Called once; also after a failed `open`."""
