"""Loading and unloading on servers that run in explicit mode."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.backends.remote.fleet import Fleet
from gateway.backends.triton.connection import Connector
from gateway.backends.triton.control import FleetControl
from gateway.backends.triton.model import TritonFleet
from gateway.backends.triton.options import TritonOptions
from gateway.backends.triton.publishing import SharedRepository
from gateway.backends.triton.versions import Loaded, Versions
from gateway.core.clock import LoopClock
from gateway.core.errors import ModelLoadError
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.remote import FleetOptions, FleetUnavailable
from gateway.core.types import Artifact, Device
from gateway.telemetry.remote_metrics import RemoteMetrics
from tests.backends.triton.fake import Failure, FakeTriton, model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OPTIONS = TritonOptions(fleet="a", model="m", control=True)


@dataclass
class Explicit(FakeTriton):
    """A FakeTriton that loads just the versions that it is asked for; `loads` has each configuration."""

    loads: list[dict[str, Any]] = field(default_factory=list)

    def _RepositoryModelLoad(self, request: Any) -> Any:  # noqa: N802 - named for the method
        asked = json.loads(request.parameters["config"].string_param)
        self.loads.append(asked)
        numbers = asked["version_policy"]["specific"]["versions"]
        self.models[request.model_name] = model(*map(int, numbers))
        return pb.RepositoryModelLoadResponse()

    def _RepositoryModelUnload(self, request: Any) -> Any:  # noqa: N802 - likewise
        del self.models[request.model_name]
        return pb.RepositoryModelUnloadResponse()

    @property
    def has(self) -> set[int]:
        """The versions of `m` that are loaded."""
        return self.models["m"].versions if "m" in self.models else set()


@asynccontextmanager
async def control(root: Path, *endpoints: FakeTriton, owner: str = "us") -> AsyncIterator[FleetControl]:
    """Control these endpoints, which have all been probed."""
    shared = root / "shared"
    shared.mkdir(exist_ok=True)
    options = FleetOptions(name="a", endpoints=tuple(e.address for e in endpoints), probe_interval_s=0.05)
    versions = Versions()
    async with AsyncExitStack() as stack:
        fleet = Fleet(options, Connector(options, versions), LoopClock(), RemoteMetrics(dict))
        await stack.enter_async_context(fleet)
        await fleet.wait_probed()
        parts = TritonFleet(fleet, versions, Device("fleet", 0))
        yield await stack.enter_async_context(FleetControl(parts, SharedRepository(shared), owner))


def version(root: Path, number: int) -> tuple[Artifact, LoadOptions]:
    """The files of a version, and how it is loaded."""
    folder = root / f"files-{number}"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_text(str(number))
    artifact = Artifact(folder, folder / "model.onnx", f"digest-{number}")
    return artifact, LoadOptions(spec=ModelSpec(name="public"), number=number)


async def test_versions_that_others_have_loaded_stay(tmp_path: Path) -> None:
    """Each endpoint is asked for what it has and what is wanted; one that has it is not asked again."""
    async with Explicit({"m": model(1)}) as one, Explicit() as two, control(tmp_path, one, two) as controlled:
        assert await controlled.bring(OPTIONS, *version(tmp_path, 2)) == 2
        assert (one.has, two.has) == ({1, 2}, {2})
        await controlled.bring(OPTIONS, *version(tmp_path, 2))
        assert (len(one.loads), len(two.loads)) == (1, 1)
        assert two.loads[0]["name"] == "m"
        assert two.loads[0]["platform"] == "onnxruntime_onnx"
        await controlled.withdraw(OPTIONS, 2)
        await controlled.withdraw(OPTIONS, 2)
        assert (one.has, two.has) == ({1}, set())


async def test_the_end_of_an_older_load_takes_nothing_from_a_newer_one(tmp_path: Path) -> None:
    """A version is wanted again while its last copy still drains."""
    async with Explicit() as one, control(tmp_path, one) as controlled:
        await controlled.bring(OPTIONS, *version(tmp_path, 1))
        await controlled.bring(OPTIONS, *version(tmp_path, 1))
        await controlled.withdraw(OPTIONS, 1)
        assert one.has == {1}
        await controlled.withdraw(OPTIONS, 1)
        assert one.has == set()


async def test_what_another_gateway_wants_is_not_unloaded(tmp_path: Path) -> None:
    """The last that wanted it unloads it."""
    async with (
        Explicit() as one,
        control(tmp_path, one) as ours,
        control(tmp_path, one, owner="them") as theirs,
    ):
        for gateway in (ours, theirs):
            await gateway.bring(OPTIONS, *version(tmp_path, 1))
        await ours.withdraw(OPTIONS, 1)
        assert one.has == {1}
        await theirs.withdraw(OPTIONS, 1)
        assert one.has == set()


async def test_a_gateway_that_goes_unloads_nothing(tmp_path: Path) -> None:
    """Its models are closed as it ends; the fleet serves on."""
    async with Explicit() as one:
        async with control(tmp_path, one) as controlled:
            await controlled.bring(OPTIONS, *version(tmp_path, 1))
            controlled.leave()
            await controlled.withdraw(OPTIONS, 1)
        assert one.has == {1}


async def test_one_endpoint_that_cannot_load_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is tried again; where none can, that is an error, and one that passes if the fleet is why."""
    failure = Failure(grpc.StatusCode.UNAVAILABLE, "server is stopping")
    async with (
        Explicit() as one,
        Explicit(failures={"RepositoryModelLoad": failure}) as two,
        control(tmp_path, one, two) as controlled,
    ):
        await controlled.bring(OPTIONS, *version(tmp_path, 1))
        assert (one.has, two.has) == ({1}, set())
        one.failures["RepositoryModelLoad"] = failure
        with pytest.raises(ModelLoadError, match="no endpoint could load version 2") as caught:
            await controlled.bring(OPTIONS, *version(tmp_path, 2))
        assert isinstance(caught.value.__cause__, FleetUnavailable)


async def test_an_endpoint_that_lost_a_version_is_asked_for_it_again(tmp_path: Path) -> None:
    """As one that was restarted."""
    async with Explicit() as one, control(tmp_path, one) as controlled:
        await controlled.bring(OPTIONS, *version(tmp_path, 1))
        versions = controlled._fleet.versions
        async for _ in versions.changes():
            if versions.having(Loaded("m", 1)):
                break
        one.models.clear()
        async for _ in versions.changes():
            if one.has == {1} and len(one.loads) == 2:
                break
