"""A version whose load failed for a passing reason is tried again, whatever else goes on beside it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import GatewayError, ModelLoadError
from gateway.core.registry import RegistryError
from gateway.core.types import VersionState
from gateway.testing import FakeLoadedModel, settle
from tests.models.lazy_stage import LazyStage, sleeper
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage

PAUSE_S = 61.0
"""Longer than any pause between two attempts."""


def down() -> RegistryError:
    return RegistryError("fetch", "the registry is down", may_pass=True)


async def test_the_end_of_an_older_copy_calls_off_no_retry() -> None:
    """Rolled back to a version that still drains, and whose fetch fails: it is fetched once it can be."""
    stage, first, second = Stage(), FakeProvider(), FakeProvider(digest="c2")
    one, two = registered("m", 1, first), registered("m", 2, second)
    async with stage.manager(jitter=lambda: 0.5) as manager:
        manager.apply("source", [one])
        await manager.wait_settled()
        lease = manager.lease("m")
        manager.apply("source", [two])
        await manager.outcome(two.id)
        first.errors = [down()]
        manager.apply("source", [one])
        failed = await manager.outcome(one.id)
        assert failed is not None
        assert failed.state is VersionState.FAILED
        lease.release()
        await manager.wait_settled()
        stage.clock.advance(PAUSE_S)
        again = await manager.outcome(one.id)
        assert again is not None
        assert again.state is VersionState.READY


async def test_a_registry_that_was_down_uses_up_no_attempts_at_the_load() -> None:
    """More failed fetches than there are attempts at a load; then one load without memory, and it serves."""
    stage, provider = Stage(), FakeProvider(errors=[down() for _ in range(5)])
    short = [OSError(12, "Cannot allocate memory")]

    def make(*_: object) -> FakeLoadedModel:
        if short:
            raise ModelLoadError("no memory") from short.pop()
        return FakeLoadedModel()

    stage.backend.make = make
    async with stage.manager(jitter=lambda: 0.5, retry_pauses_s=(1.0, 2.0)) as manager:
        manager.apply("source", [registered("m", 1, provider)])
        for _ in range(8):
            await settle(40)
            stage.clock.advance(PAUSE_S)
        await settle(40)
        assert not short
        assert manager.ready_versions("m") == (1,)


async def test_a_lazy_model_that_failed_long_ago_is_loaded_again() -> None:
    """Also when another lazy model has failed since."""
    stage, broken = LazyStage(), {"a"}
    load = stage.backend.make

    def make(*arguments: object) -> FakeLoadedModel:
        options = arguments[1]
        if options.spec.name in broken:  # type: ignore[attr-defined]
            raise ModelLoadError("broken")
        assert load is not None
        return load(*arguments)  # type: ignore[arg-type]

    stage.backend.make = make
    async with stage.running(sleeper("a", digest="A"), sleeper("b", digest="B")) as manager:
        with pytest.raises(GatewayError, match="broken"):
            await stage.ask("a")
        broken.symmetric_difference_update("ab")
        stage.clock.advance(2 * PAUSE_S)
        with pytest.raises(GatewayError, match="broken"):
            await stage.ask("b")
        stage.ask("a")
        await manager.wait_settled()
        assert manager.is_model_ready("a")


async def test_a_fetch_that_is_cancelled_from_within_is_a_failure() -> None:
    """And no withdrawal, after which it would be tried again at once, for ever: it is after a pause."""
    stage, provider = Stage(), FakeProvider(errors=[asyncio.CancelledError()])
    version = registered("m", 1, provider)
    async with stage.manager() as manager:
        manager.apply("source", [version])
        failed = await manager.outcome(version.id)
        assert failed is not None
        assert failed.reason == (
            "fetch: what it waited for was cancelled from within; it is tried again in 1 s"
        )
        stage.clock.advance(PAUSE_S)
        again = await manager.outcome(version.id)
        assert again is not None
        assert again.state is VersionState.READY
        assert provider.attempts == 2
