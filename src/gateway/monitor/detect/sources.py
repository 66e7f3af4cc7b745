"""What detection and arms ask of the panes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.monitor.panes.pane import Pane
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import Coverage, StreamKey


class PaneSource(Protocol):
    """The panes of all streams; read on the engine's thread."""

    def keys(self) -> Iterable[StreamKey]:
        """Return the streams that there are panes of."""

    def window(self, key: StreamKey, start_s: float, end_s: float) -> Pane:
        """Return the sum of the stream's panes in [start_s, end_s); an empty one where there are none."""

    def minutes(self, key: StreamKey, start_s: float, end_s: float) -> Sequence[tuple[float, Pane]]:
        """Return the stream's panes by minute, ascending; minutes without rows are left out."""

    def coverage(self, model: str, version: int, arm: str, start_s: float, end_s: float) -> Coverage:
        """Return how much of what was served in [start_s, end_s) has arrived."""


class Profiles(Protocol):
    """Who knows the profile of a version: a catalog."""

    def find(self, model: str, version: int, digest: str = "") -> Profile | None:
        """Return it; None while there is none."""
