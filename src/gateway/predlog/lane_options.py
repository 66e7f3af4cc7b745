"""How a lane keeps frames, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.predlog.spool.options import SpoolOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOptions:
    """How a lane keeps frames.

    Attributes:
        epoch: of this process; frames of other epochs are an earlier one's.
        memory_bytes: of frames in memory; beyond, the older go to the spool. Up to as much again may wait
            for the disk.
        spool_directory: for this lane alone; None: what does not fit in memory is dropped.
        spool: its bounds.
        backoff_s: first pause after a failure to open the sink; doubles, with jitter.
        max_backoff_s: longest such pause.
    """

    epoch: int
    memory_bytes: int = 32 << 20
    spool_directory: Path | None = None
    spool: SpoolOptions = field(default_factory=SpoolOptions)
    backoff_s: float = 0.1
    max_backoff_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """A lane at one moment. Exactly: put = applied + memory_rows + spooled_rows + sum(dropped).

    Attributes:
        name: the sink's.
        connected: the sink is open.
        put: rows of this process that came in.
        applied: of those, acknowledged.
        dropped: of those, dropped, by reason.
        in_flight_rows: rows sent and not acknowledged, in memory or spooled; of earlier processes too.
        memory_rows: rows in memory, sent or not.
        memory_bytes: of those.
        spooled_rows: rows of this process on disk.
        spooled_bytes: of the spool's files.
        recovered_rows: rows that earlier processes left in the spool.
        earlier_applied: of those, acknowledged.
        earlier_spooled: of those, still there.
        earlier_dropped: of those, dropped, by reason.
        acknowledged: highest durable sequence by epoch.
        opens: how often the sink was opened.
        spool_failed: a spool is configured and cannot be used now: frames are in memory only.
        sync_failures: flushes of the spool that failed.
        last_error: what went wrong last; empty: nothing has.
    """

    name: str
    connected: bool
    put: int
    applied: int
    dropped: Mapping[str, int]
    in_flight_rows: int
    memory_rows: int
    memory_bytes: int
    spooled_rows: int
    spooled_bytes: int
    recovered_rows: int
    earlier_applied: int
    earlier_spooled: int
    earlier_dropped: Mapping[str, int]
    acknowledged: Mapping[int, int]
    opens: int
    spool_failed: bool
    sync_failures: int
    last_error: str
