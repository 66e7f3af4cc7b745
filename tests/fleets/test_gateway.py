"""A whole gateway in front of endpoints that answer as the test tells them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from gateway.core.types import VersionState
from tests.backends.triton.fake import FakeTriton, model
from tests.fleets.stage import Served, gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

QUICK = {"probe": {"interval_s": 0.05}, "vanish_grace_s": 0.0}


@asynccontextmanager
async def serving(
    *endpoints: FakeTriton, models: tuple[Any, ...] = (), **config: Any
) -> AsyncIterator[Served]:
    """Run a gateway with one fleet `a` of these endpoints; `fleet` holds further settings of it."""
    fleet = {
        "name": "a",
        "endpoints": [str(e.address) for e in endpoints],
        **QUICK,
        **config.pop("fleet", {}),
    }
    async with gateway({"triton": [fleet], "models": list(models), **config}) as served:
        yield served


async def test_every_model_of_a_fleet_is_served_as_it_is_there() -> None:
    """Names, versions, platform and answers are Triton's; three lines of configuration."""
    async with (
        FakeTriton({"one": model(1, 2), "two": model(7)}) as triton,
        serving(triton, fleet={"serve": "all"}) as served,
    ):
        assert await served.infer("one", 3.0, 4.0) == ([3.0, 4.0], "2")
        assert await served.infer("one", 5.0, version="1") == ([5.0], "1")
        assert await served.infer("two", 6.0) == ([6.0], "7")
        metadata = await served.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="one"))
        assert (metadata.platform, list(metadata.versions)) == ("fake_platform", ["1", "2"])
        sent = [(seen.request.model_name, seen.request.model_version) for seen in triton.seen]
        assert sent == [("one", "2"), ("one", "1"), ("two", "7")]


async def test_a_public_name_may_be_another_and_batches_are_no_larger_than_triton_takes() -> None:
    """Requests together are cut where Triton's max_batch_size ends; its name is never told."""
    async with (
        FakeTriton({"mnist": model(1, max_batch_size=4)}) as triton,
        serving(
            triton,
            models=({"name": "digits", "triton": {"model": "mnist", "batching": "gateway"}},),
            fleet={"shared_memory": "off"},
        ) as served,
    ):
        answers = await asyncio.gather(*(served.infer("digits", float(n)) for n in range(20)))
        assert answers == [([float(n)], "1") for n in range(20)]
        assert max(seen.request.inputs[0].shape[0] for seen in triton.seen) <= 4
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.infer("mnist", 1.0)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_fleet_that_is_down_at_start_kills_nothing_and_comes() -> None:
    """The gateway starts, says why the model is not there, and serves it once the fleet answers."""
    triton = FakeTriton({"m": model(1)})
    async with triton:
        pass  # it has a port, and nobody listens there
    fleet = {"serve": ["m"], "connect_timeout_s": 0.2, "probe": {"interval_s": 0.05, "timeout_s": 0.2}}
    async with serving(triton, fleet=fleet) as served:
        page = await served.admin("/models/m")
        assert not page["ready"]
        assert "no endpoint of fleet 'a' answers" in page["reason"]
        assert not served.gateway.catalog.is_ready()
        async with triton:
            await served.watcher.until(m=(1, VersionState.READY))
            assert await served.infer("m", 2.0) == ([2.0], "1")


async def test_versions_come_and_go_with_the_fleet() -> None:
    """One that appears on Triton is served; one that is unloaded there goes after its grace."""
    async with FakeTriton({"m": model(1)}) as triton, serving(triton, fleet={"serve": "all"}) as served:
        triton.models["m"].versions.add(2)
        await served.watcher.until(m=(2, VersionState.READY))
        triton.models["m"].versions.remove(1)
        await served.watcher.until(m=(1, VersionState.UNLOADED))
        assert await served.infer("m", 2.0) == ([2.0], "2")


async def test_a_version_waits_for_as_many_endpoints_as_it_needs() -> None:
    """Half of two endpoints are one, all of them two."""
    async with FakeTriton({"m": model(1)}) as one, FakeTriton({"m": model(1)}) as two:
        one.models["m"].versions.add(2)
        async with serving(one, two, models=({"name": "m", "triton": {"min_ready": "100%"}},)) as served:
            assert list(served.gateway.catalog.ready_versions("m")) == [1]
            two.models["m"].versions.add(2)
            await served.watcher.until(m=(2, VersionState.READY))


async def test_a_canary_between_versions_of_a_fleet_answers_its_share() -> None:
    """Split and shadow are as for any model; each version is asked of endpoints that have it."""
    async with FakeTriton({"m": model(1)}) as stable, FakeTriton({"m": model(2)}) as canary:
        entry = {"name": "m", "triton": {}, "split": {1: 50, 2: 50}}
        async with serving(stable, canary, models=(entry,)) as served:
            answers = [await served.infer("m", float(n)) for n in range(40)]
            assert [rows for rows, _ in answers] == [[float(n)] for n in range(40)]
            assert {version for _, version in answers} == {"1", "2"}
            for triton, number in ((stable, "1"), (canary, "2")):
                assert {seen.request.model_version for seen in triton.seen} == {number}


async def test_a_shadow_on_a_fleet_is_sent_copies() -> None:
    """Version 1 answers all; version 2 sees what it saw."""
    reached = asyncio.Event()

    def behave(_request: Any) -> None:
        reached.set()

    shadow = FakeTriton({"m": model(2)})
    shadow.models["m"].behave = behave
    async with FakeTriton({"m": model(1)}) as stable, shadow:
        entry = {"name": "m", "triton": {}, "split": {1: 100}, "shadow": {2: "100%"}}
        async with serving(stable, shadow, models=(entry,)) as served:
            assert await served.infer("m", 9.0) == ([9.0], "1")
            await reached.wait()


@pytest.mark.parametrize(
    "call",
    [
        lambda stub: stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="m")),
        lambda stub: stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="m")),
        lambda stub: stub.SystemSharedMemoryRegister(
            service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="/k", byte_size=1)
        ),
        lambda stub: stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest()),
        lambda stub: stub.CudaSharedMemoryStatus(service_pb2.CudaSharedMemoryStatusRequest()),
        lambda stub: stub.TraceSetting(service_pb2.TraceSettingRequest(model_name="m")),
        lambda stub: stub.LogSettings(service_pb2.LogSettingsRequest()),
        lambda stub: stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()),
        lambda stub: stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="m")),
        lambda stub: stub.ModelConfig(service_pb2.ModelConfigRequest(name="m")),
    ],
)
async def test_what_clients_ask_beside_inference_never_reaches_triton(call: Callable[[Any], Any]) -> None:
    """Repository, shared memory, trace and log calls are answered here, or refused."""
    # Nothing reaches it but what this test sends: the next probe is a day away.
    async with (
        FakeTriton({"m": model(1)}) as triton,
        serving(triton, fleet={"serve": ["m"], "probe": {"interval_s": 86400.0}}) as served,
    ):
        before = list(triton.asked)
        with contextlib.suppress(grpc.aio.AioRpcError):  # whatever the answer, it is the gateway's own
            await call(served.stub)
        assert triton.asked == before
        assert not triton.seen
        assert not triton.regions


async def test_administration_shows_endpoints_with_their_state() -> None:
    """The fleet, its endpoints, and what each has of a model."""
    async with FakeTriton({"mnist": model(1, 2)}) as one, FakeTriton({"mnist": model(1)}) as two:
        entry = {"name": "digits", "triton": {"model": "mnist"}}
        async with serving(one, two, models=(entry,)) as served:
            page = await served.admin("/models/digits")
            assert page["fleet"]["fleet"] == "a"
            assert page["fleet"]["model"] == "mnist"
            shown = {e["address"]: (e["state"], e["versions"]) for e in page["fleet"]["endpoints"]}
            assert shown == {str(one.address): ("healthy", [1, 2]), str(two.address): ("healthy", [1])}
            (fleet,) = (await served.admin("/fleets"))["fleets"]
            assert fleet["serves"] == {"digits": "mnist"}
            assert (await served.admin("/"))["fleets"][0]["fleet"] == "a"
            assert page["versions"][0]["memory_bytes"] == 0
            json.dumps(page)
