"""One sink's way out: frames in, kept until the sink says that they are durable, whatever happens to it.

Two threads. The sender opens the sink, hands it frames and waits when it is away; it may block in the sink.
The keeper owns memory's bound: it moves frames to the spool while the sink is away or memory is full,
flushes, and writes down how far the sink is. Both work on the `FrameLog` under one lock, which is never held
while the sink is called; `put` and the sink's acknowledgements do without it and so never wait for the disk.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.predlog.lane_books import CREDIT, ENCODE_ERROR, SHUTDOWN, SPOOL_FULL, LaneBooks
from gateway.predlog.lane_errors import FrameRefused, NoCredit
from gateway.predlog.lane_log import FrameLog
from gateway.predlog.lane_options import LaneOptions as LaneOptions  # noqa: PLC0414 - one of this module's names
from gateway.predlog.lane_options import LaneStatus as LaneStatus  # noqa: PLC0414 - likewise
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.spool import Spool

if TYPE_CHECKING:
    from gateway.predlog.lane_books import LaneAccounts
    from gateway.predlog.rows import Frame
    from gateway.predlog.seams import FrameSink
    from gateway.predlog.spool.disk import SpoolDisk

_log = logging.getLogger(__name__)

_KEEP_INTERVAL_S: Final = 1.0
_SPOOL_RETRY_S: Final = 5.0
_EXPIRE_INTERVAL_S: Final = 60.0
_READ_TRIES: Final = 3
"""The rest of a segment that cannot be read so often is given up."""
_CLOSE_MARGIN_S: Final = 10.0
"""Beyond the grace: a sink's `open` and `close` may each take a few seconds."""


class Lane:
    """Delivers frames to one sink, at least once and in order. `put` and `status` are for any thread."""

    def __init__(
        self,
        sink: FrameSink,
        options: LaneOptions,
        accounts: LaneAccounts,
        disk: SpoolDisk | None = None,
    ) -> None:
        self.name = sink.name
        self._sink = sink
        self._options = options
        self._disk: SpoolDisk = disk or LocalSpoolDisk()
        self._books = LaneBooks(options.epoch, accounts)
        self._log = FrameLog(options.memory_bytes, self._books)
        self._lock = threading.Lock()
        # Guards the three below and nothing that takes time.
        self._doors = threading.Lock()
        self._inbox: deque[Frame] = deque()
        self._inbox_bytes = 0
        self._acks: dict[int, int] = {}
        self._closed = False
        self._ending = threading.Event()
        self._sender_ended = threading.Event()
        self._send_wake = threading.Event()
        self._keep_wake = threading.Event()
        self._deadline_s = float("inf")
        self._connected = False
        self._reopen = False
        self._opens = 0
        self._failures = 0
        self._read_failures = 0
        self._spool_failed = options.spool_directory is not None
        self._spool_retry_s = float("-inf")
        self._found_spool: Spool | None = None
        self._spool_tried = threading.Event()
        self._expire_s = float("-inf")
        self._error = ""
        self._random = random.Random()  # noqa: S311 - spreads retries
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to deliver; once."""
        for role, work in (("send", self._send_all), ("keep", self._keep_all)):
            thread = threading.Thread(target=work, name=f"predlog-{self.name}-{role}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def put(self, frame: Frame) -> None:
        """Take a frame for delivery, or count its rows as dropped where there is no room. Never blocks."""
        size = len(frame.data)
        with self._doors:
            self._books.put += frame.rows
            closed = self._closed
            full = self._inbox_bytes + size + self._log.memory_bytes > 2 * self._options.memory_bytes
            if not closed and not full:
                self._inbox.append(frame)
                self._inbox_bytes += size
            else:
                no_room = SPOOL_FULL if self._options.spool_directory is not None else CREDIT
                self._books.dropped(frame.epoch, SHUTDOWN if closed else no_room, frame.rows)
        self._send_wake.set()
        if not self._connected or self._inbox_bytes + self._log.memory_bytes > self._options.memory_bytes:
            self._keep_wake.set()

    def end(self, grace_s: float) -> None:
        """Take nothing more, and give what is there so long to be sent. Returns at once; `join` waits."""
        with self._doors:
            self._closed = True
        self._deadline_s = time.monotonic() + grace_s
        self._ending.set()
        self._send_wake.set()
        self._keep_wake.set()

    def join(self) -> None:
        """Wait until it has ended: what was not acknowledged is in the spool, or dropped as `shutdown`."""
        for thread in self._threads:
            thread.join(max(self._deadline_s - time.monotonic(), 0) + _CLOSE_MARGIN_S)
            if thread.is_alive():
                _log.warning("prediction log: %s does not end; left behind", thread.name)
                self._sender_ended.set()
                self._keep_wake.set()
        with self._lock:
            self._take_in()
            self._keep_rest()

    def status(self) -> LaneStatus:
        """Return the figures of this moment; may wait for the disk, briefly."""
        with self._lock, self._doors:
            log, books, spooled = self._log, self._books, self._log.spooled()
            return LaneStatus(
                name=self.name,
                connected=self._connected,
                put=books.put,
                applied=books.own_applied,
                dropped=dict(books.own_dropped),
                in_flight_rows=log.in_flight_rows,
                memory_rows=log.memory_rows + sum(frame.rows for frame in self._inbox),
                memory_bytes=log.memory_bytes + self._inbox_bytes,
                spooled_rows=spooled.own,
                spooled_bytes=log.spool.size_bytes if log.spool is not None else 0,
                recovered_rows=books.recovered,
                earlier_applied=books.earlier_applied,
                earlier_spooled=spooled.earlier,
                earlier_dropped=dict(books.earlier_dropped),
                acknowledged=dict(log.acknowledged),
                opens=self._opens,
                spool_failed=self._spool_failed,
                sync_failures=log.spool.sync_failures if log.spool is not None else 0,
                last_error=self._error,
            )

    # Doors.

    def _acknowledged(self, epoch: int, sequence: int) -> None:
        with self._doors:
            self._acks[epoch] = max(sequence, self._acks.get(epoch, 0))
        self._send_wake.set()

    def _take_in(self) -> None:
        """Move what came in to the log; under the lock."""
        with self._doors:
            frames, self._inbox = self._inbox, deque()
            self._inbox_bytes = 0
            acks, self._acks = self._acks, {}
            for frame in frames:
                self._log.take(frame)
        if acks:
            # Only what acknowledges is back: one that opens and breaks is waited for longer and longer.
            self._failures = 0
            self._log.settle(acks)

    # Sender.

    def _send_all(self) -> None:
        self._spool_tried.wait()
        try:
            while not self._is_done():
                ending = self._ending.is_set()
                if self._ready():
                    self._send_next()
                elif ending:
                    # Nobody is there: what is left is for the spool.
                    break
        except Exception:  # noqa: BLE001 - a defect ends this lane, and nothing else
            _log.exception("prediction log: the sender of %s has ended", self.name)
        finally:
            self._close_sink()

    def _is_done(self) -> bool:
        if not self._ending.is_set():
            return False
        return time.monotonic() >= self._deadline_s or (self._connected and self._is_all_sent())

    def _is_all_sent(self) -> bool:
        with self._lock:
            self._take_in()
            return self._log.is_all_sent()

    def _ready(self) -> bool:
        """Return whether the sink is open; try once, and pause, where it is not."""
        if self._connected and not self._reopen:
            return True
        with self._lock:
            self._connected = self._reopen = False
            self._log.rewind()
            self._attach_found()
        try:
            self._sink.open(self._acknowledged)
        except Exception as error:  # noqa: BLE001 - whatever a sink's library raises, it is away
            self._away(error)
            return False
        self._opens += 1
        self._connected = True
        return True

    def _away(self, error: Exception) -> None:
        with self._lock:
            self._connected = False
            self._log.rewind()
        if not self._failures:
            _log.warning("prediction log: %s is away: %s", self.name, error)
        self._error = f"{type(error).__name__}: {error}"[:300]
        self._failures += 1
        self._keep_wake.set()
        longest_s = min(
            self._options.backoff_s * 2 ** min(self._failures - 1, 16), self._options.max_backoff_s
        )
        self._ending.wait(longest_s * self._random.uniform(0.5, 1.0))

    def _send_next(self) -> None:
        self._send_wake.clear()
        frame = self._next()
        if frame is None:
            # `end` sets the two in this order: it cannot be missed.
            if not self._ending.is_set():
                self._send_wake.wait()
            return
        try:
            while not self._offered(frame):
                if time.monotonic() >= self._deadline_s:
                    return
        except FrameRefused as error:
            self._error = f"{type(error).__name__}: {error}"[:300]
            with self._lock:
                self._log.refuse(frame, ENCODE_ERROR)
        except Exception as error:  # noqa: BLE001 - whatever a sink's library raises, it is away
            self._away(error)

    def _offered(self, frame: Frame) -> bool:
        try:
            self._sink.send(frame)
        except NoCredit:
            with self._lock:
                self._take_in()
            return False
        return True

    def _next(self) -> Frame | None:
        with self._lock:
            self._take_in()
            try:
                frame = self._log.next()
            except OSError as error:
                self._cannot_read(error)
                return None
            self._read_failures = 0
            return frame

    def _cannot_read(self, error: OSError) -> None:
        self._spool_trouble(error)
        self._read_failures += 1
        if self._read_failures >= _READ_TRIES:
            self._read_failures = 0
            self._log.skip()
        self._send_wake.set()

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 - it is being let go
            _log.warning("prediction log: %s did not close well: %s", self.name, error)
        self._connected = False
        self._sender_ended.set()
        self._keep_wake.set()

    # Keeper.

    def _keep_all(self) -> None:
        try:
            while not self._sender_ended.is_set():
                with self._lock:
                    self._take_in()
                    self._keep(time.monotonic(), time.time_ns())
                self._spool_tried.set()
                self._keep_wake.wait(_KEEP_INTERVAL_S)
                self._keep_wake.clear()
        except Exception:  # noqa: BLE001 - a defect ends this lane, and nothing else
            _log.exception("prediction log: the keeper of %s has ended", self.name)
        finally:
            self._spool_tried.set()

    def _keep(self, now_s: float, time_ns: int) -> None:
        try:
            if now_s >= self._spool_retry_s:
                self._find_spool()
                self._spill(now_s, time_ns)
        except OSError as error:
            self._spool_trouble(error)
        if now_s >= self._expire_s:
            self._expire_s = now_s + _EXPIRE_INTERVAL_S
            self._log.expire(time_ns)
        self._log.shed()

    def _spill(self, now_s: float, time_ns: int) -> None:
        spool = self._log.spool
        if spool is None:
            return
        if self._log.is_over() or not self._connected:
            self._log.spill(now_s, time_ns, everything=not self._connected)
        spool.sync(now_s)
        spool.checkpoint()
        self._spool_failed = False

    def _find_spool(self) -> None:
        """Open the spool; it is taken into use when nothing is in flight."""
        directory = self._options.spool_directory
        if directory is None or self._log.spool is not None or self._found_spool is not None:
            return
        spool = Spool(directory, self._options.spool, self._disk)
        spool.open()
        self._found_spool = spool
        if self._connected:
            self._reopen = True
            self._send_wake.set()
        else:
            self._attach_found()

    def _attach_found(self) -> None:
        if self._found_spool is not None:
            self._log.attach(self._found_spool)
            self._found_spool = None

    def _keep_rest(self) -> None:
        """Write to the spool what was not acknowledged, at the end."""
        self._log.rewind()
        self._attach_found()
        spool = self._log.spool
        if spool is not None:
            try:
                self._log.spill(time.monotonic(), time.time_ns(), everything=True)
            except OSError as error:
                self._spool_trouble(error)
            spool.close()
        self._log.abandon()

    def _spool_trouble(self, error: OSError) -> None:
        if not self._spool_failed or self._spool_retry_s == float("-inf"):
            _log.error("prediction log: the spool of %s cannot be used, memory only: %s", self.name, error)
        self._error = f"spool: {error}"[:300]
        self._spool_failed = True
        self._spool_retry_s = time.monotonic() + _SPOOL_RETRY_S
