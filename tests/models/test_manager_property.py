"""Random lives of a manager: claims, leases, failures and time in any order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import NotFound, NotReady
from gateway.core.registry import RegistryError
from gateway.core.types import VersionId, VersionState
from gateway.testing import settle
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage, wanted
from tests.properties import examples

if TYPE_CHECKING:
    from gateway.core.interfaces import Lease
    from gateway.models.desired import DesiredVersion
    from gateway.models.manager import ModelManager

VERSIONS = st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["x", "y", "bad"]))


def one_content_per_number(chosen: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    return list({item[:2]: item for item in chosen}.values())


STEPS = st.one_of(
    st.tuples(
        st.just("apply"),
        st.sampled_from(["source", "operator"]),
        st.lists(VERSIONS, max_size=4).map(one_content_per_number),
    ),
    st.tuples(st.just("lease"), st.sampled_from("ab"), st.sampled_from(["", "1", "2", "3"])),
    st.tuples(st.just("release"), st.integers(0, 99)),
    st.tuples(st.just("hold"), st.booleans()),
    st.tuples(st.just("hold fetches"), st.booleans()),
    st.tuples(st.just("turns"), st.integers(1, 6)),
)


@dataclass
class Life:
    """One manager, the leases held on it, and the claims made."""

    stage: Stage
    manager: ModelManager
    leases: list[Lease] = field(default_factory=list)
    claims: dict[str, list[DesiredVersion]] = field(default_factory=dict)
    providers: dict[VersionId, FakeProvider] = field(default_factory=dict)
    fetches: asyncio.Event | None = None

    def version(self, model: str, number: int, digest: str) -> DesiredVersion:
        """Model `b` comes from a registry, whose bad versions fail there."""
        if model == "a":
            return wanted(model, number, digest)
        provider = FakeProvider(digest)
        version = registered(model, number, provider)
        version.id = VersionId(model, number, digest)
        provider = self.providers.setdefault(version.id, provider)
        provider.gate = self.fetches
        if digest == "bad":
            provider.errors = [RegistryError("verify", "told to fail", may_pass=False)]
        version.provider = provider
        return version

    async def step(self, step: tuple[object, ...]) -> None:
        match step:
            case ("apply", str(claim), list(chosen)):
                self.claims.pop(claim, None) if not chosen else None
                versions = [self.version(*item) for item in chosen]
                if versions:
                    self.claims[claim] = versions
                self.manager.apply(claim, versions)
            case ("lease", str(model), str(version)):
                try:
                    self.leases.append(self.manager.lease(model, version))
                except (NotFound, NotReady):
                    assert model not in [v.id.model for v in self.manager.served()] or version
            case ("release", int(index)) if self.leases:
                self.leases.pop(index % len(self.leases)).release()
            case ("hold", bool(held)):
                self.hold(held=held)
            case ("hold fetches", bool(held)):
                self.hold_fetches(held=held)
            case ("turns", int(turns)):
                await settle(turns)

    def hold(self, *, held: bool) -> None:
        if self.stage.backend.gate is not None:
            self.stage.backend.gate.set()
        self.stage.backend.gate = asyncio.Event() if held else None

    def hold_fetches(self, *, held: bool) -> None:
        if self.fetches is not None:
            self.fetches.set()
        self.fetches = asyncio.Event() if held else None
        for provider in self.providers.values():
            provider.gate = self.fetches

    def check(self) -> None:
        """Hold the invariants that are true at every moment."""
        closed = {b.version for b in self.stage.batchers if b.closed}
        open_ = [b.version for b in self.stage.batchers if not b.closed]
        for lease in self.leases:
            assert lease.version.id in open_, (lease.version.id, closed)
        served = [v.id[:2] for v in self.manager.served()]
        assert len(served) == len(set(served))
        for version in self.manager.served():
            assert version.id in open_
            if version.id.model == "b":
                assert self.providers[version.id].pins
        index = [s.id[:2] for s in self.manager.index()]
        assert len(index) == len(set(index))
        assert sum(s.inflight for s in self.manager.index()) <= len(self.leases)

    def union(self) -> dict[tuple[str, int], DesiredVersion]:
        union: dict[tuple[str, int], DesiredVersion] = {}
        for versions in self.claims.values():
            for version in versions:
                union.setdefault((version.id.model, version.id.number), version)
        return union

    def check_settled(self) -> None:
        """Hold what must be true at rest: the union serves, and beside it only what must stay."""
        union = self.union()
        served = {v.id for v in self.manager.served()}
        good = {w.id for w in union.values() if w.id.digest != "bad"}
        assert good <= served
        rows = {s.id: s.state for s in self.manager.index()}
        for version in served - good:
            of_model = {w.id.number: w.id for w in union.values() if w.id.model == version.model}
            assert of_model, f"{version} serves and nobody wants its model"
            replacement = of_model.get(version.number)
            if replacement is not None:
                assert replacement.digest == "bad"
            else:
                assert all(wanted_id.digest == "bad" for wanted_id in of_model.values())
        assert all(state is not VersionState.DRAINING for state in rows.values())
        assert {version for version, p in self.providers.items() if p.pins} == {
            version for version in served if version.model == "b"
        }
        assert all(provider.pins <= 1 for provider in self.providers.values())


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=30))
def test_random_lives_keep_the_invariants(steps: list[tuple[object, ...]]) -> None:
    """Whatever happens, a leased version stays loaded, numbers are unique, and the union is what settles."""

    async def live() -> None:
        stage = Stage()
        stage.backend.failures["bad"] = "told to fail"
        async with stage.manager() as manager:
            life = Life(stage, manager)
            for step in steps:
                await life.step(step)
                life.check()
            life.hold(held=False)
            life.hold_fetches(held=False)
            for lease in life.leases:
                lease.release()
            life.leases.clear()
            await manager.wait_settled()
            life.check()
            life.check_settled()
        assert all(model.closed for model in stage.backend.loaded)
        assert not any(provider.pins for provider in life.providers.values())

    asyncio.run(live())
