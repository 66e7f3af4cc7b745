"""Frames for tests of delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gateway.predlog.rows import NO_ARM, Accounting, Column, ColumnKind, Reason, Role, RowBatch
from gateway.predlog.wire import Producer, accounting_frame, frame_of

if TYPE_CHECKING:
    from gateway.predlog.rows import Frame

HOUR_NS = 3_600 * 10**9
START_NS = 480_000 * HOUR_NS
EPOCH = 7


def batch(rows: int, *, model: str = "loans", arrived_ns: int = START_NS, subject: int = 0) -> RowBatch:
    """Return rows of a number, a vector and a category."""
    numbers = np.arange(rows, dtype="<f4").reshape(rows, 1)
    return RowBatch(
        model=model,
        version=3,
        digest="sha256:ab",
        policy="none",
        rows=rows,
        keys=tuple(b"key-%d" % i for i in range(rows)),
        key_hashes=np.arange(rows, dtype=np.uint64),
        row_indexes=np.zeros(rows, np.uint32),
        arrived_ns=np.full(rows, arrived_ns, np.int64),
        done_ns=np.full(rows, arrived_ns + 1_000, np.int64),
        queue_us=np.zeros(rows, np.uint32),
        infer_us=np.zeros(rows, np.uint32),
        arms=(NO_ARM,),
        arm_codes=np.zeros(rows, np.uint8),
        statuses=("",),
        status_codes=np.zeros(rows, np.uint8),
        reasons=np.full(rows, Reason.SAMPLED, np.uint8),
        weights=np.ones(rows, np.float32),
        columns=(
            Column("age", Role.INPUT, ColumnKind.NUMERIC, numbers),
            Column("pair", Role.INPUT, ColumnKind.NUMERIC, np.hstack([numbers, numbers + 1])),
            Column(
                "job",
                Role.INPUT,
                ColumnKind.CATEGORY,
                np.full((rows, 1), -1, np.int32),
                dictionary=(b"cook",),
            ),
            Column("score", Role.OUTPUT, ColumnKind.NUMERIC, numbers / 10),
        ),
        subject_hashes=np.full(rows, subject, np.uint64),
    )


def frame(
    sequence: int, rows: int = 2, *, epoch: int = EPOCH, producer: str = "gw", **of_batch: int | str
) -> Frame:
    """Return a frame that can be decoded."""
    made = batch(rows, **of_batch)  # type: ignore[arg-type]
    return frame_of(made, Producer(producer, epoch), sequence)


def accounting(sequence: int, *, epoch: int = EPOCH) -> Frame:
    """Return a frame of accounting alone."""
    return accounting_frame(Producer("gw", epoch), sequence, Accounting(at_ns=START_NS))
