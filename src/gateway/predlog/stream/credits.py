"""What a monitor has allowed, less what it may not have seen yet. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class _Outstanding(NamedTuple):
    epoch: int
    sequence: int
    size: int


class Credits:
    """Counts what may still be sent.

    An ack's credit counts from the moment it was written, when frames of ours were on the way; so what was
    sent and is not applied by that ack is taken off it. That may count some frames twice and never too few:
    the monitor's bound holds. When nothing is outstanding, one frame may always go while any credit is left,
    so that one larger than all credit is not stuck for ever.

    Attributes:
        bytes_left: that may be sent now.
        frames_left: likewise.
    """

    def __init__(self) -> None:
        self.bytes_left = 0
        self.frames_left = 0
        self._outstanding: deque[_Outstanding] = deque()
        self._outstanding_bytes = 0
        self._last = (0, 0)

    @property
    def outstanding(self) -> int:
        """Frames sent and not applied."""
        return len(self._outstanding)

    def allows(self, size: int) -> bool:
        """Return whether a frame of so many bytes may be sent now."""
        if self.frames_left <= 0 or self.bytes_left <= 0:
            return False
        return size <= self.bytes_left or not self._outstanding

    def sent(self, epoch: int, sequence: int, size: int) -> None:
        """Count a frame that is sent. One that has no sequence of its own is not waited for."""
        self.bytes_left -= size
        self.frames_left -= 1
        if (epoch, sequence) > self._last:
            self._last = (epoch, sequence)
            self._outstanding.append(_Outstanding(epoch, sequence, size))
            self._outstanding_bytes += size

    def acked(self, epoch: int, applied: int, credit_bytes: int, credit_frames: int) -> None:
        """Take an ack in."""
        kept = deque(o for o in self._outstanding if o.epoch != epoch or o.sequence > applied)
        self._outstanding = kept
        self._outstanding_bytes = sum(o.size for o in kept)
        self.bytes_left = credit_bytes - self._outstanding_bytes
        self.frames_left = credit_frames - len(kept)
