"""Tell several listeners how far a fetch is, at a bounded rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.registry import FetchProgress
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Callable

    Report: TypeAlias = Callable[[FetchProgress], None]

_INTERVAL_S: Final = 0.2


class Progress:
    """Bytes done of one state, told to listeners five times a second at most, and at each change of state."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._listeners: list[Report] = []
        self._told_s = now_s()
        self._current = FetchProgress(state=VersionState.FETCHING, done_bytes=0, total_bytes=None)

    def listen(self, listener: Report) -> None:
        """Tell `listener` how far it is, and from now on."""
        self._listeners.append(listener)
        listener(self._current)

    def leave(self, listener: Report) -> None:
        """Tell `listener` no more."""
        self._listeners.remove(listener)

    def enter(self, state: VersionState, done_bytes: int, total_bytes: int | None) -> None:
        """Begin `state`, or correct its numbers."""
        before = self._current
        self._current = FetchProgress(state=state, done_bytes=done_bytes, total_bytes=total_bytes)
        self._tell(at_once=(before.state, before.total_bytes) != (state, total_bytes))

    def add(self, count: int) -> None:
        """Count bytes that are done; negative when they have to be done again."""
        state, done, total = self._current.state, self._current.done_bytes, self._current.total_bytes
        self._current = FetchProgress(state=state, done_bytes=done + count, total_bytes=total)
        self._tell(at_once=done + count == total)

    def _tell(self, *, at_once: bool) -> None:
        now_s = self._now_s()
        if at_once or now_s - self._told_s >= _INTERVAL_S:
            self._told_s = now_s
            for listener in tuple(self._listeners):
                listener(self._current)
