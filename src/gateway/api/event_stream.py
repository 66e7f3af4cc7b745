"""Server-sent events: the responses of a generate_stream call, one event each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.api.response_streams import close
from gateway.protocol.generate import generate_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.api.errors import ErrorTranslator
    from gateway.core.types import InferResponse

EVENT_STREAM_TYPE: Final = "text/event-stream; charset=utf-8"


class EventStream:
    """Gives `data: {...}` per response; an error is the last event.

    Owns the stream of responses: it is closed at the end, after an error, and by `aclose`, even when
    nothing was read (a generator that never ran could not).

    Args:
        first: the first response, read already; None when there is none at all.
        responses: the others.
        errors: makes the event of an error.
    """

    def __init__(
        self, first: InferResponse | None, responses: AsyncIterator[InferResponse], errors: ErrorTranslator
    ) -> None:
        self._first = first
        self._responses = responses
        self._errors = errors
        self._ended = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next event; cancelling the caller leaves the stream to `aclose`."""
        try:
            response = await self._take()
            event = generate_json(response) if response is not None else b""
        except Exception as error:  # noqa: BLE001 - becomes the last event
            await self.aclose()
            return _event(bytes(self._errors.http_response(error).body[0]))
        if not event:
            await self.aclose()
            raise StopAsyncIteration
        return _event(event)

    async def aclose(self) -> None:
        """Give up: what has not been answered is cancelled. Harmless when closed already."""
        self._ended = True
        await close(self._responses)

    async def _take(self) -> InferResponse | None:
        """Return the next response that carries anything; an empty last one only marks the end."""
        if self._ended:
            return None
        first, self._first = self._first, None
        response = first if first is not None else await anext(self._responses, None)
        return response if response is not None and (response.outputs or not response.final) else None


def _event(text: bytes) -> bytes:
    # The JSON has no line breaks: they are escaped in its strings, and it is written without any other.
    return b"data: " + text + b"\n\n"
