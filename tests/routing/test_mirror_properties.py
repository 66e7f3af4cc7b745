"""Whatever happens in whatever order, every copy is accounted for, and nothing is held in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.errors import GatewayError
from gateway.core.types import VersionId
from gateway.routing.mirror import MirrorOptions
from gateway.testing import settle
from tests.properties import examples
from tests.routing.shadow_scene import MODEL, SHADOW, Scene, balanced, plan, shadow

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.core.evidence import RoutePlan
    from gateway.core.pending import Pending

CAP = 3
TURNS = st.integers(0, 4)


class Mirroring(RuleBasedStateMachine):
    """Requests, cancellations, crashes, unloads, plans and time, in any order; then the end."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run(self.begin())

    def run(self, work: Coroutine[None, None, None]) -> None:
        self.runner.run(work)

    async def begin(self) -> None:
        self.scene = Scene(slots=1, options=MirrorOptions(max_bytes=16, max_together=2))
        self.step = 0
        self.sent: list[tuple[Pending, float]] = []
        self.mirrored = 0
        self.scene.follow(self.plan())

    def plan(self) -> RoutePlan:
        """The plan in force."""
        return plan(shadow(max_inflight=CAP, slices=("tier",)), step=self.step)

    @rule(value=st.integers(0, 3), explicit=st.booleans(), turns=TURNS)
    def send(self, value: int, explicit: bool, turns: int) -> None:
        """Ask; an explicit version is a request of the shadow version's own clients."""

        async def work() -> None:
            try:
                pending = self.scene.send(value, model_version="2" if explicit else "")
            except GatewayError:
                assert explicit, "stable is always there"
                return
            if not explicit:
                self.sent.append((pending, float(value)))
                self.mirrored += 1
            await settle(turns)

        self.run(work())

    @rule(turns=TURNS)
    def go_on(self, turns: int) -> None:
        """Let a few turns of the loop pass."""
        self.run(settle(turns))

    @rule(seconds=st.sampled_from([0.3, 1.1]))
    def wait(self, seconds: float) -> None:
        """Let time pass, so that copies expire."""

        async def work() -> None:
            self.scene.clock.advance(seconds)
            await settle(2)

        self.run(work())

    @rule(index=st.integers(0, 9))
    def cancel(self, index: int) -> None:
        """A client gives up."""

        async def work() -> None:
            if self.sent:
                pending, _ = self.sent.pop(index % len(self.sent))
                pending.cancel()

        self.run(work())

    @rule(held=st.booleans(), stable=st.booleans())
    def hold(self, held: bool, stable: bool) -> None:
        """Keep the runs of a model, or let them go on."""

        async def work() -> None:
            model = self.scene.stable_model if stable else self.scene.shadow_model
            if held:
                model._held = True
            else:
                model.release()

        self.run(work())

    @rule(broken=st.booleans(), shift=st.sampled_from([0.0, 1.0]))
    def change(self, broken: bool, shift: float) -> None:
        """Break the shadow's backend, or have it answer otherwise."""
        self.scene.shadow_model.broken = broken
        self.scene.shadow_model.shift = shift

    @rule(there=st.sampled_from(["there", "gone", "replaced"]))
    def load(self, there: str) -> None:
        """Unload the shadow's version, load it again, or load other files under its number."""

        async def work() -> None:
            scene = self.scene
            if there == "replaced":
                _, other = scene.version(VersionId(MODEL, SHADOW.number, "other"))
                scene.catalog.show(scene.stable, other)
            else:
                scene.catalog.show(scene.stable, *([scene.shadow] if there == "there" else []))

        self.run(work())

    @rule()
    def advance(self) -> None:
        """The rollout goes to its next step: totals begin at zero."""
        self.step += 1
        self.mirrored = 0
        self.scene.follow(self.plan())

    @rule()
    def follow_again(self) -> None:
        """The same step with another weight: totals go on."""
        self.scene.follow(replace(self.plan(), epoch=self.step + 1))

    @invariant()
    def every_copy_is_accounted_for(self) -> None:
        """The identity holds, the caps hold, and slices add up to what was compared."""
        counts = self.scene.counts(step=self.step)
        assert balanced(counts)
        assert counts.mirrored == self.mirrored
        assert sum(pairs for pairs, _ in counts.slices["tier"].values()) == counts.compared
        assert counts.disagreed <= counts.compared
        assert 0 <= counts.under_way <= CAP
        assert len(self.scene.mirror._under_way) <= CAP
        assert 0 <= self.scene.mirror._bytes <= 16

    @invariant()
    def answers_are_stables(self) -> None:
        """Whatever the shadow does, each request gets what stable makes of it."""
        for pending, value in self.sent:
            if pending.done:
                assert pending.result().outputs[0].array.tolist() == [[value]]

    def teardown(self) -> None:
        """End in whatever state it is: everything is counted, and no lease is left."""

        async def work() -> None:
            counts = self.scene.counts(step=self.step)
            await self.scene.mirror.aclose()
            ended = self.scene.counts(step=self.step)
            assert balanced(ended)
            assert (ended.mirrored, ended.under_way) == (counts.mirrored, 0)
            assert not self.scene.mirror._under_way
            assert self.scene.mirror._bytes == 0
            self.scene.stable_model.release()
            self.scene.shadow_model.release()
            await settle(50)
            assert [done for done, _ in self.sent if not done.done] == []
            assert (self.scene.stable.leases, self.scene.shadow.leases) == (0, 0)

        try:
            self.run(work())
        finally:
            self.runner.close()


Mirroring.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
TestMirroring = Mirroring.TestCase
