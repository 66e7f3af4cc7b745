"""Stable in a canary's place: once, in time, and counted against the canary."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    InvalidRequest,
    NotFound,
    Overloaded,
)
from gateway.core.evidence import ArmCounts
from gateway.core.options import BatchingOptions
from gateway.core.rollout import PPM
from gateway.core.types import Datatype, Tensor
from gateway.testing import identity_signature, settle
from tests.models.stage import wanted
from tests.routing.stage import BY_USER, RoutedStage, ask, plan

BOTH = (wanted("m", 1, "d1"), wanted("m", 2, "d2"))
FALLING_BACK = replace(BY_USER, fallback_stable=True)
STOOD_IN = {"gateway_arm": "stable", "gateway_fallback": True}
FAILED = ArmCounts(requests=1, units=1, errors=1, measured=1, fallbacks=1, requests_all=1, keys=1)


def to_canary(**changes: Any) -> Any:
    """Everybody gets the canary, and stable in its place."""
    return plan(PPM, assign=FALLING_BACK, **changes)


async def test_a_request_that_fails_in_the_canary_is_answered_by_stable() -> None:
    """The same tensors, once; the answer says so, and the canary is charged."""
    async with RoutedStage(changes={"d2": {"poison": 3.0}}).serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        sent = ask("ann", tag=3.0)
        response = await stage.router.submit(sent)
        assert (response.model_version, dict(response.parameters)) == ("1", STOOD_IN)
        assert np.array_equal(response.outputs[0].array, [[3.0]])
        assert (sent.served_version, len(stage.models["d1"].batches), len(stage.models["d2"].batches)) == (
            1,
            1,
            1,
        )
        assert stage.counts("canary") == FAILED
        assert stage.counts("stable").requests_all == 0
        assert {v.id.number: v.leases for v in stage.manager.served()} == {1: 0, 2: 0}  # type: ignore[attr-defined]


async def test_one_that_the_canary_answers_is_the_canarys() -> None:
    """Having a second chance changes nothing for it."""
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        response = await stage.router.submit(ask("ann"))
        assert (response.model_version, dict(response.parameters)) == ("2", {"gateway_arm": "canary"})
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, measured=1, requests_all=1, keys=1)
        assert len(stage.models["d1"].batches) == 0


async def test_a_refusal_by_the_canary_at_once_falls_back_too() -> None:
    """Its queue is full: stable has room."""
    full = BatchingOptions(max_queue_rows=1)
    stage = RoutedStage(changes={"d2": {"held": True}})
    async with stage.serving(BOTH[0], wanted("m", 2, "d2", batching=full)) as stage:
        stage.table.apply([to_canary()])
        running = stage.router.submit(ask("a"))
        await settle()
        waiting = stage.router.submit(ask("b"))
        response = await stage.router.submit(ask("c"))
        assert dict(response.parameters) == STOOD_IN
        assert (stage.counts("canary").fallbacks, stage.counts("canary").errors) == (1, 1)
        stage.models["d2"].release()
        assert [(await pending).model_version for pending in (running, waiting)] == ["2", "2"]


async def test_without_the_setting_the_failure_is_the_clients() -> None:
    """Only a canary that is not there at all is stood in for without being asked for."""
    async with RoutedStage(changes={"d2": {"poison": 3.0}}).serving(*BOTH) as stage:
        stage.table.apply([plan(PPM)])
        with pytest.raises(BackendError):
            await stage.router.submit(ask("ann", tag=3.0))
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)
        assert len(stage.models["d1"].batches) == 0


async def test_a_canary_that_is_not_loaded_is_stood_in_for() -> None:
    """With and without the setting, since nothing has been tried yet."""
    async with RoutedStage().serving(BOTH[0]) as stage:
        for assign in (BY_USER, FALLING_BACK):
            stage.table.apply([])
            stage.table.apply([plan(PPM, assign=assign)])
            response = await stage.router.submit(ask("ann"))
            assert (response.model_version, dict(response.parameters)) == ("1", STOOD_IN)
            assert stage.counts("canary") == FAILED


async def test_a_clients_own_fault_is_not_tried_twice() -> None:
    """Stable would refuse it just as well."""
    async with RoutedStage().serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        sent = ask("ann")
        sent.inputs = (Tensor("other", Datatype.FP32, np.zeros((1, 1), np.float32)),)
        with pytest.raises(InvalidRequest):
            stage.router.submit(sent)
        assert stage.counts("canary") == ArmCounts(requests_all=1, keys=1)


async def test_a_canary_that_refuses_what_stable_takes_is_charged() -> None:
    """Its validation is no client's fault; the other way round it is, as clients go by what stable takes."""
    stage = RoutedStage(changes={"d2": {"signature": identity_signature(features=2)}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([plan(PPM)])
        with pytest.raises(InvalidRequest):
            stage.router.submit(ask("ann"))
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)
        stage.table.apply([plan(PPM, step=2)])
        nobodys = ask("ann")
        nobodys.inputs = (Tensor("other", Datatype.FP32, np.zeros((1, 1), np.float32)),)
        with pytest.raises(InvalidRequest):
            stage.router.submit(nobodys)
        assert stage.counts("canary", step=2) == ArmCounts(requests_all=1, keys=1)
        stage.table.apply([plan(0, step=3)])
        wide = ask("ann")
        wide.inputs = (Tensor("x", Datatype.FP32, np.zeros((1, 2), np.float32)),)
        with pytest.raises(InvalidRequest):
            stage.router.submit(wide)
        assert stage.counts("stable", step=3) == ArmCounts(requests_all=1, keys=1)


async def test_what_the_canary_alone_refuses_falls_back() -> None:
    """Where that is asked for: nothing is wrong with the request."""
    stage = RoutedStage(changes={"d2": {"signature": identity_signature(features=2)}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        response = await stage.router.submit(ask("ann"))
        assert (response.model_version, dict(response.parameters)) == ("1", STOOD_IN)
        assert stage.counts("canary") == FAILED
        assert {v.id.number: v.leases for v in stage.manager.served()} == {1: 0, 2: 0}  # type: ignore[attr-defined]


async def test_a_refusal_counts_for_nobody_where_stable_cannot_be_asked() -> None:
    """It is gone, or another content is served under its number."""
    stage = RoutedStage(changes={"d2": {"signature": identity_signature(features=2)}})
    for others in ((), (wanted("m", 1, "another"),)):
        async with stage.serving(BOTH[1], *others):
            stage.table.apply([plan(PPM)])
            with pytest.raises(InvalidRequest):
                stage.router.submit(ask("ann"))
            assert stage.counts("canary") == ArmCounts(requests_all=1, keys=1)


async def test_time_that_has_run_out_is_not_tried_twice() -> None:
    """A failure that comes after the deadline stands, and is the canary's."""
    stage = RoutedStage(changes={"d2": {"held": True}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        pending = stage.router.submit(ask("ann", deadline_s=stage.clock.now_s() + 1.0))
        await settle()
        stage.clock.advance(2.0)
        stage.models["d2"].broken = True
        stage.models["d2"].release()
        with pytest.raises(BackendUnavailable):
            await pending
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)
        assert len(stage.models["d1"].batches) == 0


async def test_stables_own_failure_is_the_last_word() -> None:
    """Nobody stands in for stable; the canary is charged, but not for a fallback that helped."""
    stage = RoutedStage(changes={"d1": {"poison": 3.0}, "d2": {"poison": 3.0}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        sent = ask("ann", tag=3.0)
        with pytest.raises(BackendError):
            await stage.router.submit(sent)
        assert sent.served_version == 1
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)


async def test_where_stable_is_gone_its_absence_is_the_answer() -> None:
    """The request fails once, whoever was to stand in."""
    async with RoutedStage(changes={"d2": {"poison": 3.0}}).serving(BOTH[1]) as stage:
        stage.table.apply([to_canary()])
        with pytest.raises(NotFound):
            await stage.router.submit(ask("ann", tag=3.0))
        assert stage.counts("canary").errors == 1


async def test_where_stable_is_full_too_that_is_the_answer() -> None:
    """With the time after which a retry is sensible, if it has one."""
    full = BatchingOptions(max_queue_rows=1)
    stage = RoutedStage(changes={"d1": {"held": True}, "d2": {"poison": 3.0}})
    async with stage.serving(wanted("m", 1, "d1", batching=full), BOTH[1]) as stage:
        stage.table.apply([to_canary()])
        others = [stage.router.submit(ask("a", model_version="1"))]
        await settle()
        others.append(stage.router.submit(ask("b", model_version="1")))
        with pytest.raises(Overloaded):
            await stage.router.submit(ask("ann", tag=3.0))
        assert stage.counts("canary").errors == 1
        stage.models["d1"].release()
        for other in others:
            await other


@pytest.mark.parametrize("held", ["d1", "d2"])
async def test_cancelling_cancels_whichever_runs(held: str) -> None:
    """In the canary or in stable; the lease is given back, and nobody is told twice."""
    changes: dict[str, dict[str, Any]] = {
        "d1": {"held": held == "d1"},
        "d2": {"held": held == "d2", "poison": 3.0},
    }
    async with RoutedStage(changes=changes).serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        pending = stage.router.submit(ask("ann", tag=3.0))
        await settle()
        assert stage.models[held].running == 1
        assert pending.cancel()
        with pytest.raises(Cancelled):
            await pending
        stage.models[held].release()
        await settle()
        assert {v.id.number: v.leases for v in stage.manager.served()} == {1: 0, 2: 0}  # type: ignore[attr-defined]
        # Cancelled in the canary it says nothing; in stable the canary had failed by then.
        assert stage.counts("canary").errors == (1 if held == "d1" else 0)
        assert stage.counts("canary").requests_all == 1


async def test_a_switch_of_plans_does_not_part_a_request_from_its_stable() -> None:
    """It falls back to the stable of the plan that it was assigned by."""
    stage = RoutedStage(changes={"d2": {"held": True, "poison": 3.0}})
    async with stage.serving(*BOTH) as stage:
        stage.table.apply([to_canary()])
        route = stage.table.routes["m"]
        pending = stage.router.submit(ask("ann", tag=3.0))
        await settle()
        stage.table.apply([])
        stage.models["d2"].release()
        response = await pending
        assert (response.model_version, dict(response.parameters)) == ("1", STOOD_IN)
        assert route.evidence.totals()["canary"] == FAILED
