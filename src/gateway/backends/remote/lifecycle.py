"""How endpoints come into use, go out of it and come back, by what attempts and probes meet there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.backends.remote.endpoint import Endpoint
from gateway.backends.remote.outliers import ejection_s, is_outlier, most_ejected, open_s, stands_out
from gateway.backends.remote.usual_time import had_enough_time
from gateway.core.remote import EndpointState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gateway.core.remote import Address, FleetOptions


class Lifecycle:
    """The endpoints of a fleet, and every change of their states. Times are monotonic seconds.

    A state changes so:

        CONNECTING -> HEALTHY    a probe found it ready; from here its share grows (slow start)
        CONNECTING -> EJECTED    a probe found it not ready
        HEALTHY    -> EJECTED    `consecutive` failures in a row, unless the others fail alike; or far more
                                 failures than the others in an interval; or a probe found it not ready,
                                 unless it goes on answering
        HEALTHY    -> OPEN       `consecutive` refusals in a row: it says that it is full
        OPEN       -> HEALTHY    0.25 s later, up to 5 s when it refuses again; a first refusal opens it again
        OPEN       -> EJECTED    as from HEALTHY
        EJECTED    -> HEALTHY    its time is over and it is ready; or, in its first ejection, it was not ready
                                 and is again, as one that was restarted. On probation: one failure ejects
        any        -> DRAINING   it is no longer among the endpoints; forgotten when idle
        DRAINING   -> CONNECTING it is among them again

    Invariants: what attempts met never ejects more than `max_share` of the endpoints, one of several always
    may be; those whose probes fail are out whatever their number.

    Attributes:
        ejected: how many are EJECTED.

    Args:
        options: of the fleet.
        random: gives numbers in [0, 1), for jitter.
        on_endpoint: told of every change of a state: address, state, reason.
    """

    def __init__(
        self,
        options: FleetOptions,
        random: Callable[[], float],
        on_endpoint: Callable[[Address, EndpointState, str], None] | None,
    ) -> None:
        self._options = options
        self._random = random
        self._on_endpoint = on_endpoint
        self._endpoints: dict[Address, Endpoint] = {}
        self._interval_ends_s: float | None = None
        self.ejected = 0

    @property
    def endpoints(self) -> Mapping[Address, Endpoint]:
        """Every endpoint by address, those that drain included; always the same, live mapping."""
        return self._endpoints

    def set_addresses(self, addresses: Collection[Address], now_s: float) -> None:
        """Take the complete set of endpoints; those that are gone drain."""
        wanted = set(addresses)
        for address in addresses:
            endpoint = self._endpoints.get(address)
            if endpoint is None:
                self._endpoints[address] = Endpoint(address, self._options, now_s)
                self._tell(address, EndpointState.CONNECTING, "")
            elif endpoint.state is EndpointState.DRAINING:
                endpoint.ready = True
                self._change(endpoint, EndpointState.CONNECTING, now_s)
        for address, endpoint in tuple(self._endpoints.items()):
            if address not in wanted and endpoint.state is not EndpointState.DRAINING:
                self._change(endpoint, EndpointState.DRAINING, now_s, "no longer among the endpoints")
                self.forget_if_gone(endpoint)

    def probed(self, address: Address, ready: bool, now_s: float, reason: str = "") -> None:
        """Take an endpoint's answer to a probe; of one that is gone, nothing."""
        endpoint = self._endpoints.get(address)
        if endpoint is None or endpoint.state is EndpointState.DRAINING:
            return
        if ready:
            self._found_ready(endpoint, now_s)
        elif endpoint.outweighs_probe(now_s):
            endpoint.ready = False
        else:
            self._found_unready(endpoint, now_s, reason or "not ready")

    def tick(self, now_s: float) -> None:
        """Do what is due; to be called when `next_event_s` has come."""
        for endpoint in self._endpoints.values():
            if endpoint.until_s is not None and endpoint.until_s <= now_s:
                self._time_is_over(endpoint, now_s)
        if self._interval_ends_s is not None and self._interval_ends_s <= now_s:
            self._end_interval(now_s)

    def next_event_s(self, now_s: float) -> float | None:
        """Return when `tick` has something to do; None: nothing is under way that time alone would change."""
        events = [e.until_s for e in self._endpoints.values() if e.until_s is not None]
        if any(e.record.attempts or e.record.ejections for e in self._endpoints.values()):
            if self._interval_ends_s is None:
                self._interval_ends_s = now_s + self._options.ejection.interval_s
            events.append(self._interval_ends_s)
        return min(events, default=None)

    def refused(self, endpoint: Endpoint, inflight: int, seconds: float, now_s: float) -> None:
        """An attempt was refused, one of `inflight`, after `seconds`."""
        endpoint.good.note(False, now_s)
        endpoint.limit.refused(inflight, now_s)
        if not endpoint.is_recent(seconds, now_s):
            return
        record, options = endpoint.record, self._options.ejection
        record.refused()
        if endpoint.state is EndpointState.HEALTHY and record.refused_in_row >= options.consecutive:
            record.opened += 1
            endpoint.until_s = now_s + open_s(options, record.opened, self._random)
            self._change(endpoint, EndpointState.OPEN, now_s, f"{record.refused_in_row} refusals in a row")

    def failed(self, endpoint: Endpoint, seconds: float, now_s: float) -> None:
        """An attempt failed after `seconds`."""
        endpoint.good.note(False, now_s)
        if not endpoint.is_recent(seconds, now_s):
            return
        endpoint.record.failed()
        if endpoint.record.in_row >= self._options.ejection.consecutive and self._stands_out(endpoint):
            self._eject(endpoint, now_s, f"{endpoint.record.in_row} failures in a row")

    def _stands_out(self, endpoint: Endpoint) -> bool:
        """Whether it fails more than the others in use: a bad canary fails at all, by no fault of theirs."""
        in_use = (e for e in self._endpoints.values() if e.state is not EndpointState.EJECTED)
        others = [e.record for e in in_use if e is not endpoint]
        return stands_out(endpoint.record, others)

    def timed_out(self, endpoint: Endpoint, seconds: float, now_s: float) -> None:
        """An attempt was given up after `seconds`: a failure if it had enough time, see `had_enough_time`."""
        usual = (e.usual for e in self._endpoints.values())
        if had_enough_time(seconds, endpoint.usual, usual):
            self.failed(endpoint, seconds, now_s)
        else:
            endpoint.usual.note(seconds)

    def forget_if_gone(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that is no longer among the endpoints, and idle."""
        if endpoint.state is EndpointState.DRAINING and endpoint.inflight == 0:
            del self._endpoints[endpoint.address]

    def _eject(self, endpoint: Endpoint, now_s: float, reason: str) -> None:
        """Take an endpoint out for what attempts met there, if one more may be."""
        if endpoint.state not in (EndpointState.HEALTHY, EndpointState.OPEN):
            return
        options = self._options.ejection
        present = sum(e.state is not EndpointState.DRAINING for e in self._endpoints.values())
        if self.ejected >= most_ejected(options, present):
            return
        endpoint.record.ejections += 1
        endpoint.until_s = now_s + ejection_s(options, endpoint.record.ejections, self._random)
        self._change(endpoint, EndpointState.EJECTED, now_s, reason)

    def _found_ready(self, endpoint: Endpoint, now_s: float) -> None:
        was_ready, endpoint.ready = endpoint.ready, True
        if endpoint.state is EndpointState.CONNECTING:
            self._use(endpoint, now_s)
        elif endpoint.state is EndpointState.EJECTED and not was_ready:
            over = endpoint.until_s is None or endpoint.until_s <= now_s
            if over or endpoint.record.ejections <= 1:
                self._use(endpoint, now_s, on_probation=True)

    def _found_unready(self, endpoint: Endpoint, now_s: float, reason: str) -> None:
        endpoint.ready = False
        if endpoint.state is EndpointState.EJECTED:
            endpoint.reason = reason
            return
        endpoint.until_s = None
        self._change(endpoint, EndpointState.EJECTED, now_s, reason)

    def _time_is_over(self, endpoint: Endpoint, now_s: float) -> None:
        if endpoint.state is EndpointState.OPEN:
            endpoint.record.half_open(self._options.ejection.consecutive)
            endpoint.until_s = None
            self._change(endpoint, EndpointState.HEALTHY, now_s)
        elif endpoint.state is EndpointState.EJECTED and endpoint.ready:
            self._use(endpoint, now_s, on_probation=True)
        else:
            endpoint.until_s = None

    def _use(self, endpoint: Endpoint, now_s: float, *, on_probation: bool = False) -> None:
        endpoint.until_s = None
        endpoint.used_since(now_s)
        if on_probation:
            endpoint.record.on_probation(self._options.ejection.consecutive)
        self._change(endpoint, EndpointState.HEALTHY, now_s)

    def _end_interval(self, now_s: float) -> None:
        interval_s = self._options.ejection.interval_s
        began_s, self._interval_ends_s = now_s - interval_s, now_s + interval_s
        endpoints = [e for e in self._endpoints.values() if e.state is not EndpointState.DRAINING]
        attempts = sum(e.record.attempts for e in endpoints)
        failures = sum(e.record.failures for e in endpoints)
        worst_first = sorted(
            endpoints, key=lambda e: e.record.failures / max(1, e.record.attempts), reverse=True
        )
        for endpoint in worst_first:
            in_use = endpoint.state is not EndpointState.EJECTED
            record, calm = endpoint.record, in_use and endpoint.since_s <= began_s
            if is_outlier(self._options.ejection, record, attempts, failures):
                calm = False
                self._eject(endpoint, now_s, f"{record.failures} of {record.attempts} attempts failed")
            record.end_interval(calm)

    def _change(self, endpoint: Endpoint, state: EndpointState, now_s: float, reason: str = "") -> None:
        if state is EndpointState.EJECTED:
            self.ejected += 1
            endpoint.ejections += 1
        elif endpoint.state is EndpointState.EJECTED:
            self.ejected -= 1
        if state in (EndpointState.CONNECTING, EndpointState.DRAINING):
            endpoint.until_s = None
        endpoint.state, endpoint.reason, endpoint.changed_s = state, reason, now_s
        self._tell(endpoint.address, state, reason)

    def _tell(self, address: Address, state: EndpointState, reason: str) -> None:
        if self._on_endpoint is not None:
            self._on_endpoint(address, state, reason)
