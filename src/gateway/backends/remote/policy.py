"""What a fleet decides: where a request goes, which endpoints are in use, what may be sent twice. Pure."""

from __future__ import annotations

import random as randomness
from typing import TYPE_CHECKING

from gateway.backends.remote.balancing import by_affinity, choice_of_two, less_loaded
from gateway.backends.remote.hedging import Hedging
from gateway.backends.remote.lifecycle import Lifecycle
from gateway.backends.remote.outliers import is_panic
from gateway.backends.remote.retry_budget import RetryBudget
from gateway.core.remote import EndpointState, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.backends.remote.endpoint import Endpoint
    from gateway.core.remote import Address, EndpointView, FleetOptions

_PROBED = (EndpointState.HEALTHY, EndpointState.OPEN, EndpointState.EJECTED)


class FleetPolicy:
    """Decides for one fleet; no clock, no I/O, not thread-safe. Times are monotonic seconds.

    Which endpoints are in use, `Lifecycle` says. `pick` gives neither an endpoint that is excluded, draining,
    open or new, nor one that is at its limit; one that is ejected only in a panic. Each `began` is followed
    by one `ended`. Retries and hedges are bounded as RetryBudget and Hedging say.

    Args:
        options: of the fleet.
        random: gives numbers in [0, 1).
        on_endpoint: told of every change of a state: address, state, reason.
        on_decision: told of `panic`, when an ejected endpoint is used for want of others, and of
            `affinity_moved`, when a request goes elsewhere than it would if every endpoint were in use.
    """

    def __init__(
        self,
        options: FleetOptions,
        random: Callable[[], float] = randomness.random,
        *,
        on_endpoint: Callable[[Address, EndpointState, str], None] | None = None,
        on_decision: Callable[[str], None] | None = None,
    ) -> None:
        self._options = options
        self._random = random
        self._on_decision = on_decision
        self._lifecycle = Lifecycle(options, random, on_endpoint)
        self._endpoints = self._lifecycle.endpoints
        self._budget = RetryBudget(options.retry)
        self._hedging = Hedging(options.hedging)
        self.why_none = "no_endpoint"
        """Why the last `pick` gave none: `no_endpoint` may be used, or `limit_full`: all have no room now."""

    def set_addresses(self, addresses: Collection[Address], now_s: float) -> None:
        """Take the complete set of endpoints; those that are gone drain."""
        self._lifecycle.set_addresses(addresses, now_s)

    def probed(self, address: Address, ready: bool, now_s: float, reason: str = "") -> None:
        """Take an endpoint's answer to a probe; of one that is gone, nothing."""
        self._lifecycle.probed(address, ready, now_s, reason)

    def queue_reported(
        self, address: Address, wait_s: float, compute_s: float, count: int, now_s: float
    ) -> None:
        """Take how long requests waited and ran there, on average over `count` since the last report."""
        endpoint = self._endpoints.get(address)
        if endpoint is not None and count > 0:
            endpoint.limit.reported(max(0.0, wait_s), max(0.0, compute_s), count, now_s)

    def tick(self, now_s: float) -> None:
        """Do what is due; to be called when `next_event_s` has come."""
        self._budget.turn(now_s)
        self._lifecycle.tick(now_s)

    def next_event_s(self, now_s: float) -> float | None:
        """Return when `tick` has something to do; None: nothing is under way that time alone would change."""
        return self._lifecycle.next_event_s(now_s)

    def views(self) -> list[EndpointView]:
        """Return every endpoint as it is now, those that drain included."""
        return [endpoint.view() for endpoint in self._endpoints.values()]

    def has(
        self, state: EndpointState, *, among: Collection[Address] | None, exclude: Collection[Address]
    ) -> bool:
        """Return whether an endpoint is in a state, of `among` (None: of all) and beside `exclude`."""
        return any(
            e.state is state and e.address not in exclude and (among is None or e.address in among)
            for e in self._endpoints.values()
        )

    @property
    def available(self) -> int:
        """How many endpoints are in use."""
        return sum(e.state is EndpointState.HEALTHY for e in self._endpoints.values())

    @property
    def capacity(self) -> int:
        """How many attempts may be under way together at endpoints in use; in a panic at the ejected, too."""
        usable = [EndpointState.HEALTHY]
        if self._lifecycle.ejected and self._is_panic(list(self._endpoints.values())):
            usable.append(EndpointState.EJECTED)
        return sum(e.limit.limit for e in self._endpoints.values() if e.state in usable)

    def pick(
        self,
        now_s: float,
        *,
        exclude: Collection[Address] = (),
        among: Collection[Address] | None = None,
        affinity: str | None = None,
    ) -> Address | None:
        """Return where an attempt should go; None: nowhere now, and `why_none` says why.

        Without affinity the less loaded of two endpoints taken at random. In a panic, when too few of those
        that may answer are in use, one in use and one ejected are compared: what is still in use is filled
        first. An ejected endpoint whose probes fail is taken only when there is no other at all.

        With affinity always the same endpoint while it is in use, whatever its load; when it is full the
        request has to wait.

        Args:
            now_s: monotonic time.
            exclude: never these.
            among: only these; None: any.
            affinity: requests that share it go together.
        """
        known = self._known(among)
        in_panic = self._lifecycle.ejected > 0 and self._is_panic(known)
        if affinity is not None:
            chosen = self._sticky(known, exclude, affinity, in_panic=in_panic)
        else:
            chosen = self._balanced(known, exclude, now_s, in_panic=in_panic)
        if chosen is None:
            in_use = (e for e in known if in_panic or e.state is not EndpointState.EJECTED)
            full = any(e.state in _PROBED and e.address not in exclude for e in in_use)
            self.why_none = "limit_full" if full else "no_endpoint"
            return None
        if chosen.state is EndpointState.EJECTED:
            self._decided("panic")
        return chosen.address

    def began(self, address: Address, now_s: float) -> None:  # noqa: ARG002 - the seam's; ends carry the time
        """An attempt was sent to an endpoint just picked."""
        endpoint = self._endpoints[address]
        endpoint.inflight += 1
        endpoint.limit.began(endpoint.inflight)

    def ended(self, address: Address, outcome: Outcome, seconds: float, now_s: float) -> None:
        """An attempt is over.

        One that timed out counts as a failure if it had time enough: see `had_enough_time`. Otherwise it says
        only that such answers take at least so long. A refusal is no failure: it makes the endpoint's limit
        and share smaller, and several in a row open its circuit.

        Args:
            address: where.
            outcome: what it says about the endpoint.
            seconds: since its `began`.
            now_s: monotonic time.
        """
        endpoint = self._endpoints[address]
        inflight = endpoint.inflight
        assert inflight > 0, "an attempt ends once"
        endpoint.inflight = inflight - 1
        match outcome:
            case Outcome.OK:
                endpoint.answered(seconds, now_s)
            case Outcome.REFUSED:
                self._lifecycle.refused(endpoint, inflight, seconds, now_s)
            case Outcome.FAILED:
                self._lifecycle.failed(endpoint, seconds, now_s)
            case Outcome.TIMED_OUT:
                self._lifecycle.timed_out(endpoint, seconds, now_s)
            case Outcome.CANCELLED:
                pass
        self._lifecycle.forget_if_gone(endpoint)

    def request_began(self) -> None:
        """A request came, whatever becomes of it."""
        self._budget.request()
        self._hedging.request()

    def may_retry(self, now_s: float) -> bool:
        """Return whether a request may be sent again, and count it if so."""
        return self._budget.take(now_s)

    def hedge_after_s(self, key: str) -> float | None:
        """Return how long a first attempt may take alone; None: there is no hedge."""
        return self._hedging.after_s(key)

    def may_hedge(self) -> bool:
        """Return whether a request may be hedged, and count it if so."""
        return self._hedging.take()

    def note_latency(self, key: str, seconds: float) -> None:
        """Take note of how long an attempt for `key` took, for later hedges."""
        self._hedging.note(key, seconds)

    def _known(self, among: Collection[Address] | None) -> list[Endpoint]:
        return [
            e
            for e in self._endpoints.values()
            if e.state is not EndpointState.DRAINING and (among is None or e.address in among)
        ]

    def _is_panic(self, endpoints: Sequence[Endpoint]) -> bool:
        probed = [e for e in endpoints if e.state in _PROBED]
        in_use = sum(e.state is not EndpointState.EJECTED for e in probed)
        return is_panic(self._options.ejection, in_use, len(probed))

    def _balanced(
        self, known: Sequence[Endpoint], exclude: Collection[Address], now_s: float, *, in_panic: bool
    ) -> Endpoint | None:
        usable = [
            e for e in known if e.state is EndpointState.HEALTHY and e.has_room and e.address not in exclude
        ]
        chosen = choice_of_two(usable, now_s, self._random)
        if not in_panic:
            return chosen
        ejected = [e for e in _for_want_of_others(known) if e.has_room and e.address not in exclude]
        last = choice_of_two(ejected, now_s, self._random)
        if chosen is None or last is None:
            return chosen or last
        return less_loaded(chosen, last, now_s, self._random)

    def _sticky(
        self, known: Sequence[Endpoint], exclude: Collection[Address], affinity: str, *, in_panic: bool
    ) -> Endpoint | None:
        usable = {e.address for e in known if e.state in (EndpointState.HEALTHY, EndpointState.OPEN)}
        if in_panic:
            usable.update(e.address for e in _for_want_of_others(known))
        order = by_affinity(affinity, [e.address for e in known])
        address = next((a for a in order if a in usable and a not in exclude), None)
        if address is None:
            return None
        endpoint = self._endpoints[address]
        if endpoint.state is EndpointState.OPEN or not endpoint.has_room:
            return None
        if address != order[0]:
            self._decided("affinity_moved")
        return endpoint

    def _decided(self, decision: str) -> None:
        if self._on_decision is not None:
            self._on_decision(decision)


def _for_want_of_others(known: Sequence[Endpoint]) -> list[Endpoint]:
    """Return the ejected endpoints to be used in a panic: those that are ready; others only if nothing is."""
    ejected = [e for e in known if e.state is EndpointState.EJECTED]
    ready = [e for e in ejected if e.ready]
    if ready or any(e.state in (EndpointState.HEALTHY, EndpointState.OPEN) for e in known):
        return ready
    return ejected
