"""The OpenAPI 3.1 document, made from the route table and one description per operation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.api.openapi_schemas import SCHEMAS, reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.api.server_metadata import ServerMetadata
    from gateway.core.calls import HttpRoute

OF_VERSION: Final = "OfVersion"
OF_REGION: Final = "OfRegion"
OF_REPOSITORY: Final = "OfRepository"
"""End the operation id of a route that names one of these in its path, beside its twin that does not."""

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"
HTML: Final = "text/html"

# What any route can be answered with: by the transport 400 (malformed), 408 (too slow), 413, 414, 431 (body,
# target, headers too large), 501 (content encoding not offered), 503 (no room); by what stands before the
# methods 403; by a fault 500.
_ANYWHERE: Final = (400, 403, 408, 413, 414, 431, 500, 501, 503)
# 499 is what proxies log for a client that went away before the answer; clients don't see it.
_INFER: Final = (429, 499, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the document says of one operation beyond its route.

    Attributes:
        summary: one line.
        tag: group in the document.
        schema: name of the schema of the 200 response; empty: there is no 200 response.
        media: media types of the 200 response.
        request: name of the request body's schema; empty: no body.
        request_media: media types of the request body.
        body_required: whether an empty body is refused.
        errors: statuses besides 200, 404 of a path with parameters, and those that any route may answer.
        headers: names of request headers, described in the components.
    """

    summary: str
    tag: str
    schema: str = ""
    media: tuple[str, ...] = (JSON,)
    request: str = ""
    request_media: tuple[str, ...] = (JSON,)
    body_required: bool = False
    errors: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()


def _get(summary: str, tag: str, schema: str) -> Description:
    return Description(summary=summary, tag=tag, schema=schema)


def _post(summary: str, tag: str, schema: str, request: str) -> Description:
    return Description(summary=summary, tag=tag, schema=schema, request=request)


def _refused(summary: str) -> Description:
    return Description(summary=summary, tag="shared memory")


_TIMEOUT: Final = ("XRequestTimeoutMs", "XServerTiming")

DESCRIPTIONS: Final[Mapping[str, Description]] = MappingProxyType(
    {
        "root": Description(
            summary="What this is and where to go from here", tag="server", schema="Root", media=(JSON, HTML)
        ),
        "openapi": _get("This document", "server", "Empty"),
        "serverMetadata": _get("Name, version and protocol extensions", "server", "ServerMetadata"),
        "serverLive": _get("Whether the server answers", "health", "Live"),
        "serverReady": _get("Whether every required model serves; 400 when not", "health", "Ready"),
        "modelReady": _get("Whether a model serves; 400 when not", "health", "ModelReady"),
        "modelMetadata": _get("Tensors a model takes and gives", "models", "ModelMetadata"),
        "modelConfig": _get("Configuration a model is served with", "models", "ModelConfig"),
        "modelStatistics": _get("What a model has done since it was loaded", "models", "Statistics"),
        "statistics": _get("What every model has done since it was loaded", "models", "Statistics"),
        "infer": Description(
            summary="Run a model on tensors, as JSON or as JSON followed by binary tensors",
            tag="inference",
            schema="InferResponse",
            media=(JSON, OCTETS),
            request="InferRequest",
            request_media=(JSON, OCTETS),
            body_required=True,
            errors=_INFER,
            headers=("InferenceHeaderContentLength", *_TIMEOUT),
        ),
        "generate": Description(
            summary="Run a model on a JSON object, one response",
            tag="inference",
            schema="GenerateResponse",
            request="GenerateRequest",
            body_required=True,
            errors=_INFER,
            headers=_TIMEOUT,
        ),
        "generateStream": Description(
            summary="Run a model on a JSON object, responses as server-sent events",
            tag="inference",
            schema="Empty",
            media=(EVENTS,),
            request="GenerateRequest",
            body_required=True,
            errors=_INFER,
            headers=_TIMEOUT[:1],
        ),
        "repositoryIndex": _post("List the repository", "repository", "Index", "IndexRequest"),
        "loadModel": _post("Load or reload a model", "repository", "Empty", "LoadRequest"),
        "unloadModel": _post("Unload a model", "repository", "Empty", "UnloadRequest"),
        "getTraceSettings": _get("Trace settings", "settings", "TraceSettings"),
        "setTraceSettings": _post("Change trace settings", "settings", "TraceSettings", "TraceChanges"),
        "getModelTraceSettings": _get("Trace settings of a model", "settings", "TraceSettings"),
        "setModelTraceSettings": _post(
            "Change trace settings of a model", "settings", "TraceSettings", "TraceChanges"
        ),
        "getLogSettings": _get("Log settings", "settings", "LogSettings"),
        "setLogSettings": _post("Change log settings", "settings", "LogSettings", "LogSettings"),
        "systemSharedMemoryStatus": _refused("Not offered"),
        "systemSharedMemoryRegister": _refused("Not offered"),
        "systemSharedMemoryUnregister": _refused("Not offered"),
        "cudaSharedMemoryStatus": _refused("Not offered"),
        "cudaSharedMemoryRegister": _refused("Not offered"),
        "cudaSharedMemoryUnregister": _refused("Not offered"),
    }
)

_REQUEST_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "InferenceHeaderContentLength": {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON before the binary tensors of the body. 0: the body is one tensor.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "XRequestTimeoutMs": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Milliseconds within which the request must be started; 504 when it was not.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400_000},
    },
    "XServerTiming": {
        "name": "X-Server-Timing",
        "in": "header",
        "description": "1 asks for a Server-Timing header: the time in queue and in each step of the run.",
        "schema": {"type": "string"},
    },
}

_PATH_PARAMETER: Final = re.compile(r"{(\w+)(?::\w+)?}")


def openapi_document(routes: Sequence[HttpRoute], metadata: ServerMetadata) -> Mapping[str, Any]:
    """Return the document for exactly these routes.

    Raises:
        ValueError: a route without a description, or two with one operation id.
    """
    paths: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for route in routes:
        if route.operation_id in seen:
            raise ValueError(f"two routes are called {route.operation_id!r}")
        seen.add(route.operation_id)
        path = _PATH_PARAMETER.sub(r"{\1}", route.pattern)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": metadata.name, "version": metadata.version},
        "paths": paths,
        "components": {"schemas": SCHEMAS, "parameters": _REQUEST_HEADERS},
    }


def _operation(route: HttpRoute) -> Mapping[str, Any]:
    description = description_of(route)
    in_path = [_path_parameter(name) for name in _PATH_PARAMETER.findall(route.pattern)]
    in_headers = [{"$ref": f"#/components/parameters/{name}"} for name in description.headers]
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": description.summary,
        "tags": [description.tag],
        "parameters": [*in_path, *in_headers],
        "responses": _responses(route, description),
    }
    if description.request:
        operation["requestBody"] = {
            "required": description.body_required,
            "content": _content(description.request, description.request_media),
        }
    return operation


def description_of(route: HttpRoute) -> Description:
    """Return the description of a route; one that names a version, region or repository shares its twin's.

    Raises:
        ValueError: it has none.
    """
    name = route.operation_id
    for suffix in (OF_VERSION, OF_REGION, OF_REPOSITORY):
        name = name.removesuffix(suffix)
    if name not in DESCRIPTIONS:
        raise ValueError(
            f"operation {route.operation_id!r} of {route.method} {route.pattern} is not described"
        )
    return DESCRIPTIONS[name]


def _path_parameter(name: str) -> Mapping[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if name == "version":
        schema |= {"pattern": "^[0-9]+$", "maxLength": 20}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _responses(route: HttpRoute, description: Description) -> Mapping[str, Any]:
    statuses = {*description.errors, *_ANYWHERE}
    if "{" in route.pattern:
        statuses |= {404}  # nothing has that name
    responses: dict[str, Any] = {str(status): _error(status) for status in sorted(statuses)}
    if description.schema:
        content = _content(description.schema, description.media)
        responses = {"200": {"description": description.summary, "content": content}, **responses}
    return responses


def _content(schema: str, media: Sequence[str]) -> Mapping[str, Any]:
    # What is no JSON is described by its media type alone.
    return {kind: {"schema": reference(schema)} if kind == JSON else {} for kind in media}


def _error(status: int) -> Mapping[str, Any]:
    phrase = "Client Closed Request" if status == 499 else HTTPStatus(status).phrase
    return {"description": phrase, "content": {JSON: {"schema": reference("Error")}}}
