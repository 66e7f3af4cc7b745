"""Properties of the policy that hold whatever requests, probes and time do."""

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.backends.remote.policy import FleetPolicy
from gateway.core.remote import (
    Address,
    ConcurrencyOptions,
    EjectionOptions,
    EndpointState,
    FleetOptions,
    HedgingOptions,
    Outcome,
    RetryOptions,
)
from tests.properties import examples

ADDRESSES = [Address("10.0.0.1", 8000 + number) for number in range(6)]
STATES = {
    None: {EndpointState.CONNECTING},
    EndpointState.CONNECTING: {EndpointState.HEALTHY, EndpointState.EJECTED, EndpointState.DRAINING},
    EndpointState.HEALTHY: {EndpointState.EJECTED, EndpointState.OPEN, EndpointState.DRAINING},
    EndpointState.OPEN: {EndpointState.HEALTHY, EndpointState.EJECTED, EndpointState.DRAINING},
    EndpointState.EJECTED: {EndpointState.HEALTHY, EndpointState.DRAINING},
    EndpointState.DRAINING: {EndpointState.CONNECTING},
}
some = st.frozensets(st.sampled_from(ADDRESSES))


class PolicyMachine(RuleBasedStateMachine):
    """Calls a FleetPolicy as a shell may, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.under_way: list[tuple[Address, float]] = []
        self.present: frozenset[Address] = frozenset()
        self.states: dict[Address, EndpointState | None] = {}
        self.by_probe: set[Address] = set()
        self.probing: Address | None = None
        self.requests = self.retries = self.hedges = 0

    @initialize(
        seed=st.integers(0, 1000),
        max_share=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
        consecutive=st.integers(1, 5),
        slow_start_s=st.sampled_from([0.0, 5.0]),
        concurrency=st.sampled_from(
            [ConcurrencyOptions(initial=3, max=8), ConcurrencyOptions(adaptive=False, initial=2)]
        ),
    )
    def start(self, seed: int, max_share: float, consecutive: int, **options: Any) -> None:
        self.ejection = EjectionOptions(
            max_share=max_share, consecutive=consecutive, min_volume=4, base_s=3.0
        )
        self.options = FleetOptions(
            name="f",
            ejection=self.ejection,
            retry=RetryOptions(budget_share=0.2, budget_floor_per_s=0.5),
            hedging=HedgingOptions(enabled=True, max_share=0.1),
            **options,
        )
        self.policy = FleetPolicy(self.options, random.Random(seed).random, on_endpoint=self.changed)
        self.set_addresses(frozenset(ADDRESSES[:4]))
        for address in ADDRESSES[:4]:
            self.probe(address, True)

    def changed(self, address: Address, state: EndpointState, reason: str) -> None:
        before = self.states.get(address)
        assert state in STATES[before], f"{before} -> {state}"
        assert bool(reason) is (state not in {EndpointState.HEALTHY, EndpointState.CONNECTING})
        self.states[address] = state
        if state is EndpointState.EJECTED and self.probing == address:
            self.by_probe.add(address)
        elif state is not EndpointState.EJECTED:
            self.by_probe.discard(address)
        elif self.probing is None:
            out = sum(s is EndpointState.EJECTED for a, s in self.states.items() if a in self.present)
            assert out <= max(1, int(self.ejection.max_share * len(self.present)))
            assert len(self.present) > 1

    @rule(addresses=some)
    def set_addresses(self, addresses: frozenset[Address]) -> None:
        self.present = addresses
        self.policy.set_addresses(sorted(addresses), self.now_s)
        self.gone()

    def gone(self) -> None:
        known = {view.address for view in self.policy.views()}
        for address in set(self.states) - known:
            assert self.states.pop(address) is EndpointState.DRAINING

    @rule(address=st.sampled_from(ADDRESSES), ready=st.booleans())
    def probe(self, address: Address, ready: bool) -> None:
        self.probing = address
        self.policy.probed(address, ready, self.now_s, "" if ready else "not ready")
        self.probing = None

    @rule(exclude=some, among=st.none() | some, affinity=st.none() | st.sampled_from("abc"), go=st.booleans())
    def pick(
        self, exclude: frozenset[Address], among: frozenset[Address] | None, affinity: str | None, go: bool
    ) -> None:
        before = {view.address: view for view in self.policy.views()}
        chosen = self.policy.pick(self.now_s, exclude=exclude, among=among, affinity=affinity)
        may = [
            view
            for address, view in before.items()
            if address not in exclude and (among is None or address in among) and view.inflight < view.limit
        ]
        if chosen is None:
            assert affinity is not None or not any(v.state is EndpointState.HEALTHY for v in may)
            assert self.policy.why_none in {"no_endpoint", "limit_full"}
            return
        assert chosen in {view.address for view in may}
        assert before[chosen].state in {EndpointState.HEALTHY, EndpointState.EJECTED}
        if before[chosen].state is EndpointState.EJECTED:
            fellows = [
                v
                for a, v in before.items()
                if (among is None or a in among)
                and v.state in {EndpointState.HEALTHY, EndpointState.OPEN, EndpointState.EJECTED}
            ]
            out = sum(v.state is EndpointState.EJECTED for v in fellows)
            assert len(fellows) - out < self.ejection.panic_share * len(fellows)
        if go:
            self.policy.began(chosen, self.now_s)
            self.under_way.append((chosen, self.now_s))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(Outcome))
    def end(self, which: int, outcome: Outcome) -> None:
        address, began_s = self.under_way.pop(which % len(self.under_way))
        self.policy.ended(address, outcome, self.now_s - began_s, self.now_s)
        self.gone()

    @rule(address=st.sampled_from(ADDRESSES), outcome=st.sampled_from(Outcome), times=st.integers(1, 12))
    def run_there(self, address: Address, outcome: Outcome, times: int) -> None:
        for _ in range(times):
            if self.policy.pick(self.now_s, among=[address]) is None:
                return
            self.policy.began(address, self.now_s)
            self.policy.ended(address, outcome, 0.0, self.now_s)

    @rule(seconds=st.floats(0.0, 20.0), report=st.floats(0.0, 5.0), count=st.integers(0, 50))
    def wait(self, seconds: float, report: float, count: int) -> None:
        end_s = self.now_s + seconds
        while (due_s := self.policy.next_event_s(self.now_s)) is not None and due_s <= end_s:
            self.now_s = max(self.now_s, due_s)
            self.policy.tick(self.now_s)
            after_s = self.policy.next_event_s(self.now_s)
            assert after_s is None or after_s > self.now_s, "what was due is done"
        self.now_s = end_s
        for address in ADDRESSES:
            self.policy.queue_reported(address, report, 1.0, count, self.now_s)

    @rule(retries=st.integers(0, 5), hedges=st.integers(0, 5))
    def request(self, retries: int, hedges: int) -> None:
        self.policy.request_began()
        self.requests += 1
        self.retries += sum(self.policy.may_retry(self.now_s) for _ in range(retries))
        self.hedges += sum(self.policy.may_hedge() for _ in range(hedges))

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "policy"):
            return
        retry = self.options.retry
        floor = 1.0 + retry.budget_floor_per_s * (self.now_s - 100.0)
        assert self.retries <= retry.budget_share * self.requests + floor + 1e-6
        assert self.hedges <= self.options.hedging.max_share * self.requests + 1e-6
        views = {view.address: view for view in self.policy.views()}
        assert set(views) == self.present | {address for address, _ in self.under_way}
        limits = self.options.concurrency
        for address, view in views.items():
            assert view.state is self.states[address]
            assert (view.state is EndpointState.DRAINING) is (address not in self.present)
            assert view.inflight == sum(a == address for a, _ in self.under_way)
            assert limits.min <= view.limit <= (limits.max if limits.adaptive else limits.initial)
            assert view.until_s is None or view.state is EndpointState.EJECTED
        assert self.policy.available == sum(v.state is EndpointState.HEALTHY for v in views.values())

    def teardown(self) -> None:
        """Whatever was: once probes are good and nothing fails, every endpoint is in use again."""
        if not hasattr(self, "policy"):
            return
        for address, began_s in self.under_way:
            self.policy.ended(address, Outcome.CANCELLED, self.now_s - began_s, self.now_s)
        self.under_way.clear()
        for address in self.present:
            self.probe(address, True)
        self.wait(self.ejection.max_s * 1.2, 0.0, 0)
        assert {v.state for v in self.policy.views()} <= {EndpointState.HEALTHY}
        assert {v.address for v in self.policy.views()} == self.present


TestPolicy = PolicyMachine.TestCase
TestPolicy.settings = settings(max_examples=examples(60), stateful_step_count=60, deadline=None)
