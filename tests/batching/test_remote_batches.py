"""What a remote model is told of the requests in a batch, and a model of this process is not."""

from gateway.core.types import Batch, TraceContext
from gateway.testing import FakeLoadedModel, settle
from tests.batching.harness import Harness, request

TRACE = TraceContext(trace_id=7, span_id=9, sampled=True)


async def ran(*fields: dict[str, object], remote: bool = True) -> Batch:
    """The one batch that requests with these fields come to."""
    harness = Harness(model=FakeLoadedModel(remote=remote))
    answers = [harness.batcher.submit(request(float(tag), **more)) for tag, more in enumerate(fields)]
    await settle()
    assert all(answer.done for answer in answers)
    (batch,) = harness.model.batches
    assert batch.rows == len(fields)
    await harness.batcher.aclose()
    return batch


async def test_a_lone_request_is_told_whole() -> None:
    """Its id, deadline, priority and trace go along."""
    batch = await ran({"request_id": "r1", "deadline_s": 1005.0, "priority": 2, "trace": TRACE})
    assert (batch.request_id, batch.deadline_s, batch.priority, batch.trace) == ("r1", 1005.0, 2, TRACE)


async def test_a_shared_batch_has_the_latest_deadline_and_nobodys_name() -> None:
    """The batch is worth its time as long as any of its requests waits."""
    batch = await ran(
        {"request_id": "r1", "deadline_s": 1005.0, "priority": 3, "trace": TRACE},
        {"request_id": "r2", "deadline_s": 1009.0, "priority": 2, "trace": TRACE},
    )
    assert (batch.request_id, batch.deadline_s, batch.priority, batch.trace) == ("", 1009.0, 2, None)


async def test_one_request_without_a_deadline_or_priority_decides_for_all() -> None:
    """It waits for ever, and it is not moved back behind the model's default."""
    batch = await ran({"deadline_s": 1005.0, "priority": 3}, {})
    assert (batch.deadline_s, batch.priority) == (None, 0)


async def test_a_model_of_this_process_is_told_nothing() -> None:
    """What no run here uses is not gathered."""
    batch = await ran({"request_id": "r1", "deadline_s": 1005.0, "priority": 2, "trace": TRACE}, remote=False)
    assert (batch.request_id, batch.deadline_s, batch.priority, batch.trace) == ("", None, 0, None)
