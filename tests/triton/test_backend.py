"""The Triton backend on a real tritonserver."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.backends.triton.connection import TritonConnection
from gateway.backends.triton.options import Batching
from gateway.backends.triton.segments import PREFIX
from gateway.backends.triton.versions import Versions
from gateway.core.errors import BackendError, GatewayError, InvalidRequest
from gateway.core.remote import Address, FleetOptions
from gateway.core.types import Batch, Datatype
from tests.backends.triton.fleets import Scene, fleet_of
from tests.triton import models
from tests.triton.server import TritonServer, triton

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.backends.remote.connection import QueueReport
    from gateway.backends.triton.model import TritonModel
    from gateway.core.types import Array

COLUMNS = 80_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    x, y = models.Tensor("x", "FP32", [COLUMNS]), models.Tensor("y", "FP32", [COLUMNS])
    queue = models.dynamic(0.0005, preferred=(4, 8))
    repository = models.write(
        tmp_path_factory.mktemp("repository"),
        {
            "large": models.Model(script="identity", inputs=[x], outputs=[y], files={2: None}),
            "queued": models.identity("FP32", max_batch_size=8, more=[queue]),
            "repeat": models.repeat(),
            "sums": models.accumulator(),
        },
    )
    with triton(repository) as server:
        yield server


@pytest.fixture
async def scene(server: TritonServer) -> AsyncIterator[Scene]:
    server.control.unlink(missing_ok=True)
    if not server.running:
        server.start()
    async with fleet_of(address_of(server), probe_interval_s=0.1) as scene:
        yield scene


def address_of(server: TritonServer) -> Address:
    return Address("127.0.0.1", server.grpc_port)


def batch(x: Array, **fields: Any) -> Batch:
    return Batch({"x": x}, len(x), ("y",), **fields)


def large(rows: int, start: float = 0.0) -> Array:
    values = np.arange(rows * COLUMNS, dtype=np.float32).reshape(rows, COLUMNS)
    return values + np.float32(start)


@pytest.mark.parametrize("datatype", Datatype)
async def test_every_datatype_comes_back(triton_zoo: TritonServer, datatype: Datatype) -> None:
    """With its values, as rows of any length."""
    async with fleet_of(address_of(triton_zoo)) as scene:
        found = await scene.load(model=f"identity_{datatype.value.lower()}")
        if datatype is Datatype.BYTES:
            x = np.array([[b"a", b"", b"\x00\xff"], [b"c\x00", b"\xc3\xa4", b"x" * 5000]], object)
        else:
            x = np.array([[0, 1, 0], [1, 1, 0]]).astype(datatype.dtype)
        y = (await found.infer(batch(x))).outputs["y"]
    assert y.dtype == datatype.dtype
    np.testing.assert_array_equal(y, x)
    assert found.signature.inputs[0].datatype is datatype


async def test_what_triton_says_of_a_model(scene: Scene) -> None:
    """Batching, delay and preferred sizes are its configuration's."""
    facts = (await scene.load(model="queued")).served.facts
    assert (facts.max_batch_size, facts.dynamic_batching, facts.preferred_rows) == (8, True, (4, 8))
    assert (facts.delay_s, facts.platform, facts.whose_batches) == (0.0005, "python", Batching.AUTO)


async def test_its_refusals_are_the_requests_fault(scene: Scene) -> None:
    """In its words, with the public name."""
    found = await scene.load(model="queued")
    with pytest.raises(InvalidRequest, match=r"batch-size must be <= 8 for 'digits'"):
        await found.infer(batch(np.zeros((9, 2), np.float32)))


async def test_a_model_that_fails_says_why(server: TritonServer, scene: Scene) -> None:
    """It is the backend's error, as a model's of this process."""
    found = await scene.load(model="queued")
    server.control.write_text('{"error_share": 1.0}')
    with pytest.raises(BackendError, match=r"this error at <path> on <address>$"):
        await found.infer(batch(np.zeros((1, 2), np.float32)))


async def test_large_tensors_share_memory(server: TritonServer, scene: Scene) -> None:
    """Both ways, run after run, and again after a restart; nothing is left behind."""
    found = await scene.load(model="large", version=2)
    regions = regions_of(scene, server)
    for rows in (1, 3, 40):
        np.testing.assert_array_equal((await found.infer(batch(large(rows)))).outputs["y"], large(rows))
    results = await asyncio.gather(*(found.infer(batch(large(2, n))) for n in range(12)))
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result.outputs["y"], large(2, n))
    connection = scene.fleet.fleet.connection(address_of(server))
    assert regions.off == ""
    before = await ours(connection)
    assert before
    server.kill()
    server.start()
    for _ in range(2):
        np.testing.assert_array_equal((await again(found, batch(large(3)))), large(3))
    assert regions.off == ""
    after = await ours(connection)
    assert after
    await regions.aclose()
    assert not await ours(connection)
    assert not (before | after) & present()


def present() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


async def ours(connection: TritonConnection) -> set[str]:
    """Return the regions that a gateway has registered, each named as its file."""
    return {name for name in await connection.registered(10.0) if name.startswith(PREFIX)}


def regions_of(scene: Scene, server: TritonServer) -> Any:
    regions = scene.fleet.fleet.connection(address_of(server)).regions
    assert regions is not None
    return regions


async def again(found: TritonModel, batch: Batch) -> Array:
    """Return the output once the endpoint is back among those that have the version."""
    while True:
        try:
            return (await found.infer(batch)).outputs["y"]
        except GatewayError:
            await asyncio.sleep(0.05)


async def test_responses_of_a_decoupled_model_come_in_order(scene: Scene) -> None:
    """Up to its end, or to where it fails."""
    found = await scene.load(model="repeat")
    assert found.signature.decoupled
    assert await indices(found, count=50) == list(range(50))
    assert await indices(found, count=0) == []
    with pytest.raises(BackendError, match=r"^model 'digits': it fails here$"):
        await indices(found, count=3, fail_at=0)


async def test_a_closed_stream_leaves_the_server_well(scene: Scene) -> None:
    """The model is told to stop, and answers the next."""
    found = await scene.load(model="repeat")
    for read in (1, 5):
        async with aclosing(found.stream(counted(10_000, delay_ms=1))) as results:
            for _ in range(read):
                await anext(results)
    assert await indices(found, count=3) == [0, 1, 2]


def counted(count: int, delay_ms: int = 0, fail_at: int = -1) -> Batch:
    values = {"count": count, "delay_ms": delay_ms, "fail_at": fail_at}
    return Batch({name: np.array([value], np.int32) for name, value in values.items()}, 1, ("index",))


async def indices(found: TritonModel, **asked: int) -> list[int]:
    return [int(result.outputs["index"][0]) async for result in found.stream(counted(**asked))]


async def test_sequences_keep_their_state(scene: Scene) -> None:
    """Two at once, each by its id."""
    found = await scene.load(model="sums")

    async def add(sequence: int, value: int, **flags: bool) -> int:
        inputs = {"value": np.array([[value]], np.int32)}
        parameters = {"sequence_id": sequence, **flags}
        result = await found.infer(Batch(inputs, 1, ("sum",), parameters))
        return int(result.outputs["sum"].ravel()[0])

    assert [await add(1, 3, sequence_start=True), await add(2, 10, sequence_start=True)] == [3, 10]
    assert [await add(1, 4), await add(2, 20, sequence_end=True), await add(1, 5, sequence_end=True)] == [
        7,
        30,
        12,
    ]
    with pytest.raises(InvalidRequest, match="START"):
        await add(3, 1)


async def test_the_queue_is_reported(server: TritonServer) -> None:
    """What was run since the last report."""
    versions = Versions()
    connection = TritonConnection(address_of(server), FleetOptions(name="f"), versions)
    async with fleet_of(address_of(server)) as scene:
        found = await scene.load(model="queued")
        versions.watch(found.served.loaded)
        assert await connection.queue_report() is None
        for _ in range(3):
            await found.infer(batch(np.zeros((1, 2), np.float32)))
        reports: list[QueueReport] = []
        while sum(report.count for report in reports) < 3:  # Triton counts a run after its answer
            report = await connection.queue_report()
            assert report is not None
            reports += [report] if report.count else []
    await connection.aclose()
    assert sum(report.count for report in reports) == 3
    assert all(0 < report.compute_s < 1 for report in reports)
    assert all(0 < report.wait_s < 1 for report in reports)


async def test_a_run_that_is_called_off_harms_nobody(server: TritonServer, scene: Scene) -> None:
    """The next is answered."""
    found = await scene.load(model="queued")
    server.control.write_text('{"delay_s": 0.2}')
    x = np.ones((1, 2), np.float32)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await found.infer(batch(x))
    np.testing.assert_array_equal((await found.infer(batch(x))).outputs["y"], x)
