"""The router: takes a lease on the version a request names (or the default one) and holds it to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import NotReady
from gateway.routing.streams import leased

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import Lease, ModelCatalog
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse
    from gateway.routing.cold_starts import ColdStarts


class Router:
    """An InferenceService over the versions served now.

    A lease is held from `submit` until the request is completed, so a version never unloads under a request.
    Writes `served_version`, so that a request that fails can be told by the version it failed in.

    Args:
        catalog: what is served.
        cold_starts: where requests wait whose model is not READY; None refuses them.
    """

    def __init__(self, catalog: ModelCatalog, cold_starts: ColdStarts | None = None) -> None:
        self._catalog = catalog
        self._cold_starts = cold_starts

    def submit(self, request: InferRequest) -> Pending:
        """Hand the request to its version's batcher, or to the cold starts; raises as the seam says."""
        try:
            lease = self._lease(request)
        except NotReady as refused:
            if self._cold_starts is None:
                raise
            return self._cold_starts.submit(request, refused)
        try:
            pending = lease.submit(request)
        except BaseException:
            lease.release()
            raise
        pending.add_done_callback(lambda _: lease.release())
        return pending

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Stream from the request's version; the lease is released when the iterator ends or is closed."""
        return leased(self._lease, request, self._cold_starts)

    def _lease(self, request: InferRequest) -> Lease:
        lease = self._catalog.lease(request.model_name, request.model_version)
        request.served_version = lease.version.id.number
        return lease
