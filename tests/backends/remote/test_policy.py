"""Decisions of the policy one by one."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.backends.remote.policy import FleetPolicy
from gateway.core.remote import (
    Address,
    ConcurrencyOptions,
    EjectionOptions,
    EndpointState,
    EndpointView,
    FleetOptions,
    Outcome,
)
from tests.backends.remote.simulation import address

A, B, C = address(0), address(1), address(2)
AT_ONCE = FleetOptions(name="f", slow_start_s=0.0, ejection=EjectionOptions(jitter_share=0.0))


class Fleet:
    """A policy with a clock."""

    def __init__(self, endpoints: Sequence[Address] = (A, B, C), options: FleetOptions = AT_ONCE) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[Address, EndpointState, str]] = []
        self.decisions: Counter[str] = Counter()
        self.policy = FleetPolicy(
            options,
            random.Random(1).random,
            on_endpoint=lambda *told: self.told.append(told),
            on_decision=lambda decision: self.decisions.update([decision]),
        )
        self.policy.set_addresses(endpoints, self.now_s)
        for endpoint in endpoints:
            self.probed(endpoint)

    def __getitem__(self, endpoint: Address) -> EndpointView:
        return next(view for view in self.policy.views() if view.address == endpoint)

    def probed(self, endpoint: Address, ready: bool = True, reason: str = "gone") -> None:
        self.policy.probed(endpoint, ready, self.now_s, "" if ready else reason)

    def pick(self, **asked: Any) -> Address | None:
        return self.policy.pick(self.now_s, **asked)

    def run(self, endpoint: Address, *outcomes: Outcome, seconds: float = 0.0) -> None:
        for outcome in outcomes:
            self.policy.began(endpoint, self.now_s)
            self.now_s += seconds
            self.policy.ended(endpoint, outcome, seconds, self.now_s)

    def wait(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while (due_s := self.policy.next_event_s(self.now_s)) is not None and due_s <= end_s:
            self.now_s = due_s
            self.policy.tick(due_s)
        self.now_s = end_s

    def share(self, **asked: Any) -> Counter[Address | None]:
        return Counter(self.pick(**asked) for _ in range(1000))


OK, FAILED, REFUSED, TIMED_OUT, CANCELLED = (
    Outcome.OK,
    Outcome.FAILED,
    Outcome.REFUSED,
    Outcome.TIMED_OUT,
    Outcome.CANCELLED,
)


def test_new_endpoints_wait_for_a_probe() -> None:
    """None is used before it said that it is ready; nothing counts as room meanwhile."""
    fleet = Fleet(())
    fleet.policy.set_addresses([A], fleet.now_s)
    assert fleet.pick() is None
    assert fleet.policy.why_none == "no_endpoint"
    assert (fleet.policy.available, fleet.policy.capacity) == (0, 0)
    fleet.probed(A)
    assert fleet.pick() == A
    assert (fleet.policy.available, fleet.policy.capacity) == (1, 16)
    assert [state for _, state, _ in fleet.told] == [EndpointState.CONNECTING, EndpointState.HEALTHY]


def test_an_endpoint_says_since_when_it_is_in_its_state() -> None:
    """Another reason for the same state begins nothing anew."""
    fleet = Fleet((A, B))
    found_s = fleet.now_s
    fleet.wait(5.0)
    assert fleet[A].since_s == found_s
    fleet.probed(A, ready=False)
    ejected_s = fleet.now_s
    fleet.wait(7.0)
    fleet.probed(A, ready=False, reason="gone again")
    assert (fleet[A].reason, fleet[A].since_s, fleet[B].since_s) == ("gone again", ejected_s, found_s)
    fleet.probed(A)
    assert (fleet[A].state, fleet[A].since_s) == (EndpointState.HEALTHY, fleet.now_s)


def test_what_states_there_are() -> None:
    """Among those asked for, and beside those that do not count."""
    fleet = Fleet((A, B))
    fleet.probed(A, ready=False)
    ejected = EndpointState.EJECTED
    assert fleet.policy.has(ejected, among=None, exclude=())
    assert fleet.policy.has(ejected, among=[A], exclude=[B])
    assert not fleet.policy.has(ejected, among=[B], exclude=())
    assert not fleet.policy.has(ejected, among=None, exclude=[A])
    assert not fleet.policy.has(EndpointState.OPEN, among=None, exclude=())


def test_the_less_loaded_is_picked() -> None:
    """Of two endpoints always, whatever the dice say."""
    fleet = Fleet((A, B))
    fleet.policy.began(A, fleet.now_s)
    assert fleet.share() == {B: 1000}


def test_idle_endpoints_share_evenly() -> None:
    """With nothing under way each gets a third."""
    assert all(280 < n < 390 for n in Fleet().share().values())


def test_one_at_its_limit_is_not_picked() -> None:
    """When each is, nothing is, and that is said."""
    fleet = Fleet((A, B), FleetOptions(name="f", concurrency=ConcurrencyOptions(adaptive=False, initial=2)))
    for _ in range(4):
        chosen = fleet.pick()
        assert chosen is not None
        fleet.policy.began(chosen, fleet.now_s)
    assert (fleet[A].inflight, fleet[B].inflight) == (2, 2)
    assert fleet.pick() is None
    assert fleet.policy.why_none == "limit_full"
    assert fleet.pick(among=[]) is None
    assert fleet.policy.why_none == "no_endpoint"


def test_excluded_and_others_than_asked_for_are_not_picked() -> None:
    """What is left of both is."""
    fleet = Fleet()
    assert fleet.share(exclude=[A], among=[A, B]) == {B: 1000}
    assert fleet.pick(exclude=[A], among=[A]) is None


def test_failures_in_a_row_eject_until_the_time_is_over() -> None:
    """The first good answer in between begins the count anew."""
    fleet = Fleet()
    fleet.run(A, *[FAILED] * 4, OK, *[FAILED] * 4)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, FAILED)
    assert fleet[A].state is EndpointState.EJECTED
    assert fleet[A].until_s == fleet.now_s + 10.0
    assert fleet[A].reason == "5 failures in a row"
    assert A not in fleet.share()
    fleet.wait(9.9)
    assert fleet[A].state is EndpointState.EJECTED
    fleet.wait(0.2)
    assert fleet[A].state is EndpointState.HEALTHY
    assert fleet[A].ejections == 1


def test_back_on_probation() -> None:
    """One failure ejects again, for longer; a good answer restores the whole allowance."""
    fleet = Fleet()
    fleet.run(A, *[FAILED] * 5)
    fleet.wait(10.0)
    fleet.run(A, FAILED)
    assert fleet[A].until_s == fleet.now_s + 20.0
    fleet.wait(20.0)
    fleet.run(A, OK, *[FAILED] * 4)
    assert fleet[A].state is EndpointState.HEALTHY


def test_calm_intervals_shorten_the_next_ejection() -> None:
    """What was ejected twice and is well for long is like new."""
    fleet = Fleet()
    fleet.run(A, *[FAILED] * 5)
    fleet.wait(10.0)
    fleet.run(A, FAILED)
    fleet.wait(40.0)
    fleet.run(A, OK, *[FAILED] * 5)
    assert fleet[A].until_s == fleet.now_s + 10.0


def test_what_was_under_way_before_an_ejection_says_nothing_after_it() -> None:
    """Late failures of the old days do not eject anew."""
    fleet = Fleet()
    for _ in range(3):
        fleet.policy.began(A, fleet.now_s)
    fleet.run(A, *[FAILED] * 5)
    fleet.wait(11.0)
    for _ in range(3):
        fleet.policy.ended(A, FAILED, 11.0, fleet.now_s)
    assert fleet[A].state is EndpointState.HEALTHY


def test_the_only_endpoint_is_not_ejected() -> None:
    """There would be nothing better; of two, one may be."""
    fleet = Fleet((A,))
    fleet.run(A, *[FAILED] * 50)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet = Fleet((A, B))
    fleet.run(A, *[FAILED] * 50)
    fleet.run(B, *[FAILED] * 50)
    assert (fleet[A].state, fleet[B].state) == (EndpointState.EJECTED, EndpointState.HEALTHY)


@pytest.mark.parametrize(
    ("bad", "others_bad", "ejected"),
    [(10, 0, True), (6, 0, True), (5, 0, False), (10, 6, False), (14, 6, True)],
)
def test_a_failure_share_ejects_an_outlier(bad: int, others_bad: int, ejected: bool) -> None:
    """At the end of an interval, of twenty attempts each; what fails elsewhere as well is no outlier."""
    options = FleetOptions(name="f", ejection=EjectionOptions(consecutive=1000))
    fleet = Fleet((A, B, C), options)
    fleet.run(A, *[FAILED] * bad, *[OK] * (20 - bad))
    for other in (B, C):
        fleet.run(other, *[FAILED] * others_bad, *[OK] * (20 - others_bad))
    fleet.wait(5.0)
    assert (fleet[A].state is EndpointState.EJECTED) is ejected
    assert fleet[B].state is EndpointState.HEALTHY


def test_few_attempts_say_nothing_about_a_share() -> None:
    """Below the volume an interval passes without a judgement, and is forgotten."""
    fleet = Fleet((A, B), FleetOptions(name="f", ejection=EjectionOptions(consecutive=1000)))
    for _ in range(3):
        fleet.run(A, *[FAILED] * 19)
        fleet.wait(5.0)
    assert fleet[A].state is EndpointState.HEALTHY


def test_refusals_open_the_circuit_for_a_moment() -> None:
    """Twice as long each time it refuses at once again; requests may wait for it."""
    fleet = Fleet((A,))
    fleet.run(A, *[REFUSED] * 5)
    assert fleet[A].state is EndpointState.OPEN
    assert fleet.pick() is None
    assert fleet.policy.why_none == "limit_full"
    fleet.wait(0.25)
    assert fleet.pick() == A
    fleet.run(A, REFUSED)
    fleet.wait(0.4)
    assert fleet[A].state is EndpointState.OPEN
    fleet.wait(0.1)
    fleet.run(A, OK, *[REFUSED] * 4)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, REFUSED)
    fleet.wait(0.3)
    assert fleet[A].state is EndpointState.HEALTHY, "a good answer began it anew"


def test_a_refusal_is_no_failure() -> None:
    """It never ejects, but what refuses gets less."""
    fleet = Fleet((A, B))
    fleet.run(A, *[REFUSED, REFUSED, REFUSED, OK] * 20)
    fleet.wait(5.0)
    assert fleet[A].state is EndpointState.HEALTHY
    assert fleet.share()[A] < 350


def test_what_fails_at_once_is_not_the_least_loaded() -> None:
    """One that has nothing under way as it fails gets less than one that works, until it is forgiven."""
    fleet = Fleet((A, B))
    fleet.run(A, *[FAILED] * 4, OK, *[FAILED] * 4)
    fleet.policy.began(B, fleet.now_s)
    assert fleet.share()[B] == 1000
    fleet.wait(60.0)
    assert fleet.share()[A] == 1000


def test_a_probe_that_fails_takes_an_endpoint_out_until_one_is_good() -> None:
    """A restarted endpoint is back with its first good probe."""
    fleet = Fleet()
    fleet.probed(A, False, "no answer")
    assert (fleet[A].state, fleet[A].reason) == (EndpointState.EJECTED, "no answer")
    assert fleet[A].until_s is None
    fleet.wait(1000.0)
    assert A not in fleet.share()
    fleet.probed(A)
    assert A in fleet.share()


def test_a_restarted_endpoint_is_on_probation() -> None:
    """A good probe is not yet a good answer: one failure takes it out again."""
    fleet = Fleet()
    fleet.probed(A, False)
    fleet.probed(A)
    fleet.run(A, FAILED)
    assert fleet[A].state is EndpointState.EJECTED


def test_an_ejected_endpoint_that_was_restarted_is_back_at_once() -> None:
    """The first time; one that fails again and again has to wait."""
    fleet = Fleet()
    fleet.run(A, *[FAILED] * 5)
    fleet.probed(A)
    assert fleet[A].state is EndpointState.EJECTED
    fleet.probed(A, False)
    fleet.probed(A)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, FAILED)
    fleet.probed(A, False)
    fleet.probed(A)
    assert fleet[A].state is EndpointState.EJECTED
    fleet.wait(20.0)
    assert fleet[A].state is EndpointState.HEALTHY


def test_an_ejected_endpoint_comes_back_only_when_ready() -> None:
    """The end of its time is not enough."""
    fleet = Fleet()
    fleet.run(A, *[FAILED] * 5)
    fleet.probed(A, False)
    fleet.wait(60.0)
    assert fleet[A].state is EndpointState.EJECTED
    fleet.probed(A)
    assert fleet[A].state is EndpointState.HEALTHY


def test_an_endpoint_that_answers_outweighs_one_probe() -> None:
    """A probe lost while good answers come ejects nothing; two do, and so does one after a failure."""
    fleet = Fleet()
    fleet.run(A, OK)
    fleet.probed(A, False)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, OK)
    fleet.probed(A, False)
    assert fleet[A].state is EndpointState.EJECTED
    fleet.run(B, OK, FAILED)
    fleet.probed(B, False)
    assert fleet[B].state is EndpointState.EJECTED
    fleet.run(C, OK)
    fleet.wait(0.3)
    fleet.probed(C, False)
    assert fleet[C].state is EndpointState.EJECTED


def test_panic_is_of_those_that_have_what_is_asked_for() -> None:
    """The only two endpoints of a version are used although ejected, while the fleet is well."""
    fleet = Fleet([address(n) for n in range(6)])
    for number in range(2, 6):
        fleet.run(address(number), *[OK] * 5)
    fleet.run(A, *[FAILED] * 5)
    fleet.run(B, *[FAILED] * 5)
    assert set(fleet.share(among=[A, B])) == {A, B}
    assert set(fleet.share()) == {address(n) for n in range(2, 6)}
    assert fleet.decisions["panic"] == 1000


def test_in_a_panic_those_that_answer_no_probe_come_last() -> None:
    """They get nothing while one that is ready may still take it, used or not."""
    fleet = Fleet((A, B, C))
    fleet.probed(A, False)
    fleet.probed(B, False)
    fleet.run(C, *[FAILED] * 5)
    assert fleet[C].state is EndpointState.HEALTHY, "no more may be ejected"
    assert set(fleet.share()) == {C}
    fleet.probed(C, False)
    assert set(fleet.share()) == {A, B, C}
    assert fleet.policy.capacity == 48


def test_timing_out_is_a_failure_given_time() -> None:
    """Twice the usual time is enough; less says nothing, however often."""
    fleet = Fleet()
    for endpoint in (A, B, C):
        fleet.run(endpoint, *[OK] * 50, seconds=0.1)
    fleet.run(A, *[TIMED_OUT] * 30, seconds=0.05)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, *[TIMED_OUT] * 5, seconds=0.5)
    assert fleet[A].state is EndpointState.EJECTED


def test_becoming_slow_is_no_excuse_for_timing_out() -> None:
    """The usual time is that of the others, where the endpoint's own is longer."""
    fleet = Fleet()
    for endpoint in (B, C):
        fleet.run(endpoint, *[OK] * 50, seconds=0.02)
    fleet.run(A, *[OK] * 50, seconds=0.9)
    fleet.run(A, *[TIMED_OUT] * 5, seconds=1.0)
    assert fleet[A].state is EndpointState.EJECTED


def test_a_fast_endpoint_is_measured_by_itself() -> None:
    """What is long for it is a failure, however slow the others are."""
    fleet = Fleet()
    for endpoint in (B, C):
        fleet.run(endpoint, *[OK] * 50, seconds=0.5)
    fleet.run(A, *[OK] * 50, seconds=0.01)
    fleet.run(A, *[TIMED_OUT] * 5, seconds=0.1)
    assert fleet[A].state is EndpointState.EJECTED


def test_where_nothing_is_known_timing_out_is_a_failure() -> None:
    """A fleet that never answered has no usual time."""
    fleet = Fleet()
    fleet.run(A, *[TIMED_OUT] * 5, seconds=0.01)
    assert fleet[A].state is EndpointState.EJECTED


def test_cancelled_says_nothing() -> None:
    """Neither for nor against: failures in a row go on being counted across it."""
    fleet = Fleet()
    fleet.run(A, *[CANCELLED] * 100)
    assert fleet[A].state is EndpointState.HEALTHY
    fleet.run(A, *[FAILED] * 4, *[CANCELLED] * 3, FAILED)
    assert fleet[A].state is EndpointState.EJECTED


def test_gone_endpoints_drain_and_are_forgotten() -> None:
    """Nothing new goes there; the last answer ends it; coming back before that, it is probed first."""
    fleet = Fleet((A, B))
    fleet.policy.began(A, fleet.now_s)
    fleet.policy.set_addresses([], fleet.now_s)
    assert [(v.address, v.state) for v in fleet.policy.views()] == [(A, EndpointState.DRAINING)]
    assert fleet.pick() is None
    fleet.probed(A)
    fleet.probed(B, False)
    fleet.policy.set_addresses([A], fleet.now_s)
    assert (fleet[A].state, fleet[A].inflight) == (EndpointState.CONNECTING, 1)
    fleet.policy.set_addresses([], fleet.now_s)
    fleet.policy.ended(A, OK, 0.0, fleet.now_s)
    assert fleet.policy.views() == []
    assert fleet.policy.next_event_s(fleet.now_s) is None


def test_affinity_stays_and_moves_only_what_it_must() -> None:
    """Every key has its endpoint, whatever the load; of one that goes, its keys alone move, and come back."""
    fleet = Fleet([address(n) for n in range(5)])
    keys = [f"sequence {n}" for n in range(300)]
    homes = {key: fleet.pick(affinity=key) for key in keys}
    assert all(40 < n < 85 for n in Counter(homes.values()).values())
    for _ in range(10):
        fleet.policy.began(A, fleet.now_s)
    assert {key: fleet.pick(affinity=key) for key in keys} == homes
    assert not fleet.decisions
    fleet.run(A, *[FAILED] * 5)
    moved = {key: fleet.pick(affinity=key) for key in keys}
    assert {key for key in keys if moved[key] != homes[key]} == {key for key in keys if homes[key] == A}
    assert A not in moved.values()
    assert fleet.decisions == {"affinity_moved": sum(home == A for home in homes.values())}
    fleet.wait(11.0)
    assert {key: fleet.pick(affinity=key) for key in keys} == homes


def test_affinity_waits_for_a_full_endpoint() -> None:
    """What belongs to an endpoint that is only full does not go elsewhere."""
    options = FleetOptions(name="f", concurrency=ConcurrencyOptions(adaptive=False, initial=1))
    fleet = Fleet((A, B), options)
    home = fleet.pick(affinity="x")
    assert home is not None
    fleet.policy.began(home, fleet.now_s)
    assert fleet.pick(affinity="x") is None
    assert fleet.policy.why_none == "limit_full"
    assert fleet.pick(affinity="x", exclude=[home]) == ({A, B} - {home}).pop()


def test_gateways_agree_on_affinity() -> None:
    """Whatever their dice and the order in which they learned of endpoints."""
    one, other = Fleet((A, B, C)), Fleet((C, A, B))
    assert all(one.pick(affinity=str(n)) == other.pick(affinity=str(n)) for n in range(100))


def test_an_idle_fleet_has_no_events() -> None:
    """Time alone changes nothing where nothing happened."""
    fleet = Fleet()
    assert fleet.policy.next_event_s(fleet.now_s) is None
    fleet.run(A, OK)
    fleet.wait(5.0)
    assert fleet.policy.next_event_s(fleet.now_s) is None
