"""How long Parquet files of the prediction log are kept. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.predlog.sinks.parquet_table import hour_end_s

if TYPE_CHECKING:
    from gateway.predlog.sinks.parquet_store import ParquetStore

LEFTOVER_S: Final = 86_400.0
"""What a process that was killed left half written is deleted after so long."""


def expire(store: ParquetStore, retention_s: float, now_s: float) -> int:
    """Delete files whose hour ended longer ago than the retention, and leftovers; return how many.

    Args:
        store: the files.
        retention_s: 0: no whole file is deleted.
        now_s: wall clock, seconds since the epoch.

    Raises:
        OSError: the store's.
    """
    gone = store.tidy(now_s - LEFTOVER_S)
    if not retention_s:
        return gone
    ends = {path: hour_end_s(path) for path in store.names()}
    old = [path for path, end_s in ends.items() if end_s is not None and end_s < now_s - retention_s]
    for path in old:
        store.delete(path)
    return gone + len(old)
