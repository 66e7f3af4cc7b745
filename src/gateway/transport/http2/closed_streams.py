"""Which streams are over and how, as far as the rules for late frames need to know (RFC 9113 section 5.1)."""

from __future__ import annotations

from typing import Final

_REMEMBERED: Final = 256
_RANGES: Final = 16


class ClosedStreams:
    """The latest streams that this side broke off, and the identifiers that were never used.

    Bounded: at most 256 streams and 16 ranges; those before them count as closed by both sides.
    """

    __slots__ = ("_broken_off", "_skipped")

    def __init__(self) -> None:
        self._broken_off: dict[int, None] = {}
        self._skipped: list[tuple[int, int]] = []

    def break_off(self, stream_id: int) -> None:
        """Note that this side ended the stream while the client may still have been sending."""
        self._broken_off[stream_id] = None
        if len(self._broken_off) > _REMEMBERED:
            del self._broken_off[next(iter(self._broken_off))]

    def skip(self, after: int, before: int) -> None:
        """Note that the identifiers between two streams were closed without being used (section 5.1.1)."""
        self._skipped.append((after, before))
        del self._skipped[:-_RANGES]

    def was_broken_off(self, stream_id: int) -> bool:
        """Whether late frames of the stream are to be dropped without complaint."""
        return stream_id in self._broken_off

    def was_skipped(self, stream_id: int) -> bool:
        """Whether the stream was never used."""
        return any(after < stream_id < before for after, before in self._skipped)
