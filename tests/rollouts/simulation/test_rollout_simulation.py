"""Rollouts in virtual time: the real cores decide, and what they decide is what users would have seen."""

from dataclasses import replace
from datetime import datetime
from statistics import mean
from typing import Any

import pytest

from gateway.core.rollout import (
    ApproveStep,
    Assignment,
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    ExternalGate,
    FreezeWindow,
    HashSpec,
    Hesitation,
    PauseStep,
    Policy,
    PrometheusGate,
    PromoteStep,
    Requirement,
    RolloutSpec,
    ShadowStep,
    SrmGate,
    Step,
    Target,
    WeightStep,
)
from gateway.rollouts import decider, events, replica
from gateway.rollouts.simulation import simulate
from gateway.rollouts.simulation_course import Course, Ending, Scenario
from gateway.rollouts.simulation_runs import courses, summary
from gateway.rollouts.simulation_traffic import Rates

FRIDAY_S = datetime.fromisoformat("2026-11-20T16:00+01:00").timestamp()
SAFETY = (SrmGate(), ErrorsGate(), ExceedGate(threshold_s=0.04), CrashesGate(), ExternalGate("http://x/"))
FIRST = WeightStep(100_000, 300.0, 3600.0, ("safety",))
SECOND = WeightStep(500_000, 300.0, 3600.0, ("safety",))
PROMOTE = PromoteStep(600.0, ("safety",))
ALIKE = Rates(
    requests_per_s=500.0, stable_errors=0.01, canary_errors=0.01, stable_slow=0.02, canary_slow=0.02
)


def spec(*steps: Step, **changes: Any) -> RolloutSpec:
    """Return a rollout over two weights, unless other steps are given."""
    values: dict[str, Any] = {
        "name": "line",
        "model": "m",
        "stable": Target("1"),
        "canary": Target("@next"),
        "assign": Assignment(HashSpec("salt")),
        "steps": steps or (FIRST, SECOND, PROMOTE),
        "gates": {"safety": SAFETY},
    }
    return RolloutSpec(**(values | changes))


def course(rollout: RolloutSpec, rates: Rates = ALIKE, **scenario: Any) -> Course:
    return simulate(rollout, Scenario(rates=rates, **scenario))


def test_an_identical_canary_is_promoted() -> None:
    """Through every step in order, each as long as it must be; then the rollback window."""
    found = course(spec())
    assert (found.ending, found.advice) == (Ending.PROMOTED, "")
    assert [stage.index for stage in found.stages] == [0, 1, 2]
    assert [stage.weight_ppm for stage in found.stages] == [100_000, 500_000, 1_000_000]
    assert all(stage.served_s >= 300 for stage in found.stages[:2])
    assert found.promoted_s == found.stages[1].ended_s == found.ended_s - 600
    first = found.stages[0]
    assert first.seen.requests == pytest.approx(50 * first.ended_s, rel=0.05)
    assert first.seen.errors == pytest.approx(0.5 * first.ended_s, rel=0.3)
    assert {gate["verdict"] for gate in first.gates} == {"pass"}


def test_five_times_the_errors_are_withdrawn_in_the_first_step() -> None:
    """Of two hundred, nearly all; few users see an error of it."""
    rates = replace(ALIKE, canary_errors=0.05)
    found = [course(spec(), rates, seed=seed) for seed in range(200)]
    early = [c for c in found if c.ending is Ending.WITHDRAWN and len(c.stages) == 1]
    assert len(early) >= 198
    assert all("safety.errors" in c.reason for c in early)
    assert max(c.ended_s for c in early) < 120
    assert all(c.seen.users_errors < 300 for c in early)


def test_the_same_seed_gives_the_same_course() -> None:
    """And another one another."""
    assert course(spec(FIRST, PROMOTE), seed=7) == course(spec(FIRST, PROMOTE), seed=7)
    assert course(spec(FIRST, PROMOTE), seed=7) != course(spec(FIRST, PROMOTE), seed=8)


def test_looking_less_often_changes_no_verdict_and_times_little_on_average() -> None:
    """The requests are the same, whatever the strides; the windows in which they are compared are not."""
    rates = replace(ALIKE, requests_per_s=100.0, canary_errors=0.02)
    often, seldom = [], []
    for seed in range(8):
        scenario = Scenario(rates=rates, seed=seed)
        often.append(simulate(spec(), scenario, stride_s=1))
        seldom.append(simulate(spec(), scenario))
    assert {c.ending for c in (*often, *seldom)} == {Ending.WITHDRAWN}
    assert [len(c.stages) for c in often] == [len(c.stages) for c in seldom]
    late_s = [b.ended_s - a.ended_s for a, b in zip(often, seldom, strict=True)]
    assert abs(mean(late_s)) < 0.2 * mean(c.ended_s for c in often), late_s
    assert sum(c.looks for c in seldom) < 0.75 * sum(c.looks for c in often)


def test_a_day_of_baking_takes_few_looks() -> None:
    """And ends on the second at which it is over."""
    long = replace(FIRST, min_bake_s=86_400.0, max_bake_s=90_000.0)
    found = course(spec(long, PROMOTE), replace(ALIKE, requests_per_s=50.0))
    assert found.ending is Ending.PROMOTED
    assert found.looks < 2_500
    assert found.promoted_s == pytest.approx(86_400, abs=3)


def test_an_approval_and_a_pause_are_waited_for() -> None:
    """As long as people take; and given up where they never come."""
    steps = (FIRST, ApproveStep(2, frozenset({"risk"})), PauseStep(None), PauseStep(120.0), PROMOTE)
    found = course(spec(*steps), approve_after_s=7200.0, resume_after_s=60.0)
    assert found.ending is Ending.PROMOTED
    assert [stage.ended_s - stage.began_s for stage in found.stages[1:4]] == [7200, 60, 120]
    told = [moment.what for moment in found.moments if moment.phase is None]
    assert told == ["approved by person-1", "approved by person-2", "resumed"]
    alone = course(spec(*steps))
    assert (alone.ending, alone.reason) == (Ending.HELD, "it waits for approval for ever")
    assert "--approve-after" in alone.advice
    paused = course(spec(*steps), approve_after_s=60.0)
    assert (paused.ending, "--resume-after" in paused.advice) == (Ending.HELD, True)


def test_a_freeze_window_blocks_and_ends() -> None:
    """It begins before the first step is over: the next begins when the freeze ends, to the second."""
    night = (FreezeWindow("0 17 * * FRI", 12 * 3600.0, "Europe/Berlin"),)
    late = course(spec(freeze=night), start_wall_s=FRIDAY_S + 3500)
    assert late.ending is Ending.PROMOTED
    assert late.stages[0].ended_s == 100 + 12 * 3600
    frozen = course(spec(FIRST, PROMOTE, freeze=night), start_wall_s=FRIDAY_S + 2 * 3600)
    assert frozen.stages[0].began_s == 11 * 3600
    assert frozen.looks < 1_000
    never = course(spec(freeze=(FreezeWindow("* * * * *", 60.0, "No/Zone"),)))
    assert (never.ending, never.ended_s, "tz" in never.advice) == (Ending.HELD, 0, True)


def test_a_file_whose_gates_cannot_pass_is_held() -> None:
    """No failures prove nothing about a ratio; what to do is said. With the other policy it is withdrawn."""
    nothing_fails = replace(ALIKE, stable_errors=0.0, canary_errors=0.0)
    found = course(spec(), nothing_fails)
    assert (found.ending, found.promoted_s) == (Ending.HELD, None)
    assert found.reason.startswith("inconclusive")
    assert "an operator has to" in found.advice
    gates = {gate["name"]: gate["verdict"] for gate in found.stages[-1].gates}
    assert gates["safety.errors"] == "undecided"
    hasty = course(spec(policy=Policy(inconclusive=Hesitation.ABORT)), nothing_fails)
    assert hasty.ending is Ending.WITHDRAWN
    assert hasty.ended_s == pytest.approx(3600, abs=5)


def test_a_paused_file_never_begins() -> None:
    """It says so at once."""
    found = course(spec(paused=True))
    assert (found.ending, found.ended_s, found.stages) == (Ending.HELD, 0, ())
    assert "paused: true" in found.reason


def test_a_crash_withdraws() -> None:
    """By the second; with the other policy by the gate that counts crashes."""
    found = course(spec(), crash_at_s=(100,))
    assert (found.ending, found.ended_s) == (Ending.WITHDRAWN, 100)
    assert "capacity" in found.reason
    patient = course(spec(policy=Policy(canary_capacity_lost=Hesitation.HOLD)), crash_at_s=(100,))
    assert (patient.ending, "safety.crashes" in patient.reason) == (Ending.WITHDRAWN, True)


def test_what_outsiders_say_is_heard() -> None:
    """A failure withdraws at its time, a hold holds; a number out of bounds does the same."""
    found = course(spec(), external_at=((200, "fail"),))
    assert (found.ending, found.ended_s, "safety.external" in found.reason) == (Ending.WITHDRAWN, 200, True)
    held = course(spec(), external="hold")
    assert (held.ending, "asked to hold" in held.reason) == (Ending.HELD, True)
    freed = course(spec(FIRST, PROMOTE), external="no_data", external_at=((900, "pass"),))
    assert freed.ending is Ending.PROMOTED
    assert freed.promoted_s is not None
    assert freed.promoted_s >= 900 + 300
    gates = {"safety": (PrometheusGate("http://p/", "up", max_value=1.0, for_s=60.0),)}
    beyond = course(spec(FIRST, PROMOTE, gates=gates), external_at=((200, "fail"),))
    assert (beyond.ending, "safety.prometheus" in beyond.reason) == (Ending.WITHDRAWN, True)
    assert 260 <= beyond.ended_s <= 270


def test_a_shadow_that_differs_is_withdrawn_before_it_answers_anybody() -> None:
    """Nobody has got an answer of it."""
    shadow = ShadowStep(500_000, 60.0, 600.0, ("agreement",))
    gates = {"agreement": (DisagreeGate(0.02),), "safety": SAFETY}
    found = course(spec(shadow, FIRST, PROMOTE, gates=gates), replace(ALIKE, disagreement=0.1))
    assert (found.ending, found.seen.requests) == (Ending.WITHDRAWN, 0)
    assert found.seen.pairs > 0
    fails = course(spec(shadow, FIRST, PROMOTE, gates=gates), replace(ALIKE, canary_errors=0.2))
    assert (fails.ending, fails.seen.users_errors) == (Ending.WITHDRAWN, 0)


def test_fallbacks_spare_the_users_but_count() -> None:
    """What fails in the canary is answered by stable, and the canary is withdrawn all the same."""
    assign = Assignment(HashSpec("salt"), fallback_stable=True)
    found = course(spec(assign=assign), replace(ALIKE, canary_errors=0.2))
    assert (found.ending, len(found.stages)) == (Ending.WITHDRAWN, 1)
    assert found.seen.errors > 10
    assert found.seen.users_errors < found.seen.errors / 10
    others = course(spec(assign=assign), replace(ALIKE, fallbacks=0.2))
    assert (others.ending, "errors" in others.reason) == (Ending.WITHDRAWN, True)


def test_a_holdout_gets_no_canary() -> None:
    """Even where the weight would have it all."""
    assign = Assignment(HashSpec("salt"), holdout_ppm=900_000)
    everything = replace(SECOND, weight_ppm=1_000_000)
    found = course(spec(everything, PROMOTE, assign=assign))
    first = found.stages[0]
    assert found.ending is Ending.PROMOTED
    assert first.seen.requests == pytest.approx(50 * first.ended_s, rel=0.05)


def test_errors_after_promotion_are_rolled_back() -> None:
    """The gates of the rollback window see them, against nothing but their own limits."""
    gates = {"safety": (CrashesGate(),)}
    found = course(spec(FIRST, PROMOTE, gates=gates), crash_at_s=(400,))
    assert (found.ending, found.phase.value) == (Ending.WITHDRAWN, "rolled_back")
    assert found.promoted_s is not None
    assert found.ended_s == 400


def test_the_decider_decides() -> None:
    """One that is deaf to failures promotes what the real one withdraws."""

    def deaf(state: Any, event: Any) -> Any:
        if isinstance(event, events.EvidenceReport):
            arms = {name: replace(arm, errors=0) for name, arm in event.evidence.arms.items()}
            event = replace(event, evidence=replace(event.evidence, arms=arms))
        return decider.step(state, event)

    gates = {"safety": (ErrorsGate(),)}
    rollout = spec(replace(FIRST, require=Requirement.NO_HARM), PromoteStep(0.0), gates=gates)
    bad = Scenario(rates=replace(ALIKE, canary_errors=0.05))
    assert simulate(rollout, bad).ending is Ending.WITHDRAWN
    assert simulate(rollout, bad, decide=deaf).ending is Ending.PROMOTED


def test_the_replica_follows() -> None:
    """One that never acknowledges gets no canary: loading times out."""

    def mute(state: Any, event: Any) -> Any:
        return (state, ()) if isinstance(event, events.VersionReady) else replica.step(state, event)

    found = simulate(spec(), Scenario(rates=ALIKE), follow=mute)
    assert (found.ending, found.seen.requests) == (Ending.WITHDRAWN, 0)
    assert found.reason.startswith("load_failed")


def test_many_runs_are_the_single_ones_with_seeds_in_order() -> None:
    """Shares, median and ninetieth hundredth are of these."""
    rollout, scenario = spec(), Scenario(rates=replace(ALIKE, canary_errors=0.05), seed=3)
    found = list(courses(rollout, scenario, 9))
    assert found == [simulate(rollout, replace(scenario, seed=3 + number)) for number in range(9)]
    share = summary(found)[Ending.WITHDRAWN]
    ordered = sorted(c.ended_s for c in found)
    assert (share.runs, share.share) == (9, 1.0)
    assert (share.seconds.median, share.seconds.p90) == (ordered[4], ordered[8])
    assert share.reasons == {"safety.errors": 9}
