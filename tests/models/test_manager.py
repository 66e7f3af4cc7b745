"""The manager under claims, failures, reloads and leases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.core.errors import InvalidRequest, ModelLoadError, NotFound, NotReady
from gateway.core.options import InstanceGroup
from gateway.core.types import Device, VersionState
from gateway.models.desired import DesiredVersion
from gateway.testing import FakeLoadedModel, infer_request, settle
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact
    from gateway.models.manager import ModelManager


def rows(manager: ModelManager) -> list[tuple[str, int, str, VersionState]]:
    return [(s.id.model, s.id.number, s.id.digest, s.state) for s in manager.index()]


async def test_claimed_version_is_served_and_reported(stage: Stage) -> None:
    """A claimed version loads, warms, becomes READY and is told to observers in that order."""
    async with stage.manager() as manager:
        manager.apply("source", [wanted("m", 1)])
        assert [s.state for s in manager.index()] == [VersionState.NEW]
        with pytest.raises(NotReady, match="'m' has no available versions"):
            manager.lease("m")
        await manager.wait_settled()
        assert manager.get("m").id == ("m", 1, "d")
        assert manager.get("m", "1").platform == "fake_platform"
        assert manager.served()[0].spec.max_batch_size == 64
        assert manager.index()[0].since_s == 7.0
        states = [state for _, state in stage.observer.transitions]
        assert states == [VersionState.NEW, VersionState.LOADING, VersionState.WARMING, VersionState.READY]
        assert [version for version, _ in stage.observer.loads] == [("m", 1, "d")]
        assert stage.warmed == ["m"]


async def test_union_of_claims_is_served_and_the_rest_unloaded(stage: Stage) -> None:
    """A version stays while any claim holds it and unloads when the last lets go."""
    async with stage.manager() as manager:
        manager.apply("a", [wanted("m", 1), wanted("n", 1)])
        manager.apply("b", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("a", [])
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["m"]
        manager.apply("b", [])
        await manager.wait_settled()
        assert manager.served() == ()
        assert all(model.closed for model in stage.backend.loaded)
        assert all(batcher.closed for batcher in stage.batchers)
        assert [s.state for s in manager.index()] == [VersionState.UNLOADED] * 2


async def test_default_version_is_the_highest_ready(stage: Stage) -> None:
    """An empty version leads to the highest READY number, and a version text may have leading zeros."""
    stage.backend.failures["bad"] = "no"
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 2), wanted("m", 10), wanted("m", 11, "bad")])
        await manager.wait_settled()
        assert manager.get("m").id.number == 10
        assert manager.lease("m", "0002").version.id.number == 2
        assert manager.ready_versions("m") == (2, 10)


async def test_errors_of_lookups_are_tritons(stage: Stage) -> None:
    """Unknown, unready and malformed versions are told apart, in Triton's words."""
    stage.backend.failures["bad"] = "no"
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1), wanted("m", 2, "bad")])
        await manager.wait_settled()
        manager.announce("s", ["bare"])
        with pytest.raises(NotFound, match=r"^Request for unknown model: 'x' is not found$"):
            manager.lease("x")
        with pytest.raises(NotFound, match=r"^Request for unknown model: 'm' version 3 is not found$"):
            manager.get("m", "3")
        with pytest.raises(
            NotReady, match=r"^Request for unknown model: 'm' version 2 is not at ready state$"
        ):
            manager.lease("m", "2")
        for text in ("-1", "abc", "0", "1.0", "²", "9" * 40):
            with pytest.raises(InvalidRequest, match="should be an integral value > 0"):
                manager.lease("m", text)
        assert manager.is_model_ready("m")
        assert not manager.is_model_ready("m", "2")
        assert not manager.is_model_ready("bare")
        with pytest.raises(NotFound):
            manager.is_model_ready("x")
        with pytest.raises(NotFound):
            manager.ready_versions("x")


async def test_unloaded_model_is_not_found(stage: Stage) -> None:
    """A model unloaded on purpose has no available versions, which no retry mends."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("s", [])
        await manager.wait_settled()
        with pytest.raises(NotFound, match="has no available versions"):
            manager.lease("m")


async def test_old_version_serves_until_the_new_is_ready(stage: Stage) -> None:
    """A policy's step from 1 to 2 withdraws 1 only when 2 is READY, and 1 unloads when its lease ends."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        stage.backend.gate = asyncio.Event()
        manager.apply("s", [wanted("m", 2)])
        await settle()
        lease = manager.lease("m")
        assert lease.version.id.number == 1
        stage.backend.gate.set()
        await settle()
        assert manager.get("m").id.number == 2
        with pytest.raises(NotReady):
            manager.lease("m", "1")
        assert manager.index()[0].state is VersionState.DRAINING
        assert manager.index()[0].inflight == 1
        assert not stage.backend.loaded[0].closed
        lease.release()
        await manager.wait_settled()
        assert stage.backend.loaded[0].closed


async def test_failed_successor_leaves_the_old_serving(stage: Stage) -> None:
    """When the new version fails the old one stays, the index says why, and nothing is tried again."""
    stage.backend.failures["bad"] = "the graph is broken"
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("s", [wanted("m", 2, "bad")])
        await manager.wait_settled()
        manager.apply("s", [wanted("m", 2, "bad")])
        await manager.wait_settled()
        assert manager.get("m").id.number == 1
        assert (manager.index()[1].state, manager.index()[1].reason) == (
            VersionState.FAILED,
            "the graph is broken",
        )
        loading = [s for _, s in stage.observer.transitions if s is VersionState.LOADING]
        assert len(loading) == 2
        manager.apply("s", [wanted("m", 2, "good")])
        await manager.wait_settled()
        assert rows(manager)[1] == ("m", 2, "good", VersionState.READY)
        assert manager.get("m").id.number == 2


async def test_failed_reload_is_told_on_the_serving_row(stage: Stage) -> None:
    """A failed reload of the same number leaves it READY, with the failure as its reason."""
    stage.backend.failures["d2"] = "truncated"
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, "d1")])
        await manager.wait_settled()
        manager.apply("s", [wanted("m", 1, "d2")])
        await manager.wait_settled()
        (row,) = manager.index()
        assert (row.id.digest, row.state) == ("d1", VersionState.READY)
        assert "truncated" in row.reason


async def test_reload_switches_atomically_and_starts_new_statistics(stage: Stage) -> None:
    """New content under the same number replaces the old one, whose lease goes on; its counters are new."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, "d1")])
        await manager.wait_settled()
        lease = manager.lease("m")
        lease.version.statistics.inference_count = 5
        manager.apply("s", [wanted("m", 1, "d2")])
        await settle()
        assert manager.get("m", "1").id.digest == "d2"
        assert manager.get("m").statistics.inference_count == 0
        assert lease.version.id.digest == "d1"
        assert lease.submit(infer_request(np.zeros((1, 1), "f4"), model="m")) is not None
        lease.release()
        await manager.wait_settled()
        assert rows(manager) == [("m", 1, "d2", VersionState.READY)]


async def test_explicit_retry_loads_a_failed_version_again(stage: Stage) -> None:
    """A failed version is loaded again when asked for, and only then."""
    stage.backend.failures["d"] = "no memory"
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        status = await manager.outcome(wanted("m", 1).id)
        assert status is not None
        assert status.state is VersionState.FAILED
        stage.backend.failures.clear()
        manager.apply("s", [wanted("m", 1)], retry="m")
        await manager.wait_settled()
        assert manager.is_model_ready("m")


async def test_withdrawn_while_loading_never_serves(stage: Stage) -> None:
    """A version withdrawn during its load is closed and not published."""
    stage.backend.gate = asyncio.Event()
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await settle()
        manager.apply("s", [])
        stage.backend.gate.set()
        await manager.wait_settled()
        assert stage.backend.loaded[0].closed
        assert VersionState.READY not in [s for _, s in stage.observer.transitions]
        assert await manager.outcome(wanted("m", 1).id) is None


async def test_withdrawn_and_wanted_again_while_loading_serves(stage: Stage) -> None:
    """A claim that comes back during the load is served by that same load."""
    stage.backend.gate = asyncio.Event()
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await settle()
        manager.apply("s", [])
        manager.apply("s", [wanted("m", 1)])
        stage.backend.gate.set()
        await manager.wait_settled()
        assert manager.is_model_ready("m")
        assert len(stage.backend.loaded) == 1


async def test_no_more_loads_at_once_than_allowed(stage: Stage) -> None:
    """At most `load_concurrency` versions load at once, and one withdrawn while waiting never loads."""
    stage.backend.gate = asyncio.Event()
    async with stage.manager(load_concurrency=2) as manager:
        manager.apply("s", [wanted(name, 1) for name in "abcd"])
        await settle()
        states = [s.state for s in manager.index()]
        assert states.count(VersionState.LOADING) == 2
        manager.apply("s", [wanted(name, 1) for name in "abc"])
        stage.backend.gate.set()
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["a", "b", "c"]
        assert len(stage.backend.loaded) == 3


async def test_failed_warm_up_closes_what_was_loaded(stage: Stage) -> None:
    """A warm-up that must succeed and fails makes the version FAILED and frees it."""
    stage.warm_up_failures["m"] = ModelLoadError("warm-up failed")
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.index()[0].reason == "warm-up failed"
        assert stage.backend.loaded[0].closed


async def test_unexpected_exception_fails_only_its_version(stage: Stage) -> None:
    """A fault in one load is that version's failure; others and later claims go on."""
    stage.warm_up_failures["bad"] = ZeroDivisionError("boom")
    async with stage.manager() as manager:
        manager.apply("s", [wanted("bad", 1), wanted("good", 1)])
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["good"]
        assert "ZeroDivisionError" in manager.index()[0].reason


async def test_missing_backend_is_a_reason(stage: Stage) -> None:
    """A backend that is not there fails the load by its name."""
    async with stage.manager(backends={}) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert "unable to find backend 'fake'" in manager.index()[0].reason


async def test_one_replica_per_device_and_least_loaded_is_chosen(stage: Stage) -> None:
    """Each instance group gets a model and a batcher, and requests go to the one with the fewest rows."""
    groups = (InstanceGroup(device=Device("cuda", 0), count=2), InstanceGroup(device=Device("cuda", 1)))
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, instances=groups)])
        await manager.wait_settled()
        assert manager.get("m").devices == ((Device("cuda", 0), 2), (Device("cuda", 1), 1))
        first, second = stage.batchers
        first.queued_rows, second.running_rows = 3, 2
        lease = manager.lease("m")
        lease.submit(infer_request(np.zeros((1, 1), "f4"), model="m"))
        assert (len(first.pendings), len(second.pendings)) == (0, 1)
        second.running_rows = 4
        lease.submit(infer_request(np.zeros((1, 1), "f4"), model="m"))
        assert len(first.pendings) == 1
        lease.release()


async def test_memory_is_added_up_by_device(stage: Stage) -> None:
    """Models on one device count together, and a device that says nothing of it is left out."""
    devices = [Device("cuda", 0), Device("cuda", 0), Device("cuda", 1), Device()]

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        device = options.device or Device()
        return FakeLoadedModel(device=device, memory_bytes=0 if device == Device() else 10)

    stage.backend.make = make
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, instances=tuple(InstanceGroup(device=d) for d in devices))])
        await manager.wait_settled()
        assert manager.get("m").memory == ((Device("cuda", 0), 20), (Device("cuda", 1), 10))
        assert manager.index()[0].memory_bytes == 30


async def test_failure_on_one_device_closes_the_others(stage: Stage) -> None:
    """A version that loads on one device and not on the next is closed where it was loaded."""

    def make(artifact: object, options: object) -> FakeLoadedModel:
        if stage.backend.loaded:
            raise ModelLoadError("no memory on the second")
        return FakeLoadedModel()

    stage.backend.make = make
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, instances=(InstanceGroup(), InstanceGroup()))])
        await manager.wait_settled()
        assert manager.index()[0].state is VersionState.FAILED
        assert [m.closed for m in stage.backend.loaded] == [True]


async def test_lease_refuses_unfit_requests_and_second_release(stage: Stage) -> None:
    """A lease checks requests before the batcher sees them, and is released exactly once."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        lease = manager.lease("m")
        with pytest.raises(InvalidRequest, match="unexpected shape"):
            lease.submit(infer_request(np.zeros((1, 3), "f4"), model="m"))
        with pytest.raises(InvalidRequest, match="data-type"):
            lease.stream(infer_request(np.zeros((1, 1), "i4"), model="m"))
        assert stage.batchers[0].pendings == []
        lease.release()
        with pytest.raises(RuntimeError, match="released before"):
            lease.release()
        with pytest.raises(RuntimeError, match="released before"):
            lease.submit(infer_request(np.zeros((1, 1), "f4"), model="m"))


async def test_readiness_is_that_of_required_models(stage: Stage) -> None:
    """The server is ready when claims were made, every required model is READY and it does not drain."""
    stage.backend.failures["bad"] = "no"
    async with stage.manager() as manager:
        assert not manager.is_ready()
        manager.apply("s", [wanted("m", 1), wanted("o", 1, "bad", required=False)])
        assert not manager.is_ready()
        await manager.wait_settled()
        assert manager.is_ready()
        manager.apply("t", [wanted("n", 1, "bad")])
        await manager.wait_settled()
        assert not manager.is_ready()
        manager.apply("t", [])
        assert manager.is_ready()
        manager.begin_drain()
        assert not manager.is_ready()
        assert manager.is_model_ready("m")


async def test_conflicting_claims_leave_the_first_in_place(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Two claims with different content for one number: the earlier serves, the other is logged once."""
    async with stage.manager() as manager:
        manager.apply("a", [wanted("m", 1, "x")])
        manager.apply("b", [wanted("m", 1, "y")])
        manager.apply("b", [wanted("m", 1, "y")])
        await manager.wait_settled()
        assert rows(manager) == [("m", 1, "x", VersionState.READY)]
        assert caplog.text.count("earlier claim") == 1
        manager.apply("a", [])
        await manager.wait_settled()
        assert rows(manager) == [("m", 1, "y", VersionState.READY)]


async def test_known_models_without_versions_are_listed(stage: Stage) -> None:
    """Announced models appear with number 0 until something of them is claimed."""
    async with stage.manager() as manager:
        manager.announce("s", ["m", "bare"])
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert [(s.id.model, s.id.number) for s in manager.index()] == [("bare", 0), ("m", 1)]


async def test_change_of_policy_alone_reloads_nothing(stage: Stage) -> None:
    """A spec that differs in `required` only is taken over without a load."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("s", [wanted("m", 1, required=False)])
        await manager.wait_settled()
        assert len(stage.backend.loaded) == 1
        assert manager.get("m").spec.required is False


async def test_problem_of_a_source_is_a_failed_load(stage: Stage) -> None:
    """A version offered with a problem fails with it, and what served before stays."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        base = wanted("m", 1, "d2")
        bad = DesiredVersion(id=base.id, artifact=base.artifact, spec=base.spec, problem="bad config")
        manager.apply("s", [bad])
        await manager.wait_settled()
        assert manager.get("m").id.digest == "d"
        assert "bad config" in manager.index()[0].reason


async def test_drained_waits_for_every_lease(stage: Stage) -> None:
    """`drained` returns only when READY and draining versions are free of leases."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        first, second = manager.lease("m"), manager.lease("m")
        waiting = asyncio.ensure_future(manager.drained())
        first.release()
        await settle()
        assert not waiting.done()
        second.release()
        await waiting


async def test_a_wait_for_drain_does_not_let_a_later_lease_be_unloaded(stage: Stage) -> None:
    """Leases taken after an earlier wait has ended still keep their version loaded."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        await manager.drained()
        lease = manager.lease("m")
        manager.apply("s", [])
        await settle()
        assert not stage.backend.loaded[0].closed
        lease.release()
        await manager.wait_settled()
        assert stage.backend.loaded[0].closed


async def test_leaving_closes_everything_even_under_leases(stage: Stage) -> None:
    """At the end of the manager all models are closed, loads under way are stopped, leases may still end."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        lease = manager.lease("m")
        stage.backend.gate = asyncio.Event()
        manager.apply("s", [wanted("m", 1), wanted("n", 1)])
        await settle()
    assert stage.backend.loaded[0].closed
    assert all(s.state is VersionState.UNLOADED for s in manager.index())
    lease.release()


async def test_raising_observer_disturbs_nobody(stage: Stage) -> None:
    """An observer that raises is logged; the version still becomes READY and others are told."""

    class Broken:
        def on_transition(self, status: object) -> None:
            raise ZeroDivisionError

        def on_loaded(self, status: object, seconds: float) -> None:
            raise ZeroDivisionError

    async with stage.manager(observers=(Broken(), stage.observer)) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.is_model_ready("m")
        assert stage.observer.loads


async def test_index_keeps_few_unloaded_versions(stage: Stage) -> None:
    """A model whose versions come and go for ever does not grow the index for ever."""
    async with stage.manager() as manager:
        for number in range(1, 31):
            manager.apply("s", [wanted("m", number)])
            await manager.wait_settled()
        assert len(manager.index()) <= 9
        assert manager.index()[-1].state is VersionState.READY


async def test_swaps_under_a_stream_of_leases_fail_none(stage: Stage) -> None:
    """Leases taken without pause through fifty swaps all succeed, each on a loaded version."""
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1, "d0")])
        await manager.wait_settled()
        stop = asyncio.Event()
        taken: set[str] = set()

        async def client() -> None:
            while not stop.is_set():
                lease = manager.lease("m")
                await asyncio.sleep(0)
                lease.submit(infer_request(np.zeros((1, 1), "f4"), model="m"))
                taken.add(lease.version.id.digest)
                lease.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
            for swap in range(1, 51):
                manager.apply("s", [wanted("m", 1 + swap % 2, f"d{swap}")])
                await manager.wait_settled()
            stop.set()
        assert len(taken) > 40
