"""The source of versions that a fleet has READY."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.options import ModelSpec, VersionPolicy
from gateway.core.registry import RegistryError
from gateway.core.rollout import Target
from gateway.registry.fleet_versions import Listing
from gateway.registry.triton_source import FleetModel, TritonSource, TritonSourceOptions
from gateway.testing import VirtualClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from gateway.models.desired import DesiredVersion

ALL = VersionPolicy(all=True)


class Endpoints:
    """A VersionListing that the test writes: model -> number -> how many of two endpoints have it."""

    fleet = "a"

    def __init__(self) -> None:
        self.models: dict[str, dict[int, int]] = {}
        self.answered = 2
        self.asked = asyncio.Event()
        self._changed = asyncio.Event()

    def have(self, **models: dict[int, int]) -> None:
        """Have just these, from now on."""
        self.models = models
        self.asked.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def listing(self) -> Listing:
        return Listing(endpoints=2, answered=self.answered, models=self.models)

    async def changes(self) -> AsyncGenerator[None, None]:
        while True:
            changed = self._changed
            yield
            await changed.wait()

    async def known(self) -> None:
        await self.asked.wait()


def model(name: str, remote: str = "", versions: VersionPolicy = ALL) -> FleetModel:
    """A model that one endpoint is enough for."""
    spec = ModelSpec(name=name, backend="triton", versions=versions, backend_options={"fleet": "a"})
    return FleetModel(spec=spec, remote=remote or name, enough=lambda _endpoints: 1)


class Stage:
    """A source over endpoints and a clock of the test's."""

    def __init__(self, files: Path, *models: FleetModel, **options: Any) -> None:
        self.endpoints = Endpoints()
        self.clock = VirtualClock()
        self.source = TritonSource(
            "triton a", self.endpoints, TritonSourceOptions(models=models, files=files, **options), self.clock
        )


def shown(versions: Sequence[DesiredVersion]) -> list[tuple[str, int]]:
    return [(version.id.model, version.id.number) for version in versions]


async def test_versions_are_those_that_the_fleet_has_by_the_models_policy(tmp_path: Path) -> None:
    """A public name may be another; each version's number is told to the backend."""
    stage = Stage(tmp_path, model("digits", "mnist"), model("newest", "mnist", VersionPolicy(latest=1)))
    stage.endpoints.have(mnist={1: 1, 3: 2}, other={1: 2})
    wanted = await stage.source.snapshot()
    assert shown(wanted) == [("digits", 1), ("digits", 3), ("newest", 3)]
    assert wanted[1].spec.backend_options == {"fleet": "a", "version": 3}
    assert len({version.id.digest for version in wanted}) == 3
    assert not list(wanted[0].artifact.directory.iterdir())
    assert stage.source.remote_names() == {"digits": "mnist", "newest": "mnist"}


async def test_a_fleet_that_is_down_at_start_delays_it_no_longer_than_said(tmp_path: Path) -> None:
    """The model is there with a reason, and comes when its fleet does."""
    stage = Stage(tmp_path, model("digits"), start_timeout_s=3.0)
    stage.endpoints.answered = 0
    starting = asyncio.ensure_future(stage.source.snapshot())
    await settle()
    assert not starting.done()
    stage.clock.advance(3.0)
    assert await starting == []
    assert await stage.source.models() == ["digits"]
    assert stage.source.problems() == {"digits": "resolve: no endpoint of fleet 'a' answers"}
    with pytest.raises(ModelLoadError, match="no endpoint of fleet 'a' answers"):
        await stage.source.versions("digits")
    async with aclosing(stage.source.watch()) as sets:
        assert await anext(sets) == []
        stage.endpoints.answered = 2
        stage.endpoints.have(digits={1: 2})
        assert shown(await anext(sets)) == [("digits", 1)]
        assert stage.source.problems() == {}


async def test_a_version_that_vanishes_is_withdrawn_after_the_grace_without_another_event(
    tmp_path: Path,
) -> None:
    """The watch says first that it is gone, then gives the set without it."""
    stage = Stage(tmp_path, model("digits"), grace_s=30.0)
    stage.endpoints.have(digits={1: 1, 2: 1})
    async with aclosing(stage.source.watch()) as sets:
        assert shown(await anext(sets)) == [("digits", 1), ("digits", 2)]
        stage.endpoints.have(digits={2: 1})
        assert shown(await anext(sets)) == [("digits", 1), ("digits", 2)]
        assert "has version 1 any more" in stage.source.problems()["digits"]
        last = asyncio.ensure_future(anext(sets))
        await settle()
        stage.clock.advance(29.0)
        await settle()
        assert not last.done()
        stage.clock.advance(1.0)
        assert shown(await last) == [("digits", 2)]


async def test_every_model_of_a_fleet_is_served_under_its_own_name_but_those_named_elsewhere(
    tmp_path: Path,
) -> None:
    """Models that appear later appear here; one whose name cannot be public is left out."""
    stage = Stage(tmp_path, every=model, elsewhere={"taken"})
    stage.endpoints.have(one={1: 1}, taken={1: 1}, **{"not/so": {1: 1}}, empty={})
    assert shown(await stage.source.snapshot()) == [("one", 1)]
    stage.endpoints.have(one={1: 1}, two={5: 1})
    async with aclosing(stage.source.watch()) as sets:
        assert shown(await anext(sets)) == [("one", 1), ("two", 5)]


async def test_a_rollout_gets_single_versions_by_number(tmp_path: Path) -> None:
    """Also one that the policy leaves out; a pin of it holds while the fleet does not have it."""
    stage = Stage(tmp_path, model("digits", versions=VersionPolicy(specific=(1,))))
    stage.endpoints.have(digits={1: 1, 2: 1})
    await stage.source.snapshot()
    resolved = await stage.source.resolve_target("digits", Target("2"))
    assert (resolved.label, resolved.wanted.id.number) == ("2", 2)
    with pytest.raises(NotFound, match=r"has no version 7 \(there are: 1, 2\)"):
        await stage.source.resolve_target("digits", Target("7"))
    with pytest.raises(NotFound, match="no aliases"):
        await stage.source.resolve_target("digits", Target("champion"))
    stage.endpoints.have()
    assert (await stage.source.restore_target("digits", resolved.pin)).wanted.id == resolved.wanted.id
    with pytest.raises(ModelLoadError, match="another fleet"):
        await stage.source.restore_target("digits", {"number": 2, "digest": "other"})


async def test_what_a_silent_fleet_may_have_is_asked_for_again(tmp_path: Path) -> None:
    """A target that is not there is gone; one that cannot be known may come."""
    stage = Stage(tmp_path, model("digits"))
    stage.endpoints.have()
    stage.endpoints.answered = 0
    with pytest.raises(RegistryError) as caught:
        await stage.source.resolve_target("digits", Target("1"))
    assert caught.value.may_pass


async def test_clients_configure_nothing_on_a_fleet(tmp_path: Path) -> None:
    """A load with a configuration is refused, and one of an unknown model."""
    stage = Stage(tmp_path, model("digits"))
    stage.endpoints.have(digits={1: 1})
    with pytest.raises(ModelLoadError, match="its configuration is the fleet's"):
        await stage.source.versions("digits", '{"max_batch_size": 4}')
    with pytest.raises(NotFound):
        await stage.source.versions("other")
