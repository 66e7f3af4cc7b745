"""One request of a client as its connection sees it; the application's calls derive from it."""

from __future__ import annotations

from typing import Generic, TypeVar

from gateway.transport.http2.stream import Stream

HeadT = TypeVar("HeadT")


class ClientStream(Stream, Generic[HeadT]):
    """A stream that this side has opened (RFC 9113 section 5.1), with the hooks of whoever waits for it.

    `local_closed` stays False until the stream is over, though the request was sent: what is left of the
    response is still wanted.

    Attributes:
        request_sent: the request is with the sender no more.
    """

    request_sent: bool = False

    def on_head(self, head: HeadT, *, ended: bool) -> None:
        """Take a field section: the head, or with `ended` the trailers, after which the stream is over."""
        raise NotImplementedError

    def on_lost(self, reason: str, *, sent: bool) -> None:
        """Hear that the stream is over with its connection.

        Args:
            reason: why.
            sent: the server may have begun to work on the request; False: it surely has not.
        """
        raise NotImplementedError
