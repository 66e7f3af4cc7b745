"""From what was served to batches of rows: sampled, redacted, in columns.

It runs in a thread beside the event loop and holds the interpreter's lock as it does so. Therefore it works
in slices of about SLICE_NS and then sleeps: giving the lock up without sleeping would not do, since whoever
wakes up for it finds it taken again. It sleeps several times as long as it has worked, so that no request
meets many slices: those of a burst would meet all of its work. When that is too slow, it hurries.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.predlog.copies import Copied, plan_of
from gateway.predlog.encoder_chunk import Chunk
from gateway.predlog.gathering import Gathered, Kept, split
from gateway.predlog.join_keys import arms_of
from gateway.predlog.layouts import MAX_LAYOUTS, Layouts, TooFewRows
from gateway.predlog.redaction import MAX_CATEGORY_BYTES, OTHER, unusual
from gateway.predlog.ring import Ran
from gateway.predlog.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, InferRequest, ModelSignature, VersionId
    from gateway.predlog.accounts import Accounts
    from gateway.predlog.copies import CopyPlan
    from gateway.predlog.layouts import Layout
    from gateway.predlog.policy import ModelPolicy, Policies, SegmentRule
    from gateway.predlog.redaction import Vocabulary
    from gateway.predlog.ring import Entry, Rejected
    from gateway.predlog.rows import RowBatch
    from gateway.predlog.sampling import Offered, Picked

_log = logging.getLogger(__name__)

SLICE_NS: Final = 200_000
"""On one core half as long slices cost every request about 2 us more, in switches between threads."""

REST: Final = 12
"""Pauses are so many times as long as what was worked before them."""

LONGEST_PAUSE_S: Final = 20e-3

HURRIED_PAUSE_S: Final = 20e-6

MAX_PLANS: Final = 8
"""A version whose runs differ gets a plan to copy them so often, and then keeps the last."""


class Pace:
    """Keeps slices of work short and far between. One thread.

    Attributes:
        hurried: whether pauses are only long enough for others to take the interpreter.
    """

    def __init__(self) -> None:
        self.hurried = False
        self._since_ns = time.perf_counter_ns()

    def breathe(self) -> None:
        """Let others have the interpreter if this thread has had it for a slice."""
        worked_ns = time.perf_counter_ns() - self._since_ns
        if worked_ns >= SLICE_NS:
            pause_s = HURRIED_PAUSE_S if self.hurried else min(worked_ns * REST / 1e9, LONGEST_PAUSE_S)
            time.sleep(pause_s)
            self._since_ns = time.perf_counter_ns()


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Bounds and secrets.

    Attributes:
        max_batch_bytes: of a batch of the log, about.
        secret: of keyed hashes.
    """

    max_batch_bytes: int
    secret: bytes = b""


class Encoder:
    """Takes entries of the ring, gives batches. One thread.

    Invariant: every row of an entry ends in exactly one batch or is counted as dropped: `sampled`,
    `redaction` (the policy does not fit the model, so that nothing of it may leave) or `encode_error`.

    Args:
        policies: what is logged.
        signatures: of the versions that ran.
        accounts: the producer's books.
        emit: takes finished batches, in the order of their making.
        options: bounds and secrets.

    Attributes:
        plans: of versions whose runs are to be copied from now on.
    """

    def __init__(
        self,
        policies: Policies,
        signatures: Mapping[VersionId, ModelSignature | None],
        accounts: Accounts,
        emit: Callable[[RowBatch], None],
        options: EncoderOptions,
    ) -> None:
        self._policies = policies
        self._layouts = Layouts(policies, signatures, options.secret)
        self.plans: dict[VersionId, CopyPlan] = {}
        self._planned: dict[VersionId, int] = {}
        self._accounts = accounts
        self._emit = emit
        self._most_bytes = options.max_batch_bytes
        self._hint = 1.0
        self._chunks: dict[Layout | tuple[VersionId, bool], Chunk] = {}
        self._gathered: dict[int, Gathered] = {}
        self._models: dict[str, _Model] = {}
        self._pace = Pace()

    def hurry(self, hurried: bool) -> None:
        """Say whether there is more to do than can be done at an easy pace."""
        self._pace.hurried = hurried

    @property
    def nbytes(self) -> int:
        """Bytes gathered and not given yet, about."""
        return sum([gathered.nbytes for gathered in self._gathered.values()])

    def hint(self, ratio: float) -> None:
        """Keep no more than this share of all models' rows; 1 says nothing."""
        self._hint = ratio
        for model in self._models.values():
            model.sampler.hint(ratio)

    def take(self, taken: Sequence[Entry]) -> None:
        """Put entries with others like them, and sample, redact and gather these; never raises."""
        self._pace.breathe()
        entries: list[Ran | Rejected] = []
        for entry in taken:
            if isinstance(entry, Copied):
                self._encode(entry)
            else:
                entries.append(entry)
        if entries:
            self._take_held(entries)

    def _take_held(self, entries: list[Ran | Rejected]) -> None:
        recent = self._layouts.alike(entries)
        if recent is not None:
            self._add(entries, recent.version, recent.layout)
            return
        for entry in entries:
            self._pace.breathe()
            self._take(entry)

    def _take(self, entry: Ran | Rejected) -> None:
        try:
            if isinstance(entry, Ran):
                version, layout = entry.batch.version, self._layouts.of_run(entry)
            else:
                version, layout = entry.version, self._layouts.of_rejected(entry.version)
        except TooFewRows as error:
            _log.error("%s", error)
            self.abandon([entry], "encode_error")
        except Exception:  # noqa: BLE001 - logged and counted: one entry must not end the log
            _log.exception("a batch of the log could not be made sense of")
            self.abandon([entry], "encode_error")
        else:
            if layout is not None and isinstance(entry, Ran):
                self._plan(entry.batch, layout)
            self._add([entry], version, layout)

    def _plan(self, batch: CompletedBatch, layout: Layout) -> None:
        """Have runs like this one copied, if all that is wanted of their requests is copied as well."""
        version = batch.version
        count, policy = self._planned.get(version, 0), self._policies.of(version.model)
        sampling = policy.sampling
        if count >= MAX_PLANS or policy.segments or sampling.pinned or sampling.subject:
            return
        if batch.error is not None or any(member.error for member in batch.members):
            return
        plan = plan_of(batch, layout, sampling.key)
        known = self.plans.get(version)
        if plan is None or (known is not None and known.is_like(plan)):
            return
        if len(self._planned) >= MAX_LAYOUTS:
            self._planned.clear()
            self.plans.clear()
        self._planned[version] = count + 1
        self.plans[version] = plan

    def _add(self, entries: list[Ran | Rejected], version: VersionId, layout: Layout | None) -> None:
        """Put entries of one kind into the chunk of theirs, and encode it when it is worth it."""
        key = layout or (version, isinstance(entries[0], Ran))
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = self._chunks[key] = Chunk(version, layout)
        if chunk.add(entries):
            del self._chunks[key]
            self._encode(chunk)

    def flush(self) -> None:
        """Give everything that there is."""
        chunks, self._chunks = self._chunks, {}
        for chunk in chunks.values():
            self._encode(chunk)
        for group in list(self._gathered):
            self._give(group)

    def abandon(self, entries: Sequence[Entry], reason: str) -> None:
        """Count the rows of entries as dropped, without a look at them."""
        for entry in entries:
            version = entry.batch.version if isinstance(entry, Ran) else entry.version
            if isinstance(entry, Copied):
                arms, counts = entry.arms, entry.offered().rows
            else:
                chunk = Chunk(version, None)
                chunk.add([entry])
                offered = chunk.offered()
                arms, counts = arms_of(offered.requests), offered.rows
            for arm, rows in zip(arms, counts, strict=True):
                self._accounts.produced(version.model, version.number, arm, rows)
            self._accounts.dropped(reason, entry.rows)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(self._policies.of(name))
            model.sampler.hint(self._hint)
        return model

    def _encode(self, chunk: Chunk | Copied) -> None:
        version = chunk.version
        try:
            model = self._model(version.model)
            offered = chunk.offered()
            self._pace.breathe()
            picked = model.sampler.pick(offered, chunk.now_s, model.unusual(chunk, offered))
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("rows of %s could not be sampled", version)
            self.abandon([chunk] if isinstance(chunk, Copied) else chunk.entries, "encode_error")
            return
        for arm, count in picked.produced.items():
            self._accounts.produced(version.model, version.number, arm, count)
        self._accounts.dropped("sampled", picked.left_out)
        left = chunk.rows - picked.left_out
        if chunk.layout is None:
            self._accounts.dropped("redaction", left)
        elif left:
            try:
                self._gather(chunk, chunk.layout, picked, offered)
            except Exception:  # noqa: BLE001 - likewise
                _log.exception("rows of %s could not be encoded", version)
                self._accounts.dropped("encode_error", left)

    def _gather(self, chunk: Chunk | Copied, layout: Layout, picked: Picked, offered: Offered) -> None:
        model = self._models[chunk.version.model]
        gathered = self._gathered.get(layout.group)
        if gathered is None:
            gathered = self._gathered[layout.group] = Gathered(chunk.version, model.policy_id, layout)
        self._pace.breathe()
        kept = Kept(offered, picked, chunk.times(offered))
        rows = kept.rows_among(offered.rows)
        columns: list[Array] = []
        for tensor, vocabulary in zip(layout.tensors, gathered.vocabularies, strict=False):
            self._pace.breathe()
            values = chunk.values(tensor)
            columns += tensor.plan.redact(values if rows is None else values[rows], vocabulary)
        for (segment, admitted), vocabulary in zip(
            model.segments, gathered.vocabularies[len(layout.tensors) :], strict=True
        ):
            codes = _segment_codes(segment, admitted, kept.requests, vocabulary)
            columns.append(codes.repeat(kept.rows)[:, None])
        gathered.add(kept, columns)
        if gathered.nbytes >= self._most_bytes:
            self._give(layout.group)

    def _give(self, group: int) -> None:
        gathered = self._gathered.pop(group)
        given = 0
        try:
            for piece in split(gathered.build(self._pace.breathe), self._most_bytes, gathered.nbytes):
                self._pace.breathe()
                self._emit(piece)
                given += piece.rows
        except Exception:  # noqa: BLE001 - logged and counted: one batch must not end the log
            _log.exception("%d rows could not be put into a frame", gathered.rows - given)
            self._accounts.dropped("encode_error", gathered.rows - given)


class _Model:
    """What is kept for one model."""

    def __init__(self, policy: ModelPolicy) -> None:
        self.policy_id = policy.id()
        self.sampler = Sampler(policy.sampling, time.time_ns())
        self.segments: list[tuple[SegmentRule, set[bytes]]] = [
            (segment, {value.encode() for value in segment.values}) for segment in policy.segments
        ]

    def unusual(self, chunk: Chunk | Copied, offered: Offered) -> list[bool] | None:
        """Return for each request whether it holds a value that was declared unusual; None: none does."""
        if chunk.layout is None or not chunk.layout.watched:
            return None
        marks = np.zeros(chunk.rows, np.bool_)
        for tensor, outlier in chunk.layout.watched:
            marks |= unusual(chunk.values(tensor), outlier.low, outlier.high)
        if not marks.any():
            return None
        owners = np.arange(len(offered.rows)).repeat(offered.rows)
        counts: list[int] = np.bincount(owners[marks], minlength=len(offered.rows)).tolist()
        return [count > 0 for count in counts]


def _segment_codes(
    segment: SegmentRule, admitted: set[bytes], requests: list[InferRequest], vocabulary: Vocabulary
) -> Array:
    """Return the code of each request's segment; values that are not admitted are OTHER, absent ones -1."""
    codes: list[int] = []
    for request in requests:
        value = segment.source.value(request)[:MAX_CATEGORY_BYTES]
        if not value:
            codes.append(-1)
            continue
        if value not in admitted:
            if segment.values or len(admitted) >= segment.max_values:
                value = OTHER
            else:
                admitted.add(value)
        codes.append(vocabulary.code(value))
    return np.array(codes, np.int32)
