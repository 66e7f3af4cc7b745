"""The engine: one thread that owns all of the monitor's state, with a bounded inbox.

Frames come in by `offer` from any thread, everything else by `call`; both are done in turn, never at the same
time, so that parts need no locks. Minutes are closed, checkpoints made and retention kept by the same thread.

    engine = Engine([panes, performance, detection], path, settings, on_minute=[detection.evaluate])
    engine.start()
    scores = await engine.call(lambda: detection.scores(key))
    ...
    await engine.aclose()
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.monitor.engine_clock import Minutes
from gateway.monitor.engine_core import Accountant, Core, Offered, Receipt, Repeatable
from gateway.monitor.store.database import connect, forget_set_aside, open_database
from gateway.monitor.store.erasures import Erasures
from gateway.monitor.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gateway.config.monitor_ingest import EngineSettings
    from gateway.monitor.seams import Part

T = TypeVar("T")

MAX_CALLS: Final = 4096
"""Calls that may wait; further ones are refused."""

_TURN_BYTES: Final = 4 << 20
_TURN_FRAMES: Final = 512
_TURN_CALLS: Final = 16
_CHECKPOINT_SHARE: Final = 10.0


class EngineClosed(StoreError):
    """The engine takes no more calls: the monitor ends, or too many wait."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What pages and metrics show; may be read from any thread.

    Attributes:
        counters: of `Core.counters`, and `minute_failed`, `clock_jumps`.
        inbox_bytes: frames that wait.
        inbox_limit: how much may.
        lag_s: age of the oldest frame that waits; 0 where none does.
        checkpoint_age_s: time since the last checkpoint.
        checkpoint_s: how long it took.
        failure: why the last checkpoint failed, for people; empty: it did not.
        stuck: only a restart helps.
    """

    counters: Mapping[str, int]
    inbox_bytes: int
    inbox_limit: int
    lag_s: float
    checkpoint_age_s: float
    checkpoint_s: float
    failure: str
    stuck: bool


class Engine:
    """See the module. `start` before all else, `aclose` (or `close`) at the end.

    Attributes:
        set_aside: where a damaged database was moved to at the start; None: it was sound.
    """

    def __init__(  # noqa: PLR0913 - parts, place and settings; the rest are seams of tests
        self,
        parts: Sequence[Part],
        path: Path,
        settings: EngineSettings,
        *,
        on_minute: Sequence[Callable[[float], object]] = (),
        wall: Callable[[], float] = time.time,
        connector: Callable[[str], sqlite3.Connection] = connect,
        erasures: Erasures | None = None,
    ) -> None:
        """Describe an engine; nothing is opened yet.

        Args:
            parts: owners of the state, in the order they are fed. Those that are Accountant are told of the
                producers' accounts, those that are Repeatable survive a failed checkpoint.
            path: of the database.
            settings: section `engine:`.
            on_minute: called on the engine's thread with the wall clock when a minute has closed and settled,
                in this order, once for several minutes that closed while the engine was busy or the monitor
                was down. What they raise is counted.
            wall: wall clock, seconds since the epoch.
            connector: opens the database; tests inject faults by it.
            erasures: shared with the parts that ask who was erased.
        """
        self._parts = parts
        self._erasures = erasures or Erasures()
        self._path = path
        self._settings = settings
        self._on_minute = tuple(on_minute)
        self._wall = wall
        self._connector = connector
        self._wake = threading.Condition()
        self._inbox: deque[Offered] = deque()
        self._inbox_bytes = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._closing = False
        self._core: Core
        self._thread: threading.Thread | None = None
        self._minutes = Minutes(settings.settle)
        self._applied_bytes = 0
        self._checked_s = 0.0
        self._expired_s = 0.0
        self._checkpoint_s = 0.0
        self._failure = ""
        self._minute_failed = 0
        self.set_aside: Path | None = None

    def start(self) -> None:
        """Open the database, restore the parts, and begin to work; blocks until that is done.

        Raises:
            StoreError: the database cannot be used; the message says what to do.
        """
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="monitor-engine", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise

    def offer(self, data: bytes, done: Callable[[Receipt], None] | None = None) -> bool:
        """Hand a frame over, from any thread, without waiting.

        Args:
            data: a serialized LogFrame.
            done: told what became of it, on the engine's thread; must neither block nor raise.

        Returns:
            False where the inbox is full or the engine ends: the frame was not taken. One frame is always
            taken by an empty inbox.
        """
        with self._wake:
            if self._closing or (self._inbox and self._inbox_bytes + len(data) > self._settings.inbox):
                return False
            self._inbox.append(Offered(data, self._wall(), done))
            self._inbox_bytes += len(data)
            self._wake.notify()
        return True

    @property
    def room(self) -> int:
        """Bytes of the inbox that are free; 0 when the engine ends."""
        return 0 if self._closing else max(0, self._settings.inbox - self._inbox_bytes)

    @property
    def closing(self) -> bool:
        """Whether the engine ends: it takes nothing more."""
        return self._closing

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called on the engine's thread after frames were applied and after checkpoints.

        Returns:
            Call it to end that.
        """
        with self._wake:
            self._listeners = (*self._listeners, listener)

        def end() -> None:
            with self._wake:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return end

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` run on the engine's thread, from any thread; its outcome comes by the future.

        Raises:
            EngineClosed: the engine ends, or MAX_CALLS wait.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as exc:  # noqa: BLE001 - it is the caller's
                future.set_exception(exc)

        with self._wake:
            if self._closing or len(self._calls) >= MAX_CALLS:
                raise EngineClosed("the monitor is ending, or too much is asked of it at a time")
            self._calls.append(run)
            self._wake.notify()
        return future

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the engine's thread; returns and raises what it does, or EngineClosed.

        Cancelling gives up waiting; work that has begun goes on to its end.
        """
        return await asyncio.wrap_future(self.submit(work))

    def position(self, producer: str, epoch: int) -> tuple[int, int]:
        """Return (applied, durable) sequence of an epoch; zeros where it is unknown. Engine thread only."""
        return self._core.positions.at(producer, epoch)

    def positions(self, producer: str) -> dict[int, tuple[int, int]]:
        """Return epoch -> (applied, durable) of a producer. Engine thread only."""
        return self._core.positions.find(producer)

    @property
    def generation(self) -> int:
        """Checkpoints made since the start: what has a Receipt of at most this generation is durable."""
        return self._core.generation

    def checkpoint(self) -> None:
        """Make everything applied so far durable; blocks. Not from the engine's thread.

        Raises:
            StoreError: it could not be written.
            EngineClosed: the engine ends.
        """
        self.submit(self._checkpoint).result()

    async def make_durable(self) -> None:
        """Do what `checkpoint` does, without blocking the event loop; raises the same."""
        await self.call(self._checkpoint)

    async def erase(self, subject_hashes: frozenset[int]) -> int:
        """Delete every record of these subjects in all parts, in memory and on disk; return how many.

        Raises:
            StoreError: it could not be done.
        """
        return await self.call(lambda: self._core.erase(subject_hashes, self._wall()))

    def status(self) -> EngineStatus:
        """Return what the engine is at, from any thread."""
        with self._wake:
            oldest = self._inbox[0].received_s if self._inbox else None
        extra = {"minute_failed": self._minute_failed, "clock_jumps": self._minutes.jumps}
        return EngineStatus(
            {**self._core.counters, **extra, "gaps_forgotten": self._core.positions.forgotten_gaps},
            self._inbox_bytes,
            self._settings.inbox,
            0.0 if oldest is None else max(0.0, self._wall() - oldest),
            time.monotonic() - self._checked_s,
            self._checkpoint_s,
            self._core.stuck or self._failure,
            bool(self._core.stuck),
        )

    def close(self) -> None:
        """Apply what waits, make a last checkpoint and end the thread; blocks. Again: harmless."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    async def aclose(self) -> None:
        """Do what `close` does, without blocking the event loop; not shortened by cancelling."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.close))

    # From here on: the engine's thread.

    def _run(self, ready: Future[None]) -> None:
        try:
            database = open_database(self._path, now_s=self._wall(), connector=self._connector)
        except BaseException as exc:  # noqa: BLE001 - raised again by `start`
            ready.set_exception(exc)
            return
        with database:
            self.set_aside = database.set_aside
            self._core = Core(self._parts, database.connection, self._erasures)
            try:
                self._core.restore()
            except BaseException as exc:  # noqa: BLE001 - likewise
                failure = exc if not isinstance(exc, sqlite3.Error) else StoreError(f"{self._path}: {exc}")
                ready.set_exception(failure)
                return
            self._checked_s = self._expired_s = time.monotonic()
            ready.set_result(None)
            while self._turn():
                pass
            with contextlib.suppress(StoreError):
                self._checkpoint()
            self._notify()

    def _turn(self) -> bool:
        """Do one round of work, or wait for it; return False when the end is asked for and nothing left."""
        frames, calls = self._next()
        if frames:
            self._core.take(frames)
            self._applied_bytes += sum(len(frame.data) for frame in frames)
            self._notify()
        for call in calls:
            call()
        self._close_minutes()
        if self._due():
            with contextlib.suppress(StoreError):
                self._checkpoint()
        return not self._closing or bool(self._inbox or self._calls)

    def _next(self) -> tuple[list[Offered], list[Callable[[], None]]]:
        frames: list[Offered] = []
        calls: list[Callable[[], None]] = []
        size = 0
        with self._wake:
            if not self._inbox and not self._calls and not self._closing:
                self._wake.wait(self._pause_s())
            while self._inbox and len(frames) < _TURN_FRAMES and size < _TURN_BYTES:
                frames.append(self._inbox.popleft())
                size += len(frames[-1].data)
            self._inbox_bytes -= size
            while self._calls and len(calls) < _TURN_CALLS:
                calls.append(self._calls.popleft())
        return frames, calls

    def _pause_s(self) -> float:
        checkpoint_s = self._interval_s() - (time.monotonic() - self._checked_s)
        return max(0.0, min(1.0, checkpoint_s))

    def _interval_s(self) -> float:
        # Checkpoints that take long are made more seldom, so that they never take most of the time.
        return max(self._settings.checkpoint, _CHECKPOINT_SHARE * self._checkpoint_s)

    def _due(self) -> bool:
        age_s = time.monotonic() - self._checked_s
        full = self._applied_bytes >= self._settings.checkpoint_bytes and age_s > self._checkpoint_s
        return full or age_s >= self._interval_s()

    def _checkpoint(self) -> None:
        begun_s = time.monotonic()
        expiring = begun_s - self._expired_s >= self._settings.expire and self._minutes.steady(begun_s)
        self._checked_s = begun_s
        try:
            self._core.checkpoint(expire_s=self._wall() if expiring else None)
        except StoreError as exc:
            self._failure = str(exc)
            raise
        finally:
            self._checkpoint_s = time.monotonic() - begun_s
        self._failure = ""
        self._applied_bytes = 0
        if expiring:
            self._expired_s = begun_s
            with contextlib.suppress(OSError):
                forget_set_aside(self._path, self._wall() - self._erasures.keep_s)
        self._notify()

    def _close_minutes(self) -> None:
        now_s = self._wall()
        if not self._minutes.closed(now_s, time.monotonic()):
            return
        for hook in self._on_minute:
            try:
                hook(now_s)
            except Exception:  # noqa: BLE001 - one part's fault must not stop the others
                self._minute_failed += 1

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()


__all__ = [
    "Accountant",
    "Engine",
    "EngineClosed",
    "EngineStatus",
    "Offered",
    "Receipt",
    "Repeatable",
]
