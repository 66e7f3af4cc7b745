"""Rows of the car_loan data set as a gateway logs them, at times of a test's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime
import pyarrow.parquet as pq

from gateway.predlog.rows import Accounting, Column, ColumnKind, Produced, Role, RowBatch
from gateway.predlog.wire import Producer, frame_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.predlog.rows import Frame

ROOT: Final = Path(__file__).resolve().parents[2]
DRIFT_FROM: Final = 25_000
NUMBERS: Final = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORIES: Final = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")


@cache
def _later() -> dict[str, npt.NDArray[np.generic]]:
    table = pq.read_table(ROOT / "build" / "car_loan" / "later.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def repaid() -> npt.NDArray[np.int64]:
    """Return `[50000]`: whether each loan was repaid."""
    return _later()["repaid"].astype(np.int64)


@cache
def scores(version: int = 1) -> npt.NDArray[np.float32]:
    """Return `[50000, 2]` probabilities of a version."""
    session = onnxruntime.InferenceSession(ROOT / "models" / "car_loan" / str(version) / "model.onnx")
    later = _later()
    feed = {name: later[name].astype(np.float32).reshape(-1, 1) for name in NUMBERS}
    feed |= {name: later[name].astype(object).reshape(-1, 1) for name in CATEGORIES}
    found: npt.NDArray[np.float32] = session.run(["probabilities"], feed)[0]
    return found


def batch(
    rows: npt.NDArray[np.int64], at_s: float, *, version: int = 1, arm: str = "", subject: int = 0
) -> RowBatch:
    """Return these rows of the data as done at `at_s`; their keys are `row-NUMBER`."""
    later, count = _later(), len(rows)
    columns = [
        Column(name, Role.INPUT, ColumnKind.NUMERIC, later[name][rows].astype(np.float32).reshape(-1, 1))
        for name in NUMBERS
    ]
    for name in CATEGORIES:
        values = [str(value).encode() for value in later[name][rows]]
        dictionary = tuple(dict.fromkeys(values))
        codes = np.array([dictionary.index(value) for value in values], np.int32).reshape(-1, 1)
        columns.append(Column(name, Role.INPUT, ColumnKind.CATEGORY, codes, dictionary))
    probabilities = np.ascontiguousarray(scores(version)[rows])
    columns.append(Column("probabilities", Role.OUTPUT, ColumnKind.NUMERIC, probabilities))
    done = np.full(count, int(at_s * 1e9), np.int64)
    zeros = np.zeros(count, np.uint8)
    return RowBatch(
        model="car_loan",
        version=version,
        digest=f"digest-{version}",
        policy="test",
        rows=count,
        keys=tuple(f"row-{row}".encode() for row in rows.tolist()),
        key_hashes=rows.astype(np.uint64) + 1,
        row_indexes=np.zeros(count, np.uint32),
        arrived_ns=done - 1_000_000,
        done_ns=done,
        queue_us=np.full(count, 100, np.uint32),
        infer_us=np.full(count, 200, np.uint32),
        arms=(arm,),
        arm_codes=zeros,
        statuses=("",),
        status_codes=zeros,
        reasons=zeros,
        weights=np.ones(count, np.float32),
        columns=tuple(columns),
        subject_hashes=np.full(count, subject, np.uint64),
    )


class Log:
    """One gateway's log: numbers its frames and keeps its books."""

    def __init__(self, producer: str = "gateway-1", epoch: int = 1) -> None:
        self._producer = Producer(producer, epoch)
        self._sequence = 0
        self._produced: dict[tuple[int, str], int] = {}

    def frame(self, batch: RowBatch) -> Frame:
        """Return the next frame."""
        self._sequence += 1
        key = (batch.version, batch.arms[0])
        self._produced[key] = self._produced.get(key, 0) + batch.rows
        books = tuple(
            Produced(batch.model, version, arm, rows) for (version, arm), rows in self._produced.items()
        )
        at_ns = int(batch.done_ns.max())
        return frame_of(batch, self._producer, self._sequence, accounting=Accounting(books, (), at_ns))
