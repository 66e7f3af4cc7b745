"""The memory budget: what is admitted, what is waited for, refusals with numbers, and what loads teach."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ModelLoadError
from gateway.core.options import InstanceGroup, ModelSpec
from gateway.core.types import CPU, Artifact, Device, VersionId, VersionState, VersionStatus
from gateway.models.costs import FIRST_FACTOR, Costs
from gateway.models.host_memory import automatic_limit
from gateway.models.ledger import Ledger
from gateway.models.memory import MemoryBudget, MemoryOptions, size_of
from gateway.testing import VirtualClock, settle
from tests.models.lazy_stage import MB, LazyStage, sleeper
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.models.desired import DesiredVersion

GPU = Device("cuda", 1)


def budget(clock: VirtualClock | None = None, **limits: int) -> MemoryBudget:
    return MemoryBudget(MemoryOptions(limits=limits, wait_s=5), clock or VirtualClock())


def of_size(path: Path, nbytes: int, model: str = "m", number: int = 1, **spec: object) -> DesiredVersion:
    """Return a version whose model file has a size."""
    path = path / f"{model}-{number}"
    path.mkdir(exist_ok=True)
    file = path / "model.onnx"
    file.write_bytes(bytes(nbytes))
    version = wanted(model, number, f"{model}{number}", **spec)
    version.artifact = Artifact(path, file, version.artifact.digest)
    return version


async def loaded(budget: MemoryBudget, version: DesiredVersion, nbytes: int) -> None:
    await budget.admit(version, version.artifact)
    budget.loaded(version.id, [(CPU, nbytes)])


async def test_without_limits_everything_is_admitted_and_counted() -> None:
    """What is held is known all the same."""
    stage = Stage()
    free = budget()
    async with stage.manager(budget=free) as manager:
        manager.apply("source", [wanted("m", 1), wanted("n", 1)])
        await manager.wait_settled()
        assert len(manager.served()) == 2
    assert free.devices() == []


async def test_a_reservation_counts_from_admission_to_release(tmp_path: Path) -> None:
    """First what was estimated, then what was measured, then nothing; releasing twice is harmless."""
    taken = budget(cpu=1000)
    version = of_size(tmp_path, 100)
    await taken.admit(version, version.artifact)
    assert taken.devices() == [(CPU, round(100 * FIRST_FACTOR), 1000)]
    taken.loaded(version.id, [(CPU, 150)])
    assert taken.devices() == [(CPU, 150, 1000)]
    taken.released(version.id)
    taken.released(version.id)
    taken.released(VersionId("other", 1, ""))
    assert taken.devices() == [(CPU, 0, 1000)]


async def test_what_can_never_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """The message says what it needs and what there is, and there is no use in trying again."""
    small = budget(cpu=10 * MB)
    version = of_size(tmp_path, 11 * MB)
    with pytest.raises(
        ModelLoadError, match="about 13 MB on cpu, more than the whole budget of 10 MB"
    ) as found:
        await small.admit(version, version.artifact)
    assert found.value.__cause__ is None
    assert small.refusals == {CPU: 1}


async def test_a_guess_alone_refuses_nobody_who_may_have_the_device_alone(tmp_path: Path) -> None:
    """A file a little smaller than the budget is tried, although by the factor it would not fit."""
    small = budget(cpu=10 * MB)
    version = of_size(tmp_path, 9 * MB)
    await small.admit(version, version.artifact)
    assert small.devices()[0].held_bytes == 10 * MB


async def test_the_refusal_names_the_holders_and_what_to_do(tmp_path: Path) -> None:
    """The greatest come first, the rest is counted, and trying again later may help."""
    full = budget(cpu=100 * MB)
    for index in range(7):
        await loaded(full, of_size(tmp_path, 1, f"m{index}", index + 1), (10 + index) * MB)
    version = of_size(tmp_path, 25 * MB, "late")
    with pytest.raises(ModelLoadError) as found:
        await full.admit(version, version.artifact)
    assert str(found.value) == (
        "needs about 100 MB on cpu, budget 100 MB of which 91 MB are held by: m6 v7 16 MB, m5 v6 15 MB, "
        "m4 v5 14 MB, m3 v4 13 MB, m2 v3 12 MB, 2 more; unload one of them, raise memory.limits.cpu, or make "
        "models lazy"
    )
    assert isinstance(found.value.__cause__, MemoryError)


async def test_both_versions_count_during_a_swap(tmp_path: Path) -> None:
    """A budget for one and a half keeps the old version serving and says why."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 15 * MB}))
    stage.sizes.update({"m1": 10 * MB, "m2": 10 * MB})
    first, second = of_size(tmp_path, 8 * MB, number=1), of_size(tmp_path, 8 * MB, number=2)
    async with stage.running(first) as manager:
        await manager.wait_settled()
        manager.apply("source", [second])
        await manager.wait_settled()
        assert [v.id.number for v in manager.served()] == [1]
        failed = [row for row in manager.index() if row.state is VersionState.FAILED]
        assert "of which 10 MB are held by: m v1 10 MB" in failed[0].reason


async def test_a_load_waits_for_what_is_being_unloaded(tmp_path: Path) -> None:
    """Nothing gives way for it, and it is admitted as soon as the memory is free."""
    taken = budget(cpu=10 * MB)
    old, new = of_size(tmp_path, 1, "old"), of_size(tmp_path, 8 * MB, "new")
    await loaded(taken, old, 9 * MB)
    taken.on_transition(VersionStatus(id=old.id, state=VersionState.DRAINING))
    admission = asyncio.ensure_future(taken.admit(new, new.artifact))
    await asyncio.wait([admission], timeout=0.05)
    assert not admission.done()
    taken.released(old.id)
    await admission
    assert taken.devices()[0].held_bytes > 8 * MB


async def test_waiting_for_an_unload_is_bounded_and_can_be_cancelled(tmp_path: Path) -> None:
    """One is refused when the time is over; the next, cancelled, holds nothing."""
    clock = VirtualClock()
    taken = budget(clock, cpu=10 * MB)
    old, new = of_size(tmp_path, 1, "old"), of_size(tmp_path, 8 * MB, "new")
    await loaded(taken, old, 9 * MB)
    taken.on_transition(VersionStatus(id=old.id, state=VersionState.DRAINING))
    for end in ("refused", "cancelled"):
        admission = asyncio.ensure_future(taken.admit(new, new.artifact))
        while clock.next_timer_s() is None:
            await settle(1)
        if end == "refused":
            clock.advance(6)
            with pytest.raises(ModelLoadError, match="old v1 9 MB"):
                await admission
        else:
            admission.cancel()
            with pytest.raises(asyncio.CancelledError):
                await admission
            assert clock.next_timer_s() is None
    assert taken.devices()[0].held_bytes == 9 * MB


async def test_a_refused_second_copy_leaves_the_first_one_counted(tmp_path: Path) -> None:
    """The release that follows the refusal is its own; admitted the next time, it is entered and left."""
    clock = VirtualClock()
    taken = budget(clock, cpu=10 * MB)
    version = of_size(tmp_path, 8 * MB)
    await loaded(taken, version, 9 * MB)
    taken.on_transition(VersionStatus(id=version.id, state=VersionState.DRAINING))
    again = asyncio.ensure_future(taken.admit(version, version.artifact))
    while clock.next_timer_s() is None:
        await settle(1)
    clock.advance(6)
    with pytest.raises(ModelLoadError):
        await again
    taken.released(version.id)
    assert taken.devices()[0].held_bytes == 9 * MB
    taken.released(version.id)
    await loaded(taken, version, 9 * MB)
    taken.released(version.id)
    assert taken.devices()[0].held_bytes == 0


async def test_the_second_load_of_a_content_knows_its_cost(tmp_path: Path) -> None:
    """A model that took ten times its file is refused before it is loaded again beside another."""
    taken = budget(cpu=100 * MB)
    version, other = of_size(tmp_path, 6 * MB, "big"), of_size(tmp_path, 1, "other")
    await loaded(taken, version, 60 * MB)
    taken.released(version.id)
    await loaded(taken, other, 50 * MB)
    with pytest.raises(ModelLoadError, match="needs about 60 MB"):
        await taken.admit(version, version.artifact)


async def test_more_than_estimated_makes_idle_models_give_way(tmp_path: Path) -> None:
    """A load that turns out larger than its estimate brings the device back within its limit."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 30 * MB}))
    stage.sizes["surprise"] = 25 * MB
    async with stage.running(sleeper("a", digest="a"), sleeper("s", digest="surprise")) as manager:
        for name in "as":
            stage.clock.advance(1)
            stage.ask(name)
            await manager.wait_settled()
            stage.answer()
        assert [v.id.model for v in manager.served()] == ["s"]
        assert stage.budget.devices()[0].held_bytes == 25 * MB


async def test_a_failed_load_gives_its_reservation_back(tmp_path: Path) -> None:
    """Nothing stays reserved, and the next one fits."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 10 * MB}))
    stage.backend.failures["m1"] = "broken"
    async with stage.running(of_size(tmp_path, 8 * MB)) as manager:
        await manager.wait_settled()
        assert stage.budget.devices()[0].held_bytes == 0
        manager.apply("source", [of_size(tmp_path, 8 * MB, "n")])
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["n"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["enter", "settle", "leave", "drop"]), st.integers(0, 50)
        )
    )
)
def test_the_ledger_adds_up(events: list[tuple[str, str, int]]) -> None:
    """Held is the sum of what each entry holds; what leaves is missing to nobody who can wait."""
    ledger = Ledger({"cpu": 100})
    held: dict[str, list[list[int]]] = {name: [] for name in "abc"}
    for name, event, nbytes in events:
        version, entries = VersionId(name, 1, ""), held[name]
        if event == "enter":
            ledger.enter(version, {CPU: nbytes})
            entries.append([nbytes, 0])
        elif event == "settle":
            ledger.settle(version, {CPU: nbytes})
            if entries:
                entries[-1][0] = nbytes
        elif event == "leave":
            ledger.leave(version)
            staying = [e for e in entries if not e[1]]
            if staying:
                staying[0][1] = 1
        else:
            ledger.drop(version)
            if entries:
                entries.remove(next((e for e in entries if e[1]), entries[0]))
    every = [entry for entries in held.values() for entry in entries]
    total, staying_total = sum(e[0] for e in every), sum(e[0] for e in every if not e[1])
    assert ledger.held().get(CPU, 0) == total
    assert ledger.missing({CPU: 60}).get(CPU, 0) == max(0, total - 40)
    assert ledger.missing({CPU: 60}, leaving=False).get(CPU, 0) == max(0, staying_total - 40)


def test_limits_are_looked_up_by_device_then_by_kind() -> None:
    """`cuda` is the limit of each device of that kind, `cuda:1` of one."""
    ledger = Ledger({"cuda": 5, "cuda:1": 7})
    assert (ledger.limit(Device("cuda", 0)), ledger.limit(GPU), ledger.limit(CPU)) == (5, 7, None)


def test_costs_are_learnt() -> None:
    """New content is expected to be like the costlier ones seen; known content costs the least it did."""
    costs = Costs()
    spec = ModelSpec(name="m")
    assert costs.estimated(spec, 100) == {CPU: 120}
    for index in range(20):
        costs.learn(f"c{index}", spec, 100, [(CPU, 100 + index * 10)])
    assert costs.estimated(spec, 1000) == {CPU: 2700}
    costs.learn("c19", spec, 100, [(CPU, 5000)])
    assert costs.remembered("c19") == {CPU: 290}
    assert costs.remembered("new") is None


def test_each_instance_group_holds_the_model() -> None:
    """Two groups on two devices, and two on one."""
    costs = Costs(assumed=GPU)
    spec = ModelSpec(
        name="m", instances=(InstanceGroup(device=CPU), InstanceGroup(device=CPU), InstanceGroup())
    )
    assert costs.estimated(spec, 100) == {CPU: 240, GPU: 120}


def test_the_size_of_a_version_is_that_of_its_files(tmp_path: Path) -> None:
    """External data beside the model counts; other models in the directory of a single file do not."""
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(10))
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    artifact = Artifact(tmp_path, model, "d")
    assert size_of(artifact) == 110
    (tmp_path / "other.onnx").write_bytes(bytes(1000))
    (tmp_path / "model.onnx.data").write_bytes(bytes(5))
    assert size_of(artifact) == 15
    assert size_of(Artifact(tmp_path / "no", tmp_path / "no" / "model.onnx", "d")) == 0


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_automatic_limit_is_a_share_of_the_tightest_bound(tmp_path: Path) -> None:
    """The machine's memory, unless a control group, or one around it, has less; nothing known is no limit."""
    assert automatic_limit(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemFree: 1 kB\nMemTotal:       10000 kB\n")
    assert automatic_limit(tmp_path) == 8192000
    write(tmp_path / "proc/self/cgroup", "0::/pod/box\n")
    write(tmp_path / "sys/fs/cgroup/pod/box/memory.max", "max\n")
    assert automatic_limit(tmp_path) == 8192000
    write(tmp_path / "sys/fs/cgroup/pod/memory.max", "5000000\n")
    assert automatic_limit(tmp_path) == 4000000
    write(tmp_path / "proc/self/cgroup", "5:cpu,memory:/box\n4:cpuset:/\n")
    write(tmp_path / "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1000000\n")
    assert automatic_limit(tmp_path) == 800000
