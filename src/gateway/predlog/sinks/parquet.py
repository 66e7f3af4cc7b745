"""The prediction log as Parquet files, partitioned by model and hour.

Rows are collected in rounds. A round ends after so many rows or so long, and writes one file per partition
and schema, whose name says which of the producer's frames it covers; then they are acknowledged. A frame that
comes again after a crash between the two is left out of the partitions whose files cover it already: each
row is in the files once.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pyarrow as pa

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.sinks.parquet_erasing import erased_from, kept, rewrite
from gateway.predlog.sinks.parquet_retention import expire
from gateway.predlog.sinks.parquet_table import FileName, Partition, parquet, parse_file_name, tables
from gateway.predlog.wire import MalformedFrame, decode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.predlog.rows import Frame
    from gateway.predlog.sinks.parquet_store import ParquetStore
    from gateway.predlog.spool.tombstones import Tombstones

_log = logging.getLogger(__name__)

_EXPIRE_INTERVAL_S: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetOptions:
    """When files are closed, and how long they are kept.

    Attributes:
        round_rows: a round ends with so many rows,
        round_bytes: or so many bytes of frames,
        round_s: or after so long; also the longest that frames wait to be acknowledged.
        retention_s: files whose hour ended before are deleted; 0: never.
        compression: Parquet's codec.
    """

    round_rows: int = 131_072
    round_bytes: int = 64 << 20
    round_s: float = 60.0
    retention_s: float = 0.0
    compression: str = "zstd"


@dataclass(slots=True)
class _Round:
    """What is not in files yet: of one producer and epoch."""

    producer: str
    epoch: int
    first: int
    last: int
    begun_s: float
    rows: int = 0
    size: int = 0
    parts: dict[Partition, list[pa.Table]] = field(default_factory=dict)


class ParquetSink:
    """A `FrameSink`. A thread ends rounds in time while no frame comes."""

    name: str = "parquet"

    def __init__(self, store: ParquetStore, options: ParquetOptions) -> None:
        self._store = store
        self._options = options
        self._lock = threading.Condition()
        self._round: _Round | None = None
        self._covered: dict[tuple[str, str], set[FileName]] = {}
        self._acknowledged: Callable[[int, int], None] | None = None
        self._failure = ""
        self._closed = False
        self._expire_at_s = float("-inf")
        self._ender: threading.Thread | None = None

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        """Read the names of the files that are there.

        Raises:
            SinkUnavailable: they cannot be listed.
        """
        with self._lock:
            self._round = None
            self._failure = ""
            self._acknowledged = acknowledged
            try:
                names = self._store.names()
            except Exception as error:
                raise SinkUnavailable(f"Parquet files cannot be listed: {error}") from error
            self._covered = {}
            for folder, name in filter(None, map(parse_file_name, names)):
                self._covered.setdefault((folder, name.shape), set()).add(name)
            if self._ender is None:
                self._ender = threading.Thread(target=self._end_in_time, name="predlog-parquet", daemon=True)
                self._ender.start()

    def send(self, frame: Frame) -> None:
        """Add a frame to the round; write the round's files when it is full.

        Raises:
            SinkUnavailable: files cannot be written.
            FrameRefused: the frame cannot be decoded.
        """
        with self._lock:
            if self._acknowledged is None or self._failure:
                raise SinkUnavailable(self._failure or "not open")
            if self._round is not None and self._round.epoch != frame.epoch:
                self._end_round()
            self._add(frame)
            current = self._round
            assert current is not None
            if current.rows >= self._options.round_rows or current.size >= self._options.round_bytes:
                self._end_round()
            self._lock.notify_all()

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            if self._acknowledged is not None and not self._failure:
                self._end_round()
        if self._ender is not None:
            self._ender.join(5.0)

    def _add(self, frame: Frame) -> None:
        try:
            batch = decode_frame(frame.data).batch() if frame.rows else None
        except MalformedFrame as error:
            raise FrameRefused(f"the frame cannot be decoded: {error}") from error
        current = self._round
        if current is None:
            begun_s = time.monotonic()
            current = _Round(frame.producer, frame.epoch, frame.sequence, frame.sequence, begun_s)
            self._round = current
        current.last = max(current.last, frame.sequence)
        if batch is None:
            return
        current.rows += frame.rows
        current.size += len(frame.data)
        for partition, table in tables(batch):
            if not self._is_covered(partition, frame):
                current.parts.setdefault(partition, []).append(table)

    def _is_covered(self, partition: Partition, frame: Frame) -> bool:
        producer = quote(frame.producer, safe="")
        names = self._covered.get((partition.folder, partition.shape), ())
        return any(
            n.producer == producer and n.epoch == frame.epoch and n.first <= frame.sequence <= n.last
            for n in names
        )

    def _end_round(self) -> None:
        current, self._round = self._round, None
        if current is None:
            return
        try:
            erased = erased_from(self._store)
            written = [self._write(current, *part, erased) for part in current.parts.items()]
            # Who was erased while files were written would be in them: that was too late to see them.
            if erased_from(self._store).identity != erased.identity:
                rewrite(self._store, filter(None, written), erased_from(self._store))
        except Exception as error:
            self._failure = f"Parquet files cannot be written: {error}"
            raise SinkUnavailable(self._failure) from error
        assert self._acknowledged is not None
        self._acknowledged(current.epoch, current.last)

    def _write(self, current: _Round, partition: Partition, parts: list[pa.Table], erased: Tombstones) -> str:
        """Write a partition's file; return its path, empty where nothing is left to write."""
        table = kept(pa.concat_tables(parts), erased)
        if not table.num_rows:
            return ""
        producer = quote(current.producer, safe="")
        name = FileName(producer, current.epoch, current.first, current.last, partition.shape)
        path = f"{partition.folder}/{name.text()}"
        self._store.write(path, parquet(table, self._options.compression))
        self._covered.setdefault((partition.folder, partition.shape), set()).add(name)
        return path

    def _end_in_time(self) -> None:
        with self._lock:
            while not self._closed:
                self._expire()
                current = self._round
                if current is None or self._failure:
                    self._lock.wait(_EXPIRE_INTERVAL_S)
                    continue
                left_s = current.begun_s + self._options.round_s - time.monotonic()
                if left_s > 0:
                    self._lock.wait(left_s)
                    continue
                try:
                    self._end_round()
                except SinkUnavailable:
                    # The next frame is told; what is lost here is sent again.
                    continue

    def _expire(self) -> None:
        if self._expire_at_s > time.monotonic():
            return
        self._expire_at_s = time.monotonic() + _EXPIRE_INTERVAL_S
        try:
            expire(self._store, self._options.retention_s, time.time())
        except Exception as error:  # noqa: BLE001 - whatever a store's library raises, it is tried again
            _log.warning("prediction log: old Parquet files cannot be deleted: %s", error)
