"""Rows of the prediction log in columns: what the wire carries and the monitor counts."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gateway.core.types import Array

SCHEMA_VERSION: Final = 1
"""Of `protos/prediction_log.proto`."""

NO_ARM: Final = ""
"""The arm of a row whose request followed no route."""

SHADOW_PREFIX: Final = "shadow:"
"""Begins the arm of a mirrored row: `shadow:NAME`. Its key is that of the request it mirrors."""


class Reason(enum.IntEnum):
    """Why a row was kept."""

    SAMPLED = 0
    ERROR = 1
    OUTLIER = 2
    CANARY = 3
    PINNED = 4


class Role(enum.Enum):
    """Where a column comes from."""

    INPUT = "input"
    OUTPUT = "output"
    SEGMENT = "segment"


class ColumnKind(enum.IntEnum):
    """How a column's values are to be read; the numbers are the wire's."""

    NUMERIC = 0
    CATEGORY = 1
    PROJECTION = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One tensor, or what the policy left of it.

    Attributes:
        name: tensor name, perhaps with the part of it (`pixels`, `pixels.mean`); unique within the batch
            together with its role.
        role: where it comes from.
        kind: how to read it.
        values: `[rows, width]`, C-contiguous, read-only. NUMERIC: any integer, bool or float dtype, NaN where
            missing. CATEGORY: int32 codes into `dictionary`, -1 where missing. PROJECTION: float32.
        dictionary: the categories of a CATEGORY column, distinct.
        labels: names of the `width` values; empty: their index.
    """

    name: str
    role: Role
    kind: ColumnKind
    values: Array
    dictionary: tuple[bytes, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Rows of one model version. Every array has one element per row.

    Attributes:
        model: public model name.
        version: the protocol's version number.
        digest: content digest of the version.
        policy: identity of the redaction policy that was applied.
        rows: how many.
        keys: join keys; `b""` cannot be joined.
        key_hashes: hash of the join key; sampling follows it.
        row_indexes: row within its request.
        arrived_ns: wall clock, nanoseconds since the epoch.
        done_ns: likewise, when its batch was complete.
        queue_us: microseconds in queue.
        infer_us: microseconds of the backend's run.
        arms: arm names that occur; NO_ARM among them where rows followed no route.
        arm_codes: indexes into `arms`.
        statuses: error class names that occur; "" for rows answered well.
        status_codes: indexes into `statuses`.
        reasons: values of `Reason`.
        weights: how many rows each stands for, 1/p; at least 1.
        columns: inputs, outputs and segments; none for rows that never ran.
        subject_hashes: hash of whom the row is about, for erasure; 0 where nobody is known.
    """

    model: str
    version: int
    digest: str
    policy: str
    rows: int
    keys: tuple[bytes, ...]
    key_hashes: npt.NDArray[np.uint64]
    row_indexes: npt.NDArray[np.uint32]
    arrived_ns: npt.NDArray[np.int64]
    done_ns: npt.NDArray[np.int64]
    queue_us: npt.NDArray[np.uint32]
    infer_us: npt.NDArray[np.uint32]
    arms: tuple[str, ...]
    arm_codes: npt.NDArray[np.uint8]
    statuses: tuple[str, ...]
    status_codes: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32]
    columns: tuple[Column, ...]
    subject_hashes: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Produced:
    """Rows of requests that the log was offered, sampled or not, since the producer's start."""

    model: str
    version: int
    arm: str
    rows: int


@dataclass(frozen=True, slots=True)
class Accounting:
    """What became of a producer's rows since its start.

    Attributes:
        produced: by model, version and arm.
        dropped: rows by reason (`sampled`, `ring_full`, `credit`, `spool_full`, `corrupt`, `encode_error`,
            `redaction`, `shutdown`).
        at_ns: wall clock up to which it counts.
    """

    produced: tuple[Produced, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    at_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A batch ready to travel: `data` is the whole LogFrame as bytes, the rest is what senders look at.

    Attributes:
        producer: the gateway's name.
        epoch: start of its process; a later one is greater.
        sequence: from 1, one more per frame of the epoch.
        rows: in the payload.
        model: of the payload; empty in a frame that carries accounting alone.
        version: of the payload.
        data: the serialized `LogFrame`.
    """

    producer: str
    epoch: int
    sequence: int
    rows: int
    model: str = ""
    version: int = 0
    data: bytes = field(repr=False, default=b"")
