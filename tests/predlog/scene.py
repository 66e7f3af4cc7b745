"""A prediction log whose frames are kept, and batches to offer it, for the tests of this folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.core.assigned import Assigned
from gateway.core.events import BatchMember, CloseReason, CompletedBatch
from gateway.core.evidence import RoutePlan
from gateway.core.rollout import Assignment, HashSpec
from gateway.core.types import CPU, InferRequest, VersionId
from gateway.predlog.accounts import Accounts
from gateway.predlog.policy import ModelPolicy, Policies
from gateway.predlog.pump import LogOptions, PredictionLog
from gateway.predlog.wire import DecodedFrame, Producer, decode_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.errors import GatewayError
    from gateway.core.types import Array, ModelSignature
    from gateway.predlog.lane import LaneStatus
    from gateway.predlog.rows import Column, Frame, RowBatch

VERSION = VersionId("fake", 3, "digest")
PRODUCER = Producer("here", 7)
PLAN = RoutePlan(model="fake", arms=(), assign=Assignment(HashSpec("salt")))


class KeptFrames:
    """A target with one lane that keeps what it is given."""

    names = ("kept",)

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.started = self.closed = 0

    def start(self) -> None:
        self.started += 1

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)

    def put_to(self, name: str, frame: Frame) -> None:
        assert name in self.names
        self.frames.append(frame)

    def close(self, grace_s: float) -> None:
        assert grace_s >= 0
        self.closed += 1

    def status(self) -> Sequence[LaneStatus]:
        return ()

    def decoded(self) -> list[DecodedFrame]:
        return [decode_frame(frame.data) for frame in self.frames]

    def batches(self) -> list[RowBatch]:
        found = [frame.batch() for frame in self.decoded()]
        return [batch for batch in found if batch is not None]

    def bytes(self) -> bytes:
        """Everything that left, in one piece."""
        return b"".join(frame.data for frame in self.frames)


class Scene:
    """One log; everything is in `kept` once `end` was called."""

    def __init__(
        self,
        policy: ModelPolicy | None = None,
        signature: ModelSignature | None = None,
        **options: Any,
    ) -> None:
        self._started = False
        self.kept = KeptFrames()
        self.accounts = Accounts()
        policies = Policies(policy or ModelPolicy())
        self.log = PredictionLog(
            PRODUCER,
            lambda _: signature,
            self.kept,
            self.accounts,
            LogOptions(policies=policies, **{"linger_s": 0.0, **options}),
        )
        self.tap = self.log.tap

    def copy_runs(self) -> None:
        """Begin to encode, with one run of one row, and go on when runs like it are copied."""
        self.start()
        self.tap.on_batch(batch([request("first")]))
        while VERSION not in self.tap.plans:
            time.sleep(0.001)

    def wait_for_rows(self, count: int) -> None:
        """Go on when so many rows are framed."""
        while self.accounts.totals().framed < count:
            time.sleep(0.001)

    def start(self) -> None:
        """Begin to encode; `end` does so otherwise."""
        self.log.start()
        self._started = True

    def end(self) -> list[RowBatch]:
        """Encode everything; return the batches."""
        if not self._started:
            self.start()
        self.tap.close()
        self.log.close(60.0)
        return self.kept.batches()


def request(key: str = "", arm: str = "", **fields: Any) -> InferRequest:
    """A request without tensors: what is logged of those is in the batch."""
    assigned = Assigned(PLAN, arm, 0, True, False) if arm else None
    return InferRequest(
        model_name="fake",
        request_id=key,
        inputs=(),
        assigned=assigned,
        arrived_s=fields.pop("arrived_s", time.monotonic()),
        **fields,
    )


def batch(
    requests: Sequence[InferRequest],
    inputs: Mapping[str, Array] | None = None,
    outputs: Mapping[str, Array] | None = None,
    *,
    rows: Sequence[int] | None = None,
    errors: Mapping[int, GatewayError] | None = None,
    error: GatewayError | None = None,
) -> CompletedBatch:
    """A batch of these requests, a row for each unless said otherwise; by default `x` in and `y` out."""
    counts = list(rows or [1] * len(requests))
    starts = np.cumsum([0, *counts]).tolist()
    total = starts[-1]
    failed = errors or {}
    members = [BatchMember(r, starts[i], counts[i], 5_000_000, failed.get(i)) for i, r in enumerate(requests)]
    if inputs is None:
        inputs = {"x": np.arange(total * 2, dtype=np.float32).reshape(total, 2)}
    if outputs is None and error is None:
        outputs = {"y": np.arange(total, dtype=np.float64).reshape(total, 1)}
    return CompletedBatch(
        VERSION,
        CPU,
        members,
        total,
        total,
        inputs,
        outputs,
        CloseReason.FULL,
        0.0,
        compute_infer_ns=3_000_000,
        error=error,
    )


def column(batch: RowBatch, name: str) -> Column:
    """The column of that name."""
    return next(column for column in batch.columns if column.name == name)
