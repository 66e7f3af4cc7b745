"""Frames to every sink: each has a lane of its own, so that none waits for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.predlog.lane import Lane, LaneStatus
    from gateway.predlog.rows import Frame


class Delivery:
    """Hands frames to lanes. `put` is for one thread, the encoder's; `status` for any.

    A lane takes frames before it was started; they wait.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = {lane.name: lane for lane in lanes}
        if len(self._lanes) != len(lanes):
            raise ValueError("two lanes have the same name")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the lanes."""
        return tuple(self._lanes)

    def start(self) -> None:
        """Begin to deliver; once. Returns at once: sinks are opened in threads."""
        for lane in self._lanes.values():
            lane.start()

    def put(self, frame: Frame) -> None:
        """Give a frame to every lane. Never blocks: what a lane cannot take, it counts as dropped."""
        for lane in self._lanes.values():
            lane.put(frame)

    def put_to(self, name: str, frame: Frame) -> None:
        """Give a frame to one lane, as its own accounting is. Never blocks."""
        self._lanes[name].put(frame)

    def close(self, grace_s: float) -> None:
        """Send what is left for at most so long, keep the rest in spools, and end every lane. Blocking.

        Sinks get a few seconds more to close. What could be neither sent nor spooled is dropped as
        `shutdown`. Put nothing afterwards.
        """
        for lane in self._lanes.values():
            lane.end(grace_s)
        for lane in self._lanes.values():
            lane.join()

    def status(self) -> tuple[LaneStatus, ...]:
        """Return every lane's figures. May wait for a disk, so not on an event loop that serves."""
        return tuple(lane.status() for lane in self._lanes.values())
