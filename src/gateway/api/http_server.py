"""HTTP methods about the server as a whole: root page, metadata, health, settings, shared memory."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from gateway.api.http_bodies import json_object, json_response, log_changes, trace_changes, trace_json
from gateway.core.calls import HttpResponse
from gateway.core.errors import Unsupported
from gateway.protocol.parameters import SHARED_MEMORY_DISABLED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.api.context import ApiContext
    from gateway.api.operations import Operations
    from gateway.core.calls import HttpRequest

LINKS: Final[Mapping[str, str]] = {
    "server metadata": "/v2",
    "ready": "/v2/health/ready",
    "statistics of every model": "/v2/models/stats",
    "OpenAPI document": "/openapi.json",
}


class ServerHttp:
    """Handlers about the server; each answers with a response or raises a GatewayError."""

    def __init__(self, context: ApiContext, operations: Operations) -> None:
        self._context = context
        self._operations = operations
        self._openapi = b""

    def publish(self, document: Mapping[str, object]) -> None:
        """Set what `openapi` answers; called once, when the route table is complete."""
        self._openapi = orjson.dumps(document)

    async def root(self, request: HttpRequest) -> HttpResponse:
        """Say what this is and where to go from here: a page for browsers, JSON for everybody else."""
        metadata = self._context.metadata
        if "text/html" in request.headers.get("accept", ""):
            return HttpResponse(200, (self._page(),), content_type="text/html; charset=utf-8")
        return json_response({"name": metadata.name, "version": metadata.version, "links": LINKS})

    async def openapi(self, _request: HttpRequest) -> HttpResponse:
        """Return the OpenAPI document."""
        return HttpResponse(200, (self._openapi,))

    async def metadata(self, _request: HttpRequest) -> HttpResponse:
        """Return name, version and extensions."""
        metadata = self._context.metadata
        return json_response(
            {"name": metadata.name, "version": metadata.version, "extensions": metadata.extensions}
        )

    async def live(self, _request: HttpRequest) -> HttpResponse:
        """Answer, which is what being alive means."""
        return json_response({"live": True})

    async def ready(self, _request: HttpRequest) -> HttpResponse:
        """Answer 200 when ready, 400 when not, as Triton does."""
        if self._operations.server_ready():
            return json_response({"ready": True})
        return json_response({"ready": False, "error": "the server is not ready"}, 400)

    async def get_log(self, _request: HttpRequest) -> HttpResponse:
        """Return the log settings."""
        return json_response(self._operations.log({}))

    async def set_log(self, request: HttpRequest) -> HttpResponse:
        """Change log settings and return all."""
        return json_response(self._operations.log(log_changes(json_object(request.body))))

    async def get_trace(self, request: HttpRequest) -> HttpResponse:
        """Return the trace settings of the server or of a model."""
        return json_response(trace_json(self._operations.trace(request.path_params.get("model", ""), {})))

    async def set_trace(self, request: HttpRequest) -> HttpResponse:
        """Change trace settings of the server or of a model and return all in force."""
        changes = trace_changes(json_object(request.body))
        return json_response(
            trace_json(self._operations.trace(request.path_params.get("model", ""), changes))
        )

    async def shared_memory(self, _request: HttpRequest) -> HttpResponse:
        """Refuse: clients' shared memory is not offered."""
        raise Unsupported(SHARED_MEMORY_DISABLED)

    def _page(self) -> bytes:
        title = escape(f"{self._context.metadata.name} {self._context.metadata.version}")
        links = "".join(f'<li><a href="{url}">{escape(text)}</a></li>' for text, url in LINKS.items())
        models = "".join(
            f"<li>{_model_link(v.id.model, v.id.number)}</li>" for v in self._context.catalog.served()
        )
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<h1>{title}</h1><ul>{links}</ul><h2>Models</h2><ul>{models or '<li>none</li>'}</ul></html>"
        ).encode()


def _model_link(model: str, version: int) -> str:
    return f'<a href="/v2/models/{escape(quote(model, safe=""))}">{escape(model)}</a> version {version}'
