"""One request on its way through an arm: its lease, what its end counts as, and stable in the arm's place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendError, GatewayError, InvalidRequest, NotFound, NotReady, Overloaded
from gateway.core.pending import Pending
from gateway.routing.fitting import takes_as_little, would_take

if TYPE_CHECKING:
    from gateway.core.interfaces import Lease, ModelCatalog
    from gateway.core.types import InferRequest
    from gateway.routing.routes import Arm, Route

_log = logging.getLogger(__name__)

ARM_FAILURES: Final = (BackendError, NotReady, Overloaded)
"""Failures after which stable may answer: the arm's, not the client's, nor that time has run out. So may it
after a refusal of the arm alone."""


def arm_lease(catalog: ModelCatalog, request: InferRequest, arm: Arm) -> Lease:
    """Take a lease on the very version that the plan pins for an arm, and note its number in the request.

    Raises:
        NotReady: it is not READY, or other files are served under its number.
        NotFound: there is no such version any more.
    """
    lease = catalog.lease(request.model_name, arm.number)
    if lease.version.id.digest != arm.version.digest:
        lease.release()
        raise NotReady(
            f"version {arm.number} of model '{request.model_name}' is another than arm '{arm.name}' is to get"
        )
    request.served_version = arm.version.number
    return lease


class Flight:
    """A request and the lease on the version that it runs in; counted once, when it has ended.

    Attributes:
        lease: held until the request has ended.
        request: the request, assigned.
        route: the route that it was assigned by.
    """

    __slots__ = ("lease", "request", "route")

    def __init__(self, lease: Lease, request: InferRequest, route: Route) -> None:
        self.lease = lease
        self.request = request
        self.route = route

    def has_second_chance(self) -> bool:
        """Whether stable is to answer if this fails."""
        assigned = self.request.assigned
        return self.route.falls_back and assigned is not None and assigned.served != self.route.stable.name

    def begin(self, catalog: ModelCatalog) -> Pending:
        """Submit the request; its end is counted. A refusal is counted too, and raised."""
        try:
            pending = self.lease.submit(self.request)
        except BaseException as error:
            self.lease.release()
            self.route.ended(self.request, None, error, refused_alone(catalog, self, error))
            raise
        pending.add_done_callback(self._ended)
        return pending

    def _ended(self, pending: Pending) -> None:
        self.lease.release()
        route, response = self.route, pending.response
        if response is None:
            route.ended(self.request, None, pending.error)
            return
        route.mark(self.request, response)
        route.ended(self.request, route.now_s(), None)


def take_off(catalog: ModelCatalog, route: Route, arm: Arm, request: InferRequest) -> Flight:
    """Take the lease of a request's arm; stable's, where the arm's version is not READY.

    Raises:
        NotReady, NotFound: that of stable; nothing was counted.
    """
    if arm is not route.stable:
        try:
            return Flight(arm_lease(catalog, request, arm), request, route)
        except (NotReady, NotFound):
            return stand_in(catalog, route, request)
    return Flight(arm_lease(catalog, request, arm), request, route)


def stand_in(catalog: ModelCatalog, route: Route, request: InferRequest) -> Flight:
    """Take the lease on stable for a request of another arm; raises as `take_off`."""
    stable = route.stable
    flight = Flight(arm_lease(catalog, request, stable), request, route)
    assert request.assigned is not None
    request.assigned.served = stable.name
    return flight


def refused_alone(catalog: ModelCatalog, flight: Flight, error: BaseException | None) -> bool:
    """Whether an arm's version has refused, before it ran, a request that stable's signature takes.

    Where the two ask the same of requests it never has: what both refuse is the client's own fault.
    """
    assigned, stable = flight.request.assigned, flight.route.stable
    if not isinstance(error, InvalidRequest) or assigned is None or assigned.served == stable.name:
        return False
    try:
        version = catalog.get(flight.request.model_name, stable.number)
    except GatewayError:
        return False
    if version.id.digest != stable.version.digest or takes_as_little(flight.lease.version, version):
        return False
    return would_take(version, flight.request)


def may_stand_in(route: Route, request: InferRequest, error: BaseException | None) -> bool:
    """Whether stable is to answer a request that had a second chance and failed in its arm."""
    return isinstance(error, ARM_FAILURES) and not route.has_expired(request)


class SecondChance:
    """A request in an arm that stable answers for if it fails there: once, the same tensors, in its time.

    Its failure in the arm is counted with the answer, whoever gives it. Cancelling cancels whichever runs.
    """

    __slots__ = ("_catalog", "_flight", "_outer", "_running")

    def __init__(self, catalog: ModelCatalog, flight: Flight) -> None:
        self._catalog = catalog
        self._flight = flight
        self._outer = Pending(flight.request, self._cancelled)
        self._running: Pending | None = None

    def begin(self) -> Pending:
        """Submit to the arm, or to stable if the arm refuses at once; raises as `Flight.begin`."""
        flight = self._flight
        try:
            running = flight.lease.submit(flight.request)
        except BaseException as error:
            flight.lease.release()
            alone = refused_alone(self._catalog, flight, error)
            if not alone and not may_stand_in(flight.route, flight.request, error):
                flight.route.ended(flight.request, None, error)
                raise
            return self._instead(error).begin(self._catalog)
        self._running = running
        running.add_done_callback(self._arm_ended)
        return self._outer

    def _instead(self, error: BaseException | None) -> Flight:
        """Return the flight in stable; `error`, counted, where that cannot be had."""
        flight = self._flight
        try:
            return stand_in(self._catalog, flight.route, flight.request)
        except GatewayError:
            flight.route.ended(flight.request, None, error)
            raise

    def _arm_ended(self, running: Pending) -> None:
        flight, error = self._flight, running.error
        flight.lease.release()
        route, request, response = flight.route, flight.request, running.response
        if response is not None:
            route.mark(request, response)
            route.ended(request, route.now_s(), None)
            self._outer.complete(response)
        elif may_stand_in(route, request, error):
            self._try_stable(error)
        elif error is not None:
            route.ended(request, None, error)
            self._outer.fail(error)

    def _try_stable(self, error: GatewayError | None) -> None:
        try:
            running = self._running = self._instead(error).begin(self._catalog)
        except GatewayError as refusal:
            self._outer.fail(refusal)
        except Exception:  # noqa: BLE001 - logged: the request must not wait for ever for what nobody runs
            _log.exception("a request for model %r could not fall back", self._outer.request.model_name)
            self._outer.fail(GatewayError("internal error; the server's log has the cause"))
        else:
            running.add_done_callback(self._stable_ended)

    def _stable_ended(self, running: Pending) -> None:
        if running.response is not None:
            self._outer.complete(running.response)
        elif running.error is not None:
            self._outer.fail(running.error)

    def _cancelled(self, _: Pending) -> None:
        if self._running is not None:
            self._running.cancel()
