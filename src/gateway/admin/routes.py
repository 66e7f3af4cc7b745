"""The administration port's routes: what is loaded, where, and how busy it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.calls import HttpRequest, HttpResponse, HttpRoute

if TYPE_CHECKING:
    from gateway.core.interfaces import ModelCatalog
    from gateway.core.types import VersionStatus


def admin_routes(catalog: ModelCatalog, version: str) -> list[HttpRoute]:
    """Return the routes.

    Args:
        catalog: what is served.
        version: the gateway's version.
    """

    async def status(_request: HttpRequest) -> HttpResponse:
        document = {
            "version": version,
            "ready": catalog.is_ready(),
            "models": [_row(row) for row in catalog.index()],
        }
        return HttpResponse(200, (orjson.dumps(document, option=orjson.OPT_INDENT_2),))

    return [HttpRoute("GET", "/", status, operation_id="status")]


def _row(row: VersionStatus) -> dict[str, Any]:
    return {
        "model": row.id.model,
        "version": row.id.number,
        "digest": row.id.digest,
        "state": row.state.value,
        "reason": row.reason,
        "since": row.since_s,
        "memory_bytes": row.memory_bytes,
        "leases": row.inflight,
    }
