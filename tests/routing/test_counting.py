"""What the request path counts: units, errors, thresholds and windows."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    Draining,
    GatewayError,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    Unsupported,
)
from gateway.core.evidence import ArmCounts
from gateway.core.rollout import PPM
from gateway.routing.counting import EvidenceCounter
from gateway.routing.routes import RouteTable
from gateway.testing import VirtualClock
from tests.routing.stage import ask, plan

THRESHOLDS = (0.01, 0.1)


def counter(**changes: Any) -> EvidenceCounter:
    return EvidenceCounter(plan(latency_thresholds_s=THRESHOLDS, **changes))


def test_a_key_counts_once_per_window() -> None:
    """Ten failures of one user in a window are one; in the next window they are another."""
    made = counter()
    arm = made.arm("canary")
    for tenth in range(20):
        made.finished(arm, 7, 1000.0 + tenth, 0.05, True)
    assert made.totals()["canary"] == ArmCounts(requests=20, units=2, errors=2, exceeded=(2, 0), measured=2)


def test_what_is_worse_counts_later_in_the_window_too() -> None:
    """A key seen well and then badly, or fast and then slowly, counts once for each."""
    made = counter()
    arm = made.arm("stable")
    for latency_s, failed in [(0.001, False), (0.05, False), (0.5, True), (0.5, True)]:
        made.finished(arm, 7, 1000.0, latency_s, failed)
    expected = ArmCounts(requests=4, units=1, errors=1, exceeded=(1, 1), measured=1)
    assert made.totals()["stable"] == expected


def test_a_threshold_is_exceeded_by_more_than_itself() -> None:
    """Exactly as slow as the threshold is not slower."""
    made = counter(unit_is_key=False)
    for latency_s in (0.01, 0.0100001, 0.1, 0.2):
        made.finished(made.arm("stable"), 1, 1000.0, latency_s, False)
    assert made.totals()["stable"].exceeded == (3, 1)


def test_where_the_unit_is_the_request_every_one_counts() -> None:
    """So it does for requests without a key, whatever the unit."""
    by_request, by_key = counter(unit_is_key=False), counter()
    for _ in range(5):
        by_request.finished(by_request.arm("stable"), 7, 1000.0, 0.5, True)
        by_key.finished(by_key.arm("stable"), None, 1000.0, 0.5, True)
    expected = ArmCounts(requests=5, units=5, errors=5, exceeded=(5, 5), measured=5)
    assert by_request.totals()["stable"] == by_key.totals()["stable"] == expected


def test_beyond_the_bound_further_keys_count_by_request() -> None:
    """It says so, keys known before still count once, and the next window has room again."""
    made = EvidenceCounter(plan(), max_keys=2)
    for unit in (1, 2, 3, 3, 1):
        made.finished(made.arm("stable"), unit, 1000.0, None, True)
    assert (made.totals()["stable"].units, made.totals()["stable"].errors, made.saturated) == (4, 4, 2)
    for _ in range(2):
        made.finished(made.arm("stable"), 3, 1010.0, None, True)
    assert (made.totals()["stable"].units, made.saturated) == (5, 2)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.floats(0, 40), st.one_of(st.none(), st.floats(0, 0.3)), st.booleans()
        ),
        max_size=60,
    )
)
def test_units_are_the_distinct_keys_of_each_window(
    events: list[tuple[int, float, float | None, bool]],
) -> None:
    """Counted again from scratch: sets of (window, key), for each of the totals."""
    made, expected = counter(), Counter[str]()
    seen: set[tuple[object, ...]] = set()
    for unit, at_s, latency_s, failed in sorted(events, key=lambda event: event[1]):
        made.finished(made.arm("stable"), unit, at_s, latency_s, failed)
        marks = ["units"] + ["errors"] * failed + ["measured"] * (latency_s is not None)
        marks += [f"over {t}" for t in THRESHOLDS if latency_s is not None and latency_s > t]
        for mark in marks:
            expected[mark] += (mark, at_s // 10, unit) not in seen
            seen.add((mark, at_s // 10, unit))
    totals = made.totals()["stable"]
    assert (totals.units, totals.errors, totals.measured) == (
        expected["units"],
        expected["errors"],
        expected["measured"],
    )
    assert totals.exceeded == tuple(expected[f"over {t}"] for t in THRESHOLDS)


@pytest.mark.parametrize(
    "kind",
    [InvalidRequest, PayloadTooLarge, NotFound, PermissionDenied, Unsupported, Cancelled, Draining],
)
def test_clients_faults_and_cancellations_are_left_out(kind: type[GatewayError]) -> None:
    """They are looked at for the ratio of the arms alone."""
    assert ended_by(kind("x")) == ArmCounts(requests_all=1, keys=1)


@pytest.mark.parametrize(
    "kind", [BackendError, BackendUnavailable, NotReady, Overloaded, DeadlineExceeded, GatewayError, KeyError]
)
def test_other_failures_are_the_arms(kind: type[Exception]) -> None:
    """Also what nobody foresaw."""
    assert ended_by(kind("x")) == ArmCounts(requests=1, units=1, errors=1, requests_all=1, keys=1)


def ended_by(error: Exception) -> ArmCounts:
    """What is counted for a request that failed so."""
    table = RouteTable(VirtualClock())
    table.apply([plan(0)])
    sent = ask("ann")
    table.routes["m"].assign(sent)
    table.routes["m"].ended(sent, None, error)
    return table.evidence()["id", 1]["stable"]


def test_keys_are_the_distinct_buckets_of_all_requests() -> None:
    """A user who comes back is one, in whatever window, however requests end; without a key each is one."""
    table = RouteTable(VirtualClock(), random_unit=iter(range(0, 1 << 64, 1 << 60)).__next__)
    table.apply([plan(window_s=1.0)])
    route = table.routes["m"]
    users: dict[str, set[str]] = {"stable": set(), "canary": set()}
    for number in range(300):
        sent = ask(f"u{number % 40}")
        users[route.assign(sent).name].add(f"u{number % 40}")
        route.ended(sent, float(number), None) if number % 3 else route.ended(sent, None, Cancelled("x"))
    totals = table.evidence()["id", 1]
    assert {arm: counts.keys for arm, counts in totals.items()} == {arm: len(u) for arm, u in users.items()}
    assert sum(counts.requests_all for counts in totals.values()) == 300
    for _ in range(16):
        sent = ask()
        route.assign(sent)
        route.ended(sent, None, None)
    assert sum(counts.keys for counts in table.evidence()["id", 1].values()) == 40 + 16


@given(st.lists(st.tuples(st.booleans(), st.integers(0, PPM - 1)), max_size=40))
def test_each_bucket_counts_for_the_arm_that_it_came_to_first(came: list[tuple[bool, int]]) -> None:
    """From the first to the last bucket, neighbours are told apart."""
    made, first = counter(), dict[int, str]()
    for is_canary, bucket in came:
        arm = "canary" if is_canary else "stable"
        made.took_part(made.arm(arm), bucket)
        first.setdefault(bucket, arm)
    keys = {arm: counts.keys for arm, counts in made.totals().items()}
    assert keys == {arm: list(first.values()).count(arm) for arm in ("stable", "canary")}


def test_latency_is_counted_from_the_time_that_the_plan_says() -> None:
    """Requests that came before are counted but for their latency; it runs from arrival to answer."""
    table = RouteTable(VirtualClock())
    table.apply([plan(0, latency_thresholds_s=(0.2,), evidence_from_s=1000.0)])
    for arrived_s in (999.9, 1000.0):
        sent = ask(f"at {arrived_s}", arrived_s=arrived_s)
        table.routes["m"].assign(sent)
        table.routes["m"].ended(sent, 1000.25, None)
    totals = table.evidence()["id", 1]["stable"]
    assert (totals.units, totals.measured, totals.exceeded) == (2, 1, (1,))


def test_totals_go_on_while_a_step_counts_alike() -> None:
    """A new weight or epoch keeps them; another step, threshold, window or unit begins at zero."""
    table = RouteTable(VirtualClock())
    first = plan(0)

    def requests_after(next_plan: Any) -> int:
        table.apply([])
        table.apply([first])
        sent = ask("ann")
        table.routes["m"].assign(sent)
        table.routes["m"].ended(sent, 1000.0, None)
        table.apply([next_plan])
        ((totals,),) = [[arms["stable"]] for arms in table.evidence().values()]
        return totals.requests

    for kept in (first, plan(10, epoch=4), replace(first, evidence_from_s=5.0)):
        assert requests_after(kept) == 1
    for new in (
        replace(first, step=2),
        replace(first, rollout_id="other"),
        replace(first, latency_thresholds_s=(0.1,)),
        replace(first, window_s=5.0),
        replace(first, unit_is_key=False),
    ):
        assert requests_after(new) == 0


def test_a_crash_counts_for_the_arm_of_that_version() -> None:
    """By digest; versions of no arm change nothing."""
    table = RouteTable(VirtualClock())
    table.apply([plan()])
    canary = plan().arms[1].version
    table.crashed(canary)
    table.crashed(canary._replace(digest="other"))
    totals = table.evidence()["id", 1]
    assert (totals["canary"].crashes, totals["stable"].crashes) == (1, 0)
