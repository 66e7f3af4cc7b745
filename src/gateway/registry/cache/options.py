"""Settings of the artifact cache."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Settings of an ArtifactCache.

    Attributes:
        max_bytes: garbage collection removes what was used longest ago until no more is kept; None: no limit.
        max_age_s: garbage collection removes what was not used for so long; None: no limit.
        keep_versions: garbage collection keeps so many artifacts of a model; None: no limit.
        grace_s: nothing that was fetched or used within so many seconds is removed.
        leftover_age_s: what is left of a fetch that nobody went on with is removed after so long, and a set
            of digests to keep that its gateway did not renew within it, an hour at least, no longer counts.
        free_disk_reserve_bytes: never fill the disk so far that less is free.
        max_artifact_bytes: no version may be larger, all its files together.
        max_files: no version may have more files.
        part_bytes: files are fetched in parts of this size.
        parallel_parts: parts of one version under way at once.
        read_timeout_s: a part from which no byte came for so long is tried again.
        listing_timeout_s: the registry must have listed a version's files within it.
        attempts: how often a part is tried before the fetch fails.
        backoff_s: pause after a part's first failure; it doubles with each further one.
        durable: flush files and directories to the disk before an artifact is published, so that it outlives
            a loss of power; kill -9 it outlives anyway.
        lock_poll_s: how often to look whether another process has done what is waited for.
        threads: threads that read, hash and write files; so many processors a verification keeps busy.
        pause: waits; `asyncio.sleep`.
        now_s: monotonic seconds.
        wall_s: seconds since the epoch, as file times have them.
    """

    max_bytes: int | None = None
    max_age_s: float | None = None
    keep_versions: int | None = None
    grace_s: float = 600.0
    leftover_age_s: float = _DAY_S
    free_disk_reserve_bytes: int = 1 << 30
    max_artifact_bytes: int = 64 << 30
    max_files: int = 10_000
    part_bytes: int = 16 << 20
    parallel_parts: int = 6
    read_timeout_s: float = 30.0
    listing_timeout_s: float = 60.0
    attempts: int = 4
    backoff_s: float = 0.5
    durable: bool = True
    lock_poll_s: float = 0.1
    threads: int = 2
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    now_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time
