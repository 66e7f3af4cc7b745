"""The prediction log of one process: tap, ring, encoder and delivery, and the thread that moves rows."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from gateway.predlog.encoder import Encoder, EncoderOptions
from gateway.predlog.ring import Ring
from gateway.predlog.tap import CLOCKS, PredictionTap
from gateway.predlog.wire import MAX_FRAME_BYTES, Codec, Producer, accounting_frame, frame_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.types import ModelSignature, VersionId
    from gateway.predlog.accounts import Accounts, Totals
    from gateway.predlog.lane import LaneStatus
    from gateway.predlog.policy import Policies
    from gateway.predlog.rows import Accounting, Frame, RowBatch
    from gateway.predlog.tap import Clocks

_log = logging.getLogger(__name__)

ACCOUNT_S: Final = 1.0
"""Every lane is told so often what became of all rows, if that has changed."""

JOIN_S: Final = 5.0
"""Time that the thread has to end beyond what it was given to encode what is left."""


class Target(Protocol):
    """Takes frames for every sink; `predlog.delivery.Delivery`."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the lanes."""

    def start(self) -> None:
        """Begin to deliver; returns at once."""

    def put(self, frame: Frame) -> None:
        """Give a frame to every lane; never blocks."""

    def put_to(self, name: str, frame: Frame) -> None:
        """Give a frame to one lane; never blocks."""

    def status(self) -> Sequence[LaneStatus]:
        """Return every lane's figures; may wait for a disk."""

    def close(self, grace_s: float) -> None:
        """Send what is left for at most so long, keep or drop the rest. Blocking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged, and what the log may take.

    Attributes:
        policies: what is logged of which model.
        linger_s: how long rows are gathered before they travel.
        max_batch_bytes: of a batch of the log, about; below MAX_FRAME_BYTES.
        ring_rows: rows between the request path and the encoder.
        ring_bytes: bytes that they keep alive.
        codec: how payloads are compressed.
        secret: of keyed hashes, 1 to 64 bytes where a policy needs it.
        clocks: what time it is.
    """

    policies: Policies
    linger_s: float = 1.0
    max_batch_bytes: int = 512 << 10
    ring_rows: int = 65_536
    ring_bytes: int = 128 << 20
    codec: Codec = Codec.NONE
    secret: bytes = b""
    clocks: Clocks = CLOCKS


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The producer's side at one moment.

    Attributes:
        totals: rows, their identity included.
        ring_rows: in the ring.
        ring_bytes: that they keep alive.
        sequence: of the last frame.
        encode_s: seconds spent on encoding, of the thread's processor time.
        framed_bytes: bytes of all frames.
        lanes: the sinks, as seen within the last moments.
    """

    totals: Totals
    ring_rows: int
    ring_bytes: int
    sequence: int
    encode_s: float
    framed_bytes: int
    lanes: Sequence[LaneStatus]


class PredictionLog:
    """Owns the way from the request path to the sinks. `tap` is for the event loop.

    Args:
        producer: whose rows they are.
        signature_of: what a version takes and gives; called on the event loop.
        target: takes frames; started and closed with the log.
        accounts: the producer's books, which the target's lanes have theirs of.
        options: what is logged, and bounds.

    Attributes:
        tap: a BatchObserver.
        accounts: the producer's books.
    """

    def __init__(
        self,
        producer: Producer,
        signature_of: Callable[[VersionId], ModelSignature | None],
        target: Target,
        accounts: Accounts,
        options: LogOptions,
    ) -> None:
        self.accounts = accounts
        self._options = options
        self._producer = producer
        self._target = target
        self._clocks = options.clocks
        self._ring = Ring(options.ring_rows, options.ring_bytes)
        self.tap = PredictionTap(self._ring, accounts, options.policies, signature_of, options.clocks)
        self._encoder = Encoder(
            options.policies,
            self.tap.signatures,
            accounts,
            self._frame,
            EncoderOptions(min(options.max_batch_bytes, MAX_FRAME_BYTES // 2), options.secret),
        )
        self.tap.plans = self._encoder.plans
        self._sequence = 0
        self._framed_bytes = 0
        self._encode_s = 0.0
        self._hint = 1.0
        self._lanes: Sequence[LaneStatus] = ()
        self._accounted: dict[str, Accounting] = {}
        self._framed: Accounting | None = None
        self._account_s = 0.0
        self._flush_s: float | None = None
        self._ends_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Begin to encode and to deliver; once."""
        self._target.start()
        self._thread.start()

    def close(self, grace_s: float) -> None:
        """Take no more rows, encode and send what there is for at most so long; blocking, once.

        Call `tap.close` on the event loop before: then no row can come in between.
        Rows that are not encoded by then are counted as dropped, `shutdown`.
        """
        began_s = time.monotonic()
        self._ends_s = began_s + grace_s
        self.tap.close()
        self._ring.wake()
        if self._thread.is_alive():
            self._thread.join(grace_s + JOIN_S)
        self._target.close(max(0.0, self._ends_s - time.monotonic()))

    def hint(self, ratio: float) -> None:
        """Keep no more than this share from now on, as a reader asks that cannot follow; from any thread.

        Args:
            ratio: above 0, at most 1; 1 says nothing, and so does 0, as in the protocol.
        """
        self._hint = ratio if 0 < ratio <= 1 else 1.0

    def status(self) -> LogStatus:
        """Return the figures of this moment; from any thread."""
        return LogStatus(
            self.accounts.totals(),
            self._ring.rows,
            self._ring.nbytes,
            self._sequence,
            self._encode_s,
            self._framed_bytes,
            self._lanes,
        )

    def _run(self) -> None:
        hint = 1.0
        while self._ends_s is None:
            self._await()
            if self._hint != hint:
                hint = self._hint
                self._encoder.hint(hint)
            self._turn()
            if (now_s := time.monotonic()) >= self._account_s:
                self._account_s = now_s + ACCOUNT_S
                self._account()
        self._turn()
        self._account()

    def _await(self) -> None:
        """Wait until there is something to encode, or what was encoded is to travel."""
        if self._flush_s is None:
            if self._ring.wait(ACCOUNT_S):
                self._flush_s = time.monotonic() + self._options.linger_s
            else:
                return
        self._ring.linger(self._flush_s - time.monotonic())

    def _turn(self) -> None:
        began_s = time.thread_time()
        flushed = self._ends_s is not None or (
            self._flush_s is not None and time.monotonic() >= self._flush_s
        )
        try:
            for entries in self._ring.drain(everything=flushed):
                self._encoder.hurry(self._ends_s is not None or self._ring.is_filling)
                if self._ends_s is not None and time.monotonic() > self._ends_s:
                    self._encoder.abandon(entries, "shutdown")
                else:
                    self._encoder.take(entries)
            if flushed:
                self._flush_s = None
                self._encoder.flush()
        except Exception:  # noqa: BLE001 - logged: the log must not end while the gateway serves
            _log.exception("the prediction log stumbled")
        self._encode_s += time.thread_time() - began_s

    def _account(self) -> None:
        """Tell every lane what became of all rows, and look at how it fares."""
        try:
            at_ns = self._clocks.wall_ns()
            for name in self._target.names:
                accounting = self.accounts.lane(name).snapshot(at_ns)
                told = self._accounted.get(name), self._framed
                if not any(before and replace(before, at_ns=at_ns) == accounting for before in told):
                    self._accounted[name] = accounting
                    self._target.put_to(name, accounting_frame(self._producer, self._sequence, accounting))
            self._lanes = self._target.status()
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("the prediction log's accounting stumbled")

    def _frame(self, batch: RowBatch) -> None:
        """Put a batch into the next frame and hand it to every lane."""
        sequence = self._sequence + 1
        accounting = self.accounts.snapshot(self._clocks.wall_ns())
        frame = frame_of(batch, self._producer, sequence, self._options.codec, accounting)
        if len(frame.data) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame.data)} bytes")
        self._sequence = sequence
        self._framed_bytes += len(frame.data)
        self._framed = accounting
        self.accounts.framed(batch.rows)
        self._target.put(frame)
