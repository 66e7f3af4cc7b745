"""Parquet files of the prediction log without erased subjects. Blocking.

Who was erased is remembered beside the files: rows of theirs that come later, out of a round or a spool, are
not written. Whoever erases notes that first, then rewrites the files; whoever writes a file looks again when
it is there. So one of both sees the other, and no file is missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.predlog.sinks.parquet_table import parquet
from gateway.predlog.spool.tombstones import KEEP_S, Tombstones, loaded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.predlog.sinks.parquet_store import ParquetStore

_log = logging.getLogger(__name__)

ERASURES: Final = ".erasures.json"
"""Where they are remembered, below the files' root."""


def erase(store: ParquetStore, subject_hashes: frozenset[int], now_ns: int) -> int:
    """Keep the files without these subjects' rows, now and later; return how many rows went.

    A file is replaced in one step, and deleted when nothing is left in it; so is what was left half written.

    Args:
        store: the files.
        subject_hashes: whom.
        now_ns: wall clock, nanoseconds since the epoch: rows that were done later are let in again.

    Raises:
        OSError: the store's; begin again.
    """
    erased = erased_from(store)
    erased.forget(now_ns - int(KEEP_S * 1e9))
    erased.add(subject_hashes, now_ns)
    store.write(ERASURES, erased.to_bytes())
    store.tidy()
    return rewrite(store, store.names(), erased)


def erased_from(store: ParquetStore) -> Tombstones:
    """Return who was erased.

    Raises:
        OSError: the store's.
    """
    try:
        return loaded(store.read(ERASURES))
    except FileNotFoundError:
        return Tombstones()
    except ValueError as error:
        _log.error("prediction log: %s: %s", ERASURES, error)
        return Tombstones()


def rewrite(store: ParquetStore, paths: Iterable[str], erased: Tombstones) -> int:
    """Rewrite files that hold rows of erased subjects; return how many rows went.

    Raises:
        OSError: the store's.
    """
    gone = 0
    for path in paths:
        try:
            # Without threads: a command that ends while Arrow starts one is aborted ("terminate called").
            table = pq.read_table(pa.BufferReader(store.read(path)), use_threads=False, pre_buffer=False)
        except FileNotFoundError:
            continue
        left = kept(table, erased)
        gone += table.num_rows - left.num_rows
        if not left.num_rows and table.num_rows:
            store.delete(path)
        elif left is not table:
            store.write(path, parquet(left))
    return gone


def kept(table: pa.Table, erased: Tombstones) -> pa.Table:
    """Return a table without rows of erased subjects: the same one where it has none."""
    if not len(erased) or not {"subject_hash", "done_ns"} <= set(table.column_names):
        return table
    gone = erased.refused(table["subject_hash"].to_numpy(), table["done_ns"].to_numpy())
    return _anew(table.filter(pc.invert(pa.array(gone)))) if gone.any() else table


def _anew(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries hold what its rows do: a filter leaves in them what went."""
    return pa.table({name: _encoded(table[name].combine_chunks()) for name in table.column_names})


def _encoded(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        return values.cast(values.type.value_type).dictionary_encode()
    if pa.types.is_fixed_size_list(values.type):
        return pa.FixedSizeListArray.from_arrays(_encoded(values.flatten()), values.type.list_size)
    return values
