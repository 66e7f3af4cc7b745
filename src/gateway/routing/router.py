"""The router: takes a lease on the version that a request gets, and holds it to the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.core.errors import NotReady
from gateway.routing.fallback import Flight, SecondChance, take_off
from gateway.routing.streams import leased, routed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import Lease, ModelCatalog
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse
    from gateway.routing.cold_starts import ColdStarts
    from gateway.routing.routes import Route, RouteTable

_log = logging.getLogger(__name__)


class Router:
    """An InferenceService over the versions served now.

    A request that names a version gets it. Any other follows the route of its model, read once, where there
    is one, else it gets the newest version. A lease is held from `submit` until the request is completed, so
    a version never unloads under a request, and none changes versions but by falling back.

    Writes `served_version`, so that a request that fails can be told by the version it failed in, and
    `assigned`.

    Args:
        catalog: what is served.
        cold_starts: where requests wait whose model is not READY; None refuses them.
        table: the routes; None: there are never any.
    """

    def __init__(
        self, catalog: ModelCatalog, cold_starts: ColdStarts | None = None, table: RouteTable | None = None
    ) -> None:
        self._catalog = catalog
        self._cold_starts = cold_starts
        self._table = table

    def submit(self, request: InferRequest) -> Pending:
        """Hand the request to its version's batcher, or to the cold starts; raises as the seam says."""
        if self._table is not None:
            route = self._table.routes.get(request.model_name)
            if route is not None and not request.model_version:
                return self._submit_routed(route, request)
        try:
            lease = self._lease(request)
        except NotReady as refused:
            return self._wait(request, refused)
        return _submitted(lease, request)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Stream from the request's version; the lease is released when the iterator ends or is closed."""
        if self._table is None or request.model_version:
            return leased(self._lease, request, self._cold_starts)
        return routed(self._opened, self._catalog, request, self._cold_starts)

    def _submit_routed(self, route: Route, request: InferRequest) -> Pending:
        try:
            opened = self._open(route, request)
        except NotReady as refused:
            # It comes back here when its model is READY, and is dispatched, counted and mirrored then.
            return self._wait(request, refused)
        if not isinstance(opened, Flight):
            pending = _submitted(opened, request)
        elif opened.has_second_chance():
            pending = SecondChance(self._catalog, opened).begin()
        else:
            pending = opened.begin(self._catalog)
        if route.has_shadows:
            self._mirror(route, request, pending)
        return pending

    def _open(self, route: Route, request: InferRequest) -> Flight | Lease:
        """Take the lease that a route gives a request; a plain one where it has shadows alone."""
        if not route.arms:
            return self._lease(request)
        return take_off(self._catalog, route, route.assign(request), request)

    def _opened(self, request: InferRequest) -> Flight | Lease:
        route = None if self._table is None else self._table.routes.get(request.model_name)
        return self._lease(request) if route is None else self._open(route, request)

    def _lease(self, request: InferRequest) -> Lease:
        lease = self._catalog.lease(request.model_name, request.model_version)
        request.served_version = lease.version.id.number
        return lease

    def _wait(self, request: InferRequest, refused: NotReady) -> Pending:
        if self._cold_starts is None:
            raise refused
        return self._cold_starts.submit(request, refused)

    def _mirror(self, route: Route, request: InferRequest, pending: Pending) -> None:
        shadows = None if self._table is None else self._table.shadows
        if shadows is None:
            return
        try:
            shadows.mirror(request, route.plan, pending)
        except Exception:  # noqa: BLE001 - logged: a shadow must not be felt, whatever is wrong with it
            _log.exception("a request for model %r could not be mirrored", request.model_name)


def _submitted(lease: Lease, request: InferRequest) -> Pending:
    try:
        pending = lease.submit(request)
    except BaseException:
        lease.release()
        raise
    pending.add_done_callback(lambda _: lease.release())
    return pending
