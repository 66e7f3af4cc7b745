"""Streams that follow a route: marked, counted once, and stable in the canary's place before an answer."""

from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from gateway.core.errors import BackendError, InvalidRequest, NotFound
from gateway.core.evidence import ArmCounts
from gateway.core.rollout import PPM
from gateway.core.types import InferRequest, InferResponse
from gateway.testing import identity_signature, settle
from tests.models.stage import wanted
from tests.routing.stage import BY_USER, USER, RoutedStage, ask, plan

BOTH = (wanted("m", 1, "d1"), wanted("m", 2, "d2"))
DECOUPLED = replace(identity_signature(), decoupled=True)
FALLING_BACK = replace(BY_USER, fallback_stable=True)


def ask_rows(user: str, *tags: float) -> InferRequest:
    """A request with a row, and so a response, for each tag."""
    sent = ask(user)
    sent.inputs[0].array = np.array(tags, np.float32).reshape(-1, 1)
    return sent


async def all_of(stage: RoutedStage, sent: InferRequest) -> list[InferResponse]:
    async with aclosing(stage.router.stream(sent)) as responses:  # type: ignore[type-var]
        return [response async for response in responses]


async def test_every_response_says_which_arm_it_is_from() -> None:
    """The request counts once, however many there are."""
    async with RoutedStage(DECOUPLED).serving(*BOTH) as stage:
        stage.table.apply([plan()])
        for arm, number in (("stable", "1"), ("canary", "2")):
            responses = await all_of(stage, ask_rows(stage.user(arm), 1, 2, 3))
            assert [(r.model_version, r.parameters["gateway_arm"]) for r in responses] == [(number, arm)] * 4
            assert stage.counts(arm) == ArmCounts(requests=1, units=1, measured=1, requests_all=1, keys=1)


async def test_an_explicit_version_bypasses_the_route() -> None:
    """Nothing is marked, nothing counted; nor where the model has no route."""
    async with RoutedStage(DECOUPLED).serving(*BOTH) as stage:
        stage.table.apply([plan()])
        sent = ask("ann", model_version="1")
        assert [dict(r.parameters) for r in await all_of(stage, sent)] == [{}, {}]
        assert sent.assigned is None
        assert stage.counts("stable").requests_all == 0
        stage.table.apply([])
        assert [r.model_version for r in await all_of(stage, ask("ann"))] == ["2", "2"]


async def test_the_latency_of_a_stream_is_that_of_its_first_response() -> None:
    """A reader that takes its time is not held against the arm."""
    async with RoutedStage(DECOUPLED).serving(*BOTH) as stage:
        stage.table.apply([plan(0, latency_thresholds_s=(1.0,))])
        async with aclosing(stage.router.stream(ask_rows("ann", 1, 2))) as responses:  # type: ignore[type-var]
            async for _ in responses:
                stage.clock.advance(60.0)
        assert stage.counts("stable").exceeded == (0,)


async def test_a_stream_that_is_given_up_is_left_out() -> None:
    """Its version is let go of; after the final response it had its whole answer."""
    async with RoutedStage(DECOUPLED).serving(*BOTH) as stage:
        stage.table.apply([plan(0)])
        async with aclosing(stage.router.stream(ask_rows("ann", 1, 2))) as responses:  # type: ignore[type-var]
            await anext(responses)
            assert stage.manager.get("m", "1").leases == 1  # type: ignore[attr-defined]
        assert stage.counts("stable") == ArmCounts(requests_all=1, keys=1)
        async with aclosing(stage.router.stream(ask_rows("ann", 1))) as responses:  # type: ignore[type-var]
            assert not (await anext(responses)).final
            assert (await anext(responses)).final
        assert stage.counts("stable").requests == 1
        assert stage.manager.get("m", "1").leases == 0  # type: ignore[attr-defined]


async def test_a_failure_before_the_first_response_falls_back() -> None:
    """Where that is asked for; the canary is charged."""
    async with RoutedStage(DECOUPLED, changes={"d2": {"poison": 3.0}}).serving(*BOTH) as stage:
        stage.table.apply([plan(PPM)])
        with pytest.raises(BackendError):
            await all_of(stage, ask_rows("ann", 3.0))
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)
        stage.table.apply([])
        stage.table.apply([plan(PPM, assign=FALLING_BACK)])
        responses = await all_of(stage, ask_rows("ann", 3.0))
        marked = {"gateway_arm": "stable", "gateway_fallback": True}
        assert [(r.model_version, dict(r.parameters)) for r in responses] == [("1", marked)] * 2
        assert stage.counts("canary") == ArmCounts(
            requests=1, units=1, errors=1, measured=1, fallbacks=1, requests_all=1, keys=1
        )


async def test_a_canary_that_is_not_loaded_is_stood_in_for() -> None:
    """And if stable is not there either, that is said."""
    async with RoutedStage(DECOUPLED).serving(BOTH[0]) as stage:
        stage.table.apply([plan(PPM)])
        assert [r.model_version for r in await all_of(stage, ask_rows("ann", 1))] == ["1", "1"]
        assert stage.counts("canary").fallbacks == 1
    async with RoutedStage(DECOUPLED).serving() as stage:
        stage.table.apply([plan(PPM)])
        with pytest.raises(NotFound):
            await all_of(stage, ask("ann", headers={USER: "ann"}))


async def test_a_failure_in_the_canary_counts_where_stable_is_gone() -> None:
    """What the reader is told is that stable is not there; what is counted is the canary's failure."""
    async with RoutedStage(DECOUPLED, changes={"d2": {"poison": 3.0}}).serving(BOTH[1]) as stage:
        stage.table.apply([plan(PPM, assign=FALLING_BACK)])
        with pytest.raises(NotFound):
            await all_of(stage, ask_rows("ann", 3.0))
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)


async def test_a_canary_that_refuses_what_stable_takes_is_charged() -> None:
    """As for single answers: with the setting stable answers, without it the refusal stands."""
    narrow = replace(identity_signature(features=2), decoupled=True)
    async with RoutedStage(DECOUPLED, changes={"d2": {"signature": narrow}}).serving(*BOTH) as stage:
        stage.table.apply([plan(PPM)])
        with pytest.raises(InvalidRequest):
            await all_of(stage, ask_rows("ann", 1.0))
        assert stage.counts("canary") == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)
        stage.table.apply([plan(PPM, assign=FALLING_BACK, step=2)])
        assert [r.model_version for r in await all_of(stage, ask_rows("ann", 1.0))] == ["1", "1"]
        assert stage.counts("canary", step=2).fallbacks == 1


async def test_plans_change_under_a_stream_without_touching_it() -> None:
    """It ends in the version that it began in."""
    async with RoutedStage(DECOUPLED).serving(*BOTH) as stage:
        stage.table.apply([plan(PPM)])
        versions = []
        async with aclosing(stage.router.stream(ask_rows("ann", 1, 2, 3))) as responses:  # type: ignore[type-var]
            async for response in responses:
                versions.append(response.model_version)
                stage.table.apply([plan(0, step=2)])
                await settle()
        assert versions == ["2"] * 4
