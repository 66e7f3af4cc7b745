"""How a spool is kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Fsync(enum.Enum):
    """When frames written to a spool are flushed to the disk.

    OFF leaves it to the kernel: frames survive the process, and not a loss of power. GROUP flushes together
    what a second or four mebibytes bring. ALWAYS flushes each frame.
    """

    OFF = "off"
    GROUP = "group"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """Bounds of a spool.

    Attributes:
        max_bytes: of all segments together; beyond, the oldest segment not yet sent from is dropped.
        max_age_s: segments whose first frame is older are dropped.
        segment_bytes: a segment is closed when it is longer; never more than a quarter of `max_bytes`.
        fsync: when frames are flushed.
        group_s: GROUP: at the latest after so many seconds.
        group_bytes: GROUP: and at the latest after so many bytes.
    """

    max_bytes: int = 2 << 30
    max_age_s: float = 86_400.0
    segment_bytes: int = 64 << 20
    fsync: Fsync = Fsync.GROUP
    group_s: float = 1.0
    group_bytes: int = 4 << 20
