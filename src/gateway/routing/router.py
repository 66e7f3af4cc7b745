"""The router: takes a lease on the version a request names (or the default one) and holds it to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.routing.streams import leased

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import Lease, ModelCatalog
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


class Router:
    """An InferenceService over the versions served now.

    A lease is held from `submit` until the request is completed, so a version never unloads under a request.
    Writes `served_version`, so that a request that fails can be told by the version it failed in.
    """

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    def submit(self, request: InferRequest) -> Pending:
        """Hand the request to its version's batcher; raises as the seam says."""
        lease = self._lease(request)
        try:
            pending = lease.submit(request)
        except BaseException:
            lease.release()
            raise
        pending.add_done_callback(lambda _: lease.release())
        return pending

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Stream from the request's version; the lease is released when the iterator ends or is closed."""
        return leased(self._lease, request)

    def _lease(self, request: InferRequest) -> Lease:
        lease = self._catalog.lease(request.model_name, request.model_version)
        request.served_version = lease.version.id.number
        return lease
