"""Gateways that end in the middle of rollouts: what was on record goes on, and users are answered."""

from __future__ import annotations

import pytest

from loadtests.soak_rollouts import end_over_and_over, withdraw_the_bad

KILLS = 20
TERMINATIONS = 2


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_killed_gateway_goes_on_where_it_was() -> None:
    """By SIGKILL, at random moments: no epoch falls, no step is lost, what is not READY has no users."""
    report = end_over_and_over(KILLS, seed=17, politely=False)
    assert report.problems == []
    assert len(report.phases) >= 2, "the kills were not spread over the rollout"
    assert report.answers.by_arm()["canary"] > 0


@pytest.mark.soak
def test_a_stopped_gateway_fails_nobody() -> None:
    """By SIGTERM: whoever was accepted was answered, and the rollout goes on in the next life."""
    report = end_over_and_over(TERMINATIONS, seed=3, politely=True)
    assert report.problems == []
    assert report.answers.by_arm()["canary"] > 0


@pytest.mark.slow
def test_a_bad_version_is_withdrawn_before_anybody_has_an_error() -> None:
    """It fails for a fifth of its users; once that is proven, it answers nobody any more."""
    found = withdraw_the_bad()
    assert found.answers.problems == []
    assert found.reason.startswith(("safety.errors: ", "safety.fallbacks: "))
    assert found.late == 0
