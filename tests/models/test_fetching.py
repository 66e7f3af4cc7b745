"""Versions of a registry on their way to READY: fetched, verified, pinned, retried, withdrawn."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import BackendUnavailable, ModelLoadError
from gateway.core.registry import FetchProgress, RegistryError
from gateway.core.types import Artifact, VersionOrigin, VersionState
from gateway.testing import FakeLoadedModel, settle
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.core.options import LoadOptions
    from gateway.core.types import VersionStatus
    from gateway.models.manager import ModelManager

DOWN = RegistryError("fetch", "the registry at mlflow:5000 does not answer", may_pass=True)


def row(manager: ModelManager, model: str = "m") -> VersionStatus:
    (status,) = (s for s in manager.index() if s.id.model == model)
    return status


class Silent:
    """A LifecycleObserver that takes no note."""

    def on_transition(self, status: VersionStatus) -> None:
        """Take no note."""

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note."""


async def test_every_step_is_entered_in_order(stage: Stage) -> None:
    """A version of a registry is fetched, verified, loaded, checked and warmed, and says so in its row."""
    provider = FakeProvider()
    async with stage.manager() as manager:
        manager.apply("registry r", [registered("m", 3, provider)])
        assert row(manager).content_digest == ""
        await manager.wait_settled()
        states = [state.value for _, state in stage.observer.transitions]
        assert states == ["NEW", "FETCHING", "VERIFYING", "LOADING", "CHECKING", "WARMING", "READY"]
        status = row(manager)
        assert (status.content_digest, status.claims) == ("content", ("registry r",))
        assert status.origin is not None
        assert [s.state.value for s in status.steps] == states[:-1]
        assert manager.get("m").label == "v3"
        assert provider.pins == 1


async def test_the_backend_gets_the_files_that_were_obtained(stage: Stage) -> None:
    """What is loaded is the provider's artifact, not the empty one that was resolved."""
    loaded: list[str] = []

    def make(artifact: Artifact, _options: LoadOptions) -> FakeLoadedModel:
        loaded.append(artifact.digest)
        return FakeLoadedModel()

    stage.backend.make = make
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, FakeProvider())])
        await manager.wait_settled()
    assert loaded == ["content"]


async def test_progress_is_told_without_another_decision(stage: Stage) -> None:
    """Bytes and the state VERIFYING are seen in the index; the routing table is not made anew for them."""
    provider = FakeProvider(gate=asyncio.Event(), verify_gate=asyncio.Event())
    async with stage.manager() as manager:
        manager.apply("s", [wanted("other", 1), registered("m", 1, provider)])
        await settle()
        table = manager._table
        assert provider.report is not None
        provider.report(FetchProgress(state=VersionState.FETCHING, done_bytes=3, total_bytes=10))
        status = row(manager)
        assert (status.state, status.done_bytes, status.total_bytes) == (VersionState.FETCHING, 3, 10)
        assert provider.gate is not None
        provider.gate.set()
        await settle()
        status = row(manager)
        assert (status.state, status.done_bytes, status.total_bytes) == (VersionState.VERIFYING, 10, 10)
        assert stage.observer.transitions[-1] == (status.id, VersionState.VERIFYING)
        provider.report(FetchProgress(state=VersionState.FETCHING, done_bytes=4, total_bytes=10))
        assert row(manager).state is VersionState.VERIFYING
        assert manager._table is table
        assert provider.verify_gate is not None
        provider.verify_gate.set()
        await manager.wait_settled()
        provider.report(FetchProgress(state=VersionState.VERIFYING, done_bytes=10, total_bytes=10))
        assert (row(manager).state, row(manager).total_bytes) == (VersionState.READY, 0)


async def test_observers_that_ask_for_it_hear_of_progress(stage: Stage) -> None:
    """An observer with `on_progress` is told of each report until the files are here, one without is not."""
    heard: list[int] = []

    class Follower(Silent):
        def on_progress(self, status: VersionStatus) -> None:
            heard.append(status.done_bytes)

    provider = FakeProvider()
    async with stage.manager(observers=(stage.observer, Follower())) as manager:
        manager.apply("s", [registered("m", 1, provider)])
        await manager.wait_settled()
        assert provider.report is not None
        provider.report(FetchProgress(state=VersionState.VERIFYING, done_bytes=10, total_bytes=10))
    assert heard == [0, 10]


async def test_files_are_held_until_the_version_is_unloaded(stage: Stage) -> None:
    """The provider's context is left only after the model is closed, which waits for the last lease."""
    closed_at: list[int] = []
    provider = FakeProvider()

    class Watched(FakeLoadedModel):
        async def aclose(self) -> None:
            closed_at.append(provider.pins)
            await super().aclose()

    stage.backend.make = lambda _artifact, _options: Watched()
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, provider)])
        await manager.wait_settled()
        lease = manager.lease("m")
        manager.apply("s", [])
        await settle()
        assert provider.pins == 1
        lease.release()
        await manager.wait_settled()
        assert (provider.pins, closed_at) == (0, [1])


@pytest.mark.parametrize("step", ["load", "check", "warm-up"])
async def test_files_are_let_go_when_a_later_step_fails(stage: Stage, step: str) -> None:
    """A failure after the fetch leaves the provider's context, closes the model, and names its step."""
    provider = FakeProvider(digest="d")
    match step:
        case "load":
            stage.backend.failures["d"] = "corrupt"
        case "check":
            provider.contradiction = ModelLoadError("corrupt")
        case _:
            stage.warm_up_failures["m"] = ModelLoadError("corrupt")
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, provider)])
        await manager.wait_settled()
        assert (row(manager).state, row(manager).reason) == (VersionState.FAILED, f"{step}: corrupt")
        assert provider.pins == 0
        assert all(model.closed for model in stage.backend.loaded)


async def test_a_registrys_own_words_are_left_as_they_are(stage: Stage) -> None:
    """What a RegistryError says begins with its step already, whichever step it comes up in."""
    provider = FakeProvider(errors=[RegistryError("verify", "wrong digest", may_pass=False)])
    narrowing = FakeProvider(contradiction=RegistryError("verify", "input 'x' is INT64", may_pass=False))
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, provider), registered("n", 1, narrowing)])
        await manager.wait_settled()
        assert row(manager, "m").reason == "verify: wrong digest"
        assert row(manager, "n").reason == "verify: input 'x' is INT64"
        assert stage.clock.next_timer_s() is None


async def test_an_unexpected_error_names_its_step(stage: Stage) -> None:
    """A fault of the provider is that version's failure, without its message."""
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, FakeProvider(errors=[ZeroDivisionError("/secret")]))])
        await manager.wait_settled()
        assert row(manager).reason == "fetch: unexpected ZeroDivisionError while loading"


async def test_a_problem_is_told_without_a_fetch(stage: Stage) -> None:
    """A version that its source cannot describe fails with that problem, and nothing is fetched."""
    provider = FakeProvider()
    broken = dataclasses.replace(registered("m", 1, provider), problem="resolve: config.pbtxt line 3")
    async with stage.manager() as manager:
        manager.apply("s", [broken])
        await manager.wait_settled()
        assert row(manager).reason == "resolve: config.pbtxt line 3"
        assert provider.attempts == 0


async def test_a_slow_registry_delays_no_local_load(stage: Stage) -> None:
    """Fetches hold no place among the loads, and are bounded on their own."""
    providers = [FakeProvider(gate=asyncio.Event()) for _ in range(3)]
    slow = [registered(f"m{i}", 1, provider) for i, provider in enumerate(providers)]
    async with stage.manager(load_concurrency=1, fetch_concurrency=2) as manager:
        manager.apply("r", slow)
        manager.apply("local", [wanted("n", 1)])
        await settle()
        assert manager.is_model_ready("n")
        assert [p.attempts for p in providers] == [1, 1, 0]
        for provider in providers:
            assert provider.gate is not None
            provider.gate.set()
        await manager.wait_settled()
        assert len(manager.served()) == 4


async def test_withdrawal_cancels_the_fetch(stage: Stage) -> None:
    """A version withdrawn while it is fetched, verified or waits for its turn ends at once."""
    fetching = FakeProvider(gate=asyncio.Event())
    verifying = FakeProvider(verify_gate=asyncio.Event())
    waiting = FakeProvider()
    versions = [registered("a", 1, fetching), registered("b", 1, verifying), registered("c", 1, waiting)]
    async with stage.manager(fetch_concurrency=2) as manager:
        manager.apply("s", versions)
        await settle()
        manager.apply("s", [])
        await settle()
        assert [s.state for s in manager.index()] == [VersionState.UNLOADED] * 3
        assert (fetching.cancelled, verifying.cancelled, waiting.attempts) == (1, 1, 0)
        assert stage.backend.loaded == []
        assert manager._loads == {}


async def test_withdrawal_ends_the_wait_for_a_place_to_load(stage: Stage) -> None:
    """What is withdrawn before its turn to load lets its files go at once, and only then is UNLOADED."""
    provider = FakeProvider()
    stage.backend.gate = asyncio.Event()
    pins: list[int] = []

    class Watcher(Silent):
        def on_transition(self, status: VersionStatus) -> None:
            if status.state in {VersionState.DRAINING, VersionState.UNLOADED}:
                pins.append(provider.pins)

    async with stage.manager(load_concurrency=1, observers=(Watcher(),)) as manager:
        manager.apply("local", [wanted("n", 1)])
        await settle()
        manager.apply("s", [registered("m", 1, provider)])
        await settle()
        assert (row(manager).state, provider.pins) == (VersionState.VERIFYING, 1)
        assert row(manager).reason == "waiting for its turn to load"
        manager.apply("s", [])
        await settle()
        assert row(manager).state is VersionState.UNLOADED
        assert pins == [1, 0]
        stage.backend.gate.set()


async def test_a_version_wanted_again_at_once_is_fetched_on(stage: Stage) -> None:
    """A claim that leaves and comes back before the fetch has stopped is served, by another fetch."""
    provider = FakeProvider(gate=asyncio.Event())
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, provider)])
        await settle()
        manager.apply("s", [])
        manager.apply("s", [registered("m", 1, provider)])
        assert provider.gate is not None
        provider.gate.set()
        await manager.wait_settled()
        assert manager.is_model_ready("m")
        assert (provider.attempts, provider.pins) == (2, 1)


async def test_leaving_the_manager_stops_fetches(stage: Stage) -> None:
    """At the end of the manager a fetch under way is cancelled and waited for, and what is loaded let go."""
    fetching, loaded = FakeProvider(gate=asyncio.Event()), FakeProvider()
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, fetching), registered("n", 1, loaded)])
        await manager._until(lambda: manager.is_model_ready("n"))
    assert (fetching.cancelled, loaded.pins) == (1, 0)
    assert {s.state for s in manager.index()} == {VersionState.UNLOADED}


async def test_a_registry_that_is_down_is_asked_for_ever(stage: Stage) -> None:
    """Attempts go on, with growing pauses up to the last one, until it answers; the old version serves."""
    provider = FakeProvider(errors=[DOWN] * 6)
    async with stage.manager(registry_pauses_s=(1, 4), jitter=lambda: 0.5, retry_pauses_s=()) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("s", [registered("m", 2, provider)])
        pauses = []
        for _ in range(6):
            await manager.wait_settled()
            due_s = stage.clock.next_timer_s()
            assert due_s is not None
            pauses.append(due_s - stage.clock.now_s())
            assert manager.get("m").id.number == 1
            assert manager.index()[1].reason.startswith(
                "fetch: the registry at mlflow:5000 does not answer; "
            )
            stage.clock.advance(pauses[-1])
        await manager.wait_settled()
        assert pauses == [1, 4, 4, 4, 4, 4]
        assert manager.get("m").id.number == 2


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 0.75), (0.5, 1.0), (0.999, 1.2495)])
async def test_pauses_are_spread(stage: Stage, jitter: float, pause_s: float) -> None:
    """Gateways that lost one registry at one moment come back to it within half of a pause of each other."""
    async with stage.manager(registry_pauses_s=(1,), jitter=lambda: jitter) as manager:
        manager.apply("s", [registered("m", 1, FakeProvider(errors=[DOWN]))])
        await manager.wait_settled()
        assert stage.clock.next_timer_s() == pytest.approx(stage.clock.now_s() + pause_s)


async def test_other_faults_of_a_registrys_version_are_tried_as_ever(stage: Stage) -> None:
    """A lost backend has a last attempt, whoever offers the version."""
    stage.warm_up_failures["m"] = BackendUnavailable("no memory")
    async with stage.manager(retry_pauses_s=(1,)) as manager:
        manager.apply("s", [registered("m", 1, FakeProvider())])
        await manager.wait_settled()
        assert row(manager).reason == "warm-up: no memory; it is tried again in 1 s"
        stage.clock.advance(1)
        await manager.wait_settled()
        assert row(manager).reason == "warm-up: no memory"
        assert stage.clock.next_timer_s() is None


async def test_a_clients_load_learns_that_the_registry_is_to_blame(stage: Stage) -> None:
    """What a version FAILED by outside its files is known, for the answer to who asked for it."""
    wrong = RegistryError("verify", "wrong digest", may_pass=False)
    versions = [
        registered("m", 1, FakeProvider(errors=[DOWN])),
        registered("n", 1, FakeProvider(errors=[wrong])),
    ]
    async with stage.manager() as manager:
        manager.apply("s", versions)
        await manager.wait_settled()
        assert isinstance(manager.cause(versions[0].id), BackendUnavailable)
        assert manager.cause(versions[1].id) is None


async def test_another_provider_for_the_same_version_changes_nothing(stage: Stage) -> None:
    """An equal identity keeps what is loaded or under way; its aliases and claims are those of now."""
    first, second = FakeProvider(gate=asyncio.Event()), FakeProvider()
    version = registered("m", 1, second)
    origin = VersionOrigin(registry="r", source="s", label="v1", aliases=("champion",))
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, first)])
        await settle()
        manager.apply("s", [dataclasses.replace(version, origin=origin)])
        manager.apply("t", [dataclasses.replace(version, origin=origin)])
        assert first.gate is not None
        first.gate.set()
        await manager.wait_settled()
        assert (first.attempts, first.pins, second.attempts) == (1, 1, 0)
        assert (row(manager).origin, row(manager).claims) == (origin, ("s", "t"))


async def test_a_load_keeps_the_files_it_has_begun_with(stage: Stage, tmp_path: Path) -> None:
    """The same content offered in another directory meanwhile does not let go of the one that is read."""
    version = wanted("m", 1)
    stage.backend.gate = asyncio.Event()
    async with stage.manager() as manager:
        first, second = (
            dataclasses.replace(version, artifact=Artifact(tmp_path / name, tmp_path / name / "f", "d"))
            for name in ("first", "second")
        )
        manager.apply("s", [first])
        await settle()
        manager.apply("s", [second])
        assert manager.is_loading_from(tmp_path / "first")
        assert not manager.is_loading_from(tmp_path / "second")
        stage.backend.gate.set()
        await manager.loaded_from(tmp_path / "first")
        assert manager.is_model_ready("m")


async def test_steps_have_their_times(stage: Stage) -> None:
    """Each step has its beginning and duration; waiting for a turn to load counts for none of them."""
    wall = [7.0]
    provider = FakeProvider(gate=asyncio.Event())
    async with stage.manager(load_concurrency=1, wall_s=lambda: wall[0]) as manager:
        stage.backend.gate = asyncio.Event()
        manager.apply("local", [wanted("n", 1)])
        await settle()
        manager.apply("s", [registered("m", 1, provider)])
        await settle()
        stage.clock.advance(2)
        wall[0] = 9.0
        fetching = row(manager).steps[-1]
        assert (fetching.state, fetching.began_s, fetching.seconds) == (VersionState.FETCHING, 7.0, 2.0)
        assert provider.gate is not None
        provider.gate.set()
        await settle()
        stage.clock.advance(30)
        stage.backend.gate.set()
        await manager.wait_settled()
        steps = {s.state.value: (s.began_s, s.seconds) for s in row(manager).steps}
        assert steps["FETCHING"] == (7.0, 2.0)
        assert steps["VERIFYING"] == (9.0, 0.0)
        assert steps["LOADING"] == (9.0, 0.0)
        assert sum(seconds for _, seconds in steps.values()) == 2.0


async def test_a_context_that_fails_to_close_is_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider whose context cannot be left well keeps neither the version nor the manager from its end."""

    class Stuck(FakeProvider):
        @asynccontextmanager
        async def obtain(self, report: Callable[[FetchProgress], None]) -> AsyncIterator[Artifact]:
            async with super().obtain(report) as artifact:
                yield artifact
            raise RuntimeError("the lock is gone")

    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, Stuck())])
        await manager.wait_settled()
        manager.apply("s", [])
        await manager.wait_settled()
        assert row(manager).state is VersionState.UNLOADED
        assert all(model.closed for model in stage.backend.loaded)
    assert "the lock is gone" in caplog.text
