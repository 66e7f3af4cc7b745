"""When the manager asks a memory budget, and what it tells it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import ModelLoadError
from gateway.core.types import Device, VersionState
from gateway.testing import FakeLoadedModel, settle
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import Artifact, VersionId, VersionStatus
    from gateway.models.budget import LoadBudget


@dataclass
class RecordingBudget:
    """A LoadBudget that writes down what happens, and admits when told."""

    events: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    refusal: str = ""

    async def admit(self, wanted: WantedVersion, artifact: Artifact) -> None:
        self.events.append(f"admit {wanted.id.model} {artifact.digest}")
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal:
            raise ModelLoadError(self.refusal)

    def loaded(self, version: VersionId, memory: Sequence[tuple[Device, int]]) -> None:
        self.events.append(f"loaded {version.model} {dict(memory)[Device()]}")

    def released(self, version: VersionId) -> None:
        self.events.append(f"released {version.model}")


async def test_memory_is_asked_for_before_a_load_and_given_back_after(stage: Stage) -> None:
    """Asked with the files that were fetched, told what is held, and given back when the model is closed."""
    budget = RecordingBudget()

    class Watched(FakeLoadedModel):
        async def aclose(self) -> None:
            budget.events.append("closed")
            await super().aclose()

    stage.backend.make = lambda _artifact, _options: Watched(memory_bytes=7)
    async with stage.manager(budget=budget) as manager:
        manager.apply("s", [registered("m", 1, FakeProvider())])
        await manager.wait_settled()
        assert budget.events == ["admit m content", "loaded m 7"]
        manager.apply("s", [])
        await manager.wait_settled()
        assert budget.events[2:] == ["closed", "released m"]


async def test_a_refusal_is_the_reason_of_the_failure(stage: Stage) -> None:
    """What does not fit is not loaded; the version before serves on."""
    budget = RecordingBudget()
    async with stage.manager(budget=budget) as manager:
        stage.backend.make = lambda _artifact, _options: FakeLoadedModel(memory_bytes=7)
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        budget.refusal = "needs about 231 MB on cpu"
        manager.apply("s", [registered("m", 2, FakeProvider())])
        await manager.wait_settled()
        assert manager.get("m").id.number == 1
        assert manager.index()[1].reason == "load: needs about 231 MB on cpu"
        assert budget.events[-2:] == ["admit m content", "released m"]
        assert len(stage.backend.loaded) == 1


@pytest.mark.parametrize("end", ["withdrawn", "left"])
async def test_a_wait_for_memory_ends_with_its_reason(stage: Stage, end: str) -> None:
    """A version that waits for room and is withdrawn, or left at the end, waits no more and holds nothing."""
    budget = RecordingBudget(gate=asyncio.Event())
    async with stage.manager(budget=budget) as manager:
        manager.apply("s", [wanted("m", 1)])
        await settle()
        assert manager.index()[0].state is VersionState.LOADING
        if end == "withdrawn":
            manager.apply("s", [])
            await manager.wait_settled()
    assert manager.index()[0].state is VersionState.UNLOADED
    assert budget.events == ["admit m d", "released m"]
    assert stage.backend.loaded == []


@pytest.mark.parametrize("step", ["load", "warm-up"])
async def test_memory_is_given_back_when_a_load_fails(stage: Stage, step: str) -> None:
    """A load that fails after it was admitted gives its room back once."""
    budget: LoadBudget = RecordingBudget()
    assert isinstance(budget, RecordingBudget)
    if step == "load":
        stage.backend.failures["d"] = "corrupt"
    else:
        stage.warm_up_failures["m"] = ModelLoadError("corrupt")
    async with stage.manager(budget=budget) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert budget.events == ["admit m d", "released m"]


async def test_what_is_withdrawn_before_it_asks_releases_nothing(stage: Stage) -> None:
    """An earlier copy of the same version, which a lease keeps, goes on being counted."""
    budget = RecordingBudget()
    version = wanted("m", 1)
    ends: list[Callable[[], None]] = []

    class Withdrawing:
        def on_transition(self, status: VersionStatus) -> None:
            if status.state is VersionState.LOADING and ends:
                asyncio.get_running_loop().call_soon(ends.pop())

        def on_loaded(self, status: VersionStatus, seconds: float) -> None:
            """Take no note."""

    stage.backend.make = lambda _artifact, _options: FakeLoadedModel(memory_bytes=7)
    async with stage.manager(budget=budget, observers=(stage.observer, Withdrawing())) as manager:
        manager.apply("s", [version])
        await manager.wait_settled()
        lease = manager.lease("m")
        manager.apply("s", [])
        ends.append(lambda: manager.apply("s", []))
        manager.apply("s", [version])
        await manager._until(lambda: not manager._loads)
        assert not ends
        assert budget.events == ["admit m d", "loaded m 7"]
        lease.release()
        await manager.wait_settled()
        assert budget.events[2:] == ["released m"]
