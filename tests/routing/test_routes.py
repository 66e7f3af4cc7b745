"""Requests that follow a route: pinned, seeing one plan, never crossing versions but by falling back."""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gateway.core.errors import Cancelled, NotFound, NotReady, Overloaded
from gateway.core.evidence import ArmRoute, RoutePlan, ShadowRoute
from gateway.core.options import BatchingOptions
from gateway.core.pending import Pending
from gateway.core.rollout import PPM, HeaderOverride, ShadowSpec, Target
from gateway.core.types import InferRequest
from gateway.models.lazy import LazyModels
from gateway.routing.cold_starts import ColdStarts
from gateway.routing.router import Router
from gateway.routing.routes import RouteTable
from gateway.testing import VirtualClock, settle
from tests.models.lazy_stage import LazyStage, sleeper
from tests.models.stage import wanted
from tests.routing.stage import BY_USER, RoutedStage, ask, plan, version

BOTH = (wanted("m", 1, "d1"), wanted("m", 2, "d2"))


async def test_a_request_without_a_version_follows_the_route() -> None:
    """Each user's arm answers, and says so in version and parameter."""
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([plan()])
        for arm, number in (("stable", "1"), ("canary", "2")):
            for user in stage.users(arm, 5):
                response = await stage.router.submit(ask(user))
                assert (response.model_version, dict(response.parameters)) == (number, {"gateway_arm": arm})
        assert stage.counts("stable").requests == stage.counts("canary").requests == 5


async def test_an_explicit_version_bypasses_the_route() -> None:
    """It is answered as without one: no arm, no evidence, nothing mirrored."""
    mirror = Mirror()
    async with RoutedStage(shadows=mirror).serving(*BOTH) as stage:
        stage.table.apply([replace(plan(PPM), shadows=(SHADOW,))])
        sent = ask("ann", model_version="1")
        response = await stage.router.submit(sent)
        assert (response.model_version, dict(response.parameters), sent.assigned) == ("1", {}, None)
        assert (stage.counts("canary").requests_all, mirror.seen) == (0, [])


async def test_without_a_plan_nothing_changes() -> None:
    """Models without a route, and all of them once the plans are gone, get their newest version."""
    async with RoutedStage().serving(*BOTH, wanted("other", 4, "d4")) as stage:
        stage.table.apply([plan(0)])
        response = await stage.router.submit(ask("ann", model="other"))
        assert (response.model_version, dict(response.parameters)) == ("4", {})
        stage.table.apply([])
        sent = ask("ann")
        response = await stage.router.submit(sent)
        assert (response.model_version, dict(response.parameters), sent.assigned) == ("2", {}, None)


async def test_a_request_sees_the_plan_that_it_came_under() -> None:
    """Plans are replaced while it runs: it ends in its version, arm and step, and counts there."""
    stage = RoutedStage(changes={"d1": {"held": True}, "d2": {"held": True}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([plan()])
        user = stage.user("canary")
        route = stage.table.routes["m"]
        pending = stage.router.submit(ask(user))
        await settle()
        stage.table.apply([plan(0, step=2, epoch=2)])
        later = stage.router.submit(ask(user))
        await settle()
        stage.models["d2"].release()
        stage.models["d1"].release()
        assert ((await pending).model_version, (await later).model_version) == ("2", "1")
        assert route.evidence.totals()["canary"].requests == 1
        assert stage.counts("canary", step=2).requests_all == 0
        assert stage.counts("stable", step=2).requests == 1


async def test_a_batch_never_mixes_versions() -> None:
    """Requests of both arms sent in one turn are run apart, by the version that each was assigned to."""
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([plan()])
        users = [f"u{number}" for number in range(40)]
        sent = [ask(user, tag=float(tag)) for tag, user in enumerate(users)]
        answers = await asyncio.gather(*[_answer(stage.router.submit(request)) for request in sent])
        for digest, arm in (("d1", "stable"), ("d2", "canary")):
            ran = {float(tag) for batch in stage.models[digest].batches for tag in batch.inputs["x"].ravel()}
            due = {
                float(tag)
                for tag, request in enumerate(sent)
                if request.assigned is not None and request.assigned.arm == arm
            }
            assert ran == due
        assert set(answers) == {"1", "2"}


async def _answer(pending: Pending) -> str:
    return (await pending).model_version


async def test_an_arm_is_leased_by_digest() -> None:
    """Other files under the canary's number are not the canary: stable answers, and that is counted."""
    async with RoutedStage().serving(*BOTH) as stage:
        canary = ArmRoute("canary", version(2)._replace(digest="another"), PPM // 2)
        stage.table.apply([replace(plan(), arms=(plan().arms[0], canary))])
        response = await stage.router.submit(ask(stage.user("canary")))
        assert (response.model_version, dict(response.parameters)) == (
            "1",
            {"gateway_arm": "stable", "gateway_fallback": True},
        )
        counts = stage.counts("canary")
        assert (counts.requests, counts.errors, counts.fallbacks) == (1, 1, 1)
        loaded = {served.id.number: served for served in stage.manager.served()}
        assert {number: served.leases for number, served in loaded.items()} == {1: 0, 2: 0}  # type: ignore[attr-defined]


async def test_stable_that_is_not_ready_is_refused_as_without_a_route() -> None:
    """Nothing else stands in for it, and nothing is counted."""
    async with RoutedStage().serving(BOTH[1]) as stage:
        stage.table.apply([plan(0)])
        with pytest.raises(NotFound, match="version 1 is not found"):
            stage.router.submit(ask("ann"))
        wrong = ArmRoute("stable", version(2)._replace(digest="another"), PPM)
        stage.table.apply([replace(plan(), arms=(wrong,))])
        with pytest.raises(NotReady, match="another than arm 'stable'"):
            stage.router.submit(ask("ann"))
        assert stage.counts("stable").requests_all == 0


async def test_a_refusal_by_the_queue_is_counted_and_lets_go() -> None:
    """What the arm's version refuses at once has failed in that arm."""
    full = BatchingOptions(max_queue_rows=1)
    stage = RoutedStage(changes={"d1": {"held": True}})
    async with stage.serving(wanted("m", 1, "d1", batching=full)) as stage:
        stage.table.apply([replace(plan(), arms=(ArmRoute("stable", version(1), PPM),))])
        running = stage.router.submit(ask("a"))
        await settle()
        waiting = stage.router.submit(ask("b"))
        with pytest.raises(Overloaded):
            stage.router.submit(ask("c"))
        stage.models["d1"].release()
        await running
        await waiting
        counts = stage.counts("stable")
        assert (counts.requests, counts.errors) == (3, 1)
        assert stage.manager.get("m").leases == 0  # type: ignore[attr-defined]


async def test_a_cancelled_request_lets_go_and_is_left_out() -> None:
    """Its lease goes at once; it counts for the ratio of the arms alone."""
    stage = RoutedStage(changes={"d1": {"held": True}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([plan(0)])
        pending = stage.router.submit(ask("ann"))
        pending.cancel()
        with pytest.raises(Cancelled):
            await pending
        counts = stage.counts("stable")
        assert (counts.requests, counts.requests_all) == (0, 1)
        stage.models["d1"].release()
        await settle()


async def test_a_chosen_arm_answers_and_is_no_evidence() -> None:
    """Even where it has no weight; who chooses says nothing about how well arms do."""
    assign = replace(BY_USER, overrides=(HeaderOverride("x-arm", frozenset({"canary"})),))
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([plan(0, assign=assign)])
        response = await stage.router.submit(ask("ann", headers={"x-arm": "canary"}))
        assert (response.model_version, response.parameters["gateway_arm"]) == ("2", "canary")
        ignored = await stage.router.submit(ask("ann", headers={"x-arm": "stable"}))
        assert ignored.model_version == "1"
        view = stage.table.views()["m"]
        assert (view.overridden, view.overrides_refused) == (1, 1)
        assert (stage.counts("canary").requests_all, stage.counts("stable").requests_all) == (0, 1)


async def test_without_a_key_the_arm_is_random_and_each_request_a_unit() -> None:
    """Shares come out about right, and that there were no keys is told."""
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([plan()])
        arms = Counter[str]()
        for _ in range(300):
            sent = ask()
            stage.table.routes["m"].assign(sent)
            assert sent.assigned is not None
            assert not sent.assigned.keyed
            arms[sent.assigned.arm] += 1
        assert min(arms.values()) > 75  # of 150 expected: nine standard deviations away
        assert stage.table.views()["m"].unkeyed == 300


async def test_arms_agree_between_gateways_and_plans() -> None:
    """Two tables give a user the same arm, and a higher weight takes nobody back."""
    tables = [RouteTable(VirtualClock()), RouteTable(VirtualClock(7.0))]
    canaries: set[str] = set()
    for weight in (0, 10_000, 100_000, 500_000, PPM):
        got = []
        for table in tables:
            table.apply([plan(weight)])
            users = [f"u{number}" for number in range(400)]
            got.append({user for user in users if table.routes["m"].assign(ask(user)).name == "canary"})
        assert got[0] == got[1] >= canaries
        canaries = got[0]
    assert len(canaries) == 400


def test_a_set_of_plans_that_cannot_be_applied_changes_nothing() -> None:
    """Two for one model, or weights that are not everything."""
    table = RouteTable(VirtualClock())
    table.apply([plan()])
    route = table.routes["m"]
    for bad in ([plan(), plan(0)], [replace(plan(), arms=plan().arms[:1])]):
        with pytest.raises(ValueError, match=r"two routes|weights"):
            table.apply(bad)
    assert table.routes["m"] is route
    table.apply([plan()])
    assert table.routes["m"] is route


def test_plain_splits_are_no_evidence_of_a_rollout() -> None:
    """They are counted for people and metrics."""
    table = RouteTable(VirtualClock())
    table.apply([plan(rollout="", rollout_id="", step=0)])
    assert table.evidence() == {}
    view = table.views()["m"]
    assert [(arm.name, arm.version, arm.weight_ppm) for arm in view.arms] == [
        ("stable", version(1), PPM // 2),
        ("canary", version(2), PPM // 2),
    ]


# Shadows: the seam.


SHADOW = ShadowRoute(ShadowSpec("next", Target("2")), version(2))


class Mirror:
    """A ShadowSink that keeps what it was given; `fails` makes it raise."""

    def __init__(self) -> None:
        self.seen: list[tuple[InferRequest, RoutePlan, Pending]] = []
        self.fails = False

    def mirror(self, request: InferRequest, plan: RoutePlan, pending: Pending) -> None:
        self.seen.append((request, plan, pending))
        if self.fails:
            raise RuntimeError("a faulty mirror")


async def test_the_mirror_hears_of_each_dispatched_request() -> None:
    """With the plan and with the answer to come, which a fault of the mirror's does not touch."""
    mirror = Mirror()
    mirror.fails = True
    async with RoutedStage(shadows=mirror).serving(*BOTH) as stage:
        stage.table.apply([replace(plan(), shadows=(SHADOW,))])
        sent = ask("ann")
        pending = stage.router.submit(sent)
        assert mirror.seen == [(sent, stage.table.routes["m"].plan, pending)]
        await pending


async def test_shadows_alone_leave_the_choice_of_version_as_it_is() -> None:
    """A plan without arms mirrors what the newest version answers, and marks nothing."""
    mirror = Mirror()
    async with RoutedStage(shadows=mirror).serving(*BOTH) as stage:
        stage.table.apply([replace(plan(), arms=(), shadows=(SHADOW,))])
        response = await stage.router.submit(ask("ann"))
        assert (response.model_version, dict(response.parameters)) == ("2", {})
        assert len(mirror.seen) == 1


# Models that are loaded on first use.


async def test_a_lazy_stable_is_waited_for_counted_and_mirrored_once() -> None:
    """The request that wakes it is answered by the arm that it gets then."""
    stage, mirror = LazyStage(), Mirror()
    stage.backend.gate = asyncio.Event()
    async with stage.running(sleeper("m", 1, "d1"), sleeper("m", 2, "d2")) as manager:
        table = RouteTable(stage.clock, mirror)
        table.apply([replace(plan(0), shadows=(SHADOW,))])
        cold = ColdStarts(Router(manager, table=table), stage.lazy, stage.clock)
        stage.lazy.attach(manager, cold.changed)
        router = Router(manager, cold, table)
        sent = ask("ann")
        pending = router.submit(sent)
        assert (cold.waiting(), mirror.seen) == (1, [])
        stage.backend.gate.set()
        await stage.until(lambda: cold.waiting() == 0)
        stage.answer()
        response = await pending
        assert response.model_version == "1"
        assert response.parameters["gateway_arm"] == "stable"
        assert (table.evidence()["id", 1]["stable"].requests_all, len(mirror.seen)) == (1, 1)
        assert isinstance(stage.lazy, LazyModels)
        assert np.array_equal(sent.inputs[0].array, [[1.0]])
