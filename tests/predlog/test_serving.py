"""The log on a real batcher: every request is in it once, whatever became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.core.errors import GatewayError
from gateway.core.options import BatchingOptions
from gateway.core.types import Datatype, ModelSignature, TensorSpec
from gateway.testing import FakeLoadedModel, gather_results, identity_signature, infer_request, settle
from tests.batching.harness import Harness
from tests.batching.harness import request as asked
from tests.predlog.scene import Scene, column

if TYPE_CHECKING:
    from gateway.predlog.rows import RowBatch


def harness(scene: Scene, model: FakeLoadedModel, **options: int) -> Harness:
    return Harness(model, BatchingOptions(max_batch_rows=4, **options), observers=(scene.tap,))  # type: ignore[arg-type]


def outcomes(batches: list[RowBatch]) -> Counter[tuple[bytes, int, str]]:
    """How often each row of each key is there, with its status."""
    return Counter(
        (key, int(row), batch.statuses[status])
        for batch in batches
        for key, row, status in zip(batch.keys, batch.row_indexes, batch.status_codes, strict=True)
    )


async def test_answered_requests_are_logged_with_their_values() -> None:
    """What the model got and gave is in the log, row by row."""
    scene = Scene(signature=identity_signature())
    parts = harness(scene, FakeLoadedModel())
    pendings = [parts.batcher.submit(asked(float(n), n + 0.5, request_id=f"r{n}")) for n in range(5)]
    await gather_results(pendings)
    found = scene.end()
    rows = {
        (key, int(row)): (x, y)
        for batch in found
        for key, row, x, y in zip(
            batch.keys,
            batch.row_indexes,
            column(batch, "x").values.ravel(),
            column(batch, "y").values.ravel(),
            strict=True,
        )
    }
    assert rows == {(b"r%d" % n, row): (n + row / 2, n + row / 2) for n in range(5) for row in range(2)}


async def test_a_poisoned_batch_is_logged_once() -> None:
    """The batch that failed and the parts that found the culprit are no further rows."""
    scene = Scene(signature=identity_signature())
    parts = harness(scene, FakeLoadedModel(held=True, poison=2.0))
    pendings = [parts.batcher.submit(asked(float(n), request_id=f"r{n}")) for n in range(4)]
    await settle()
    parts.model.release()
    results = await gather_results(pendings)
    assert isinstance(results[2], GatewayError)
    expected = {(b"r%d" % n, 0, "BackendError" if n == 2 else ""): 1 for n in range(4)}
    assert outcomes(scene.end()) == expected
    assert scene.accounts.totals().offered == 4


async def test_cancelled_and_refused_requests_are_rows_too() -> None:
    """A client that goes, in queue or in a run, and a refusal at a full queue are one row each."""
    scene = Scene(signature=identity_signature())
    parts = harness(scene, FakeLoadedModel(held=True), max_queue_rows=2)
    running = parts.batcher.submit(asked(1.0, request_id="running"))
    await settle()
    queued = [parts.batcher.submit(asked(1.0, request_id=f"queued{n}")) for n in range(2)]
    with pytest.raises(GatewayError):
        parts.batcher.submit(asked(1.0, request_id="refused"))
    running.cancel()
    queued[0].cancel()
    await settle()
    parts.model.release()
    await gather_results([running, *queued])
    assert outcomes(scene.end()) == {
        (b"running", 0, "Cancelled"): 1,
        (b"queued0", 0, "Cancelled"): 1,
        (b"queued1", 0, ""): 1,
        (b"refused", 0, "Overloaded"): 1,
    }


async def test_streams_are_rows_without_outputs() -> None:
    """A decoupled request is one run: its inputs are logged, its many answers are not."""
    signature = ModelSignature(
        (TensorSpec("x", Datatype.FP32, (-1, 1)),), (TensorSpec("y", Datatype.FP32, (-1, 1)),), decoupled=True
    )
    scene = Scene(signature=signature)
    parts = harness(scene, FakeLoadedModel(signature))
    stream = parts.batcher.stream(infer_request(np.ones((3, 1), np.float32), request_id="s"))
    assert len([response async for response in stream]) >= 3
    await asyncio.sleep(0)
    batches = scene.end()
    assert {key for batch in batches for key in batch.keys} == {b"s"}
    assert [c.name for batch in batches for c in batch.columns] == ["x"]
    assert scene.accounts.totals().waiting == 0


async def test_rows_of_a_request_in_several_batches_keep_their_places() -> None:
    """A label is joined by the row within the request, whichever batch it ran in."""
    scene = Scene(signature=identity_signature())
    parts = harness(scene, FakeLoadedModel(), split_large=True)
    await gather_results([parts.batcher.submit(asked(*map(float, range(10)), request_id="long"))])
    found = scene.end()
    rows = {
        int(row): x
        for batch in found
        for row, x in zip(batch.row_indexes, column(batch, "x").values.ravel(), strict=True)
    }
    assert rows == {row: float(row) for row in range(10)}
