"""The route table: every HTTP method of the protocol, in the order in which patterns are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.api.errors import ErrorTranslator
from gateway.api.http_inference import InferHttp
from gateway.api.http_models import ModelHttp, RepositoryHttp
from gateway.api.http_server import ServerHttp
from gateway.api.openapi import OF_REGION, OF_REPOSITORY, OF_VERSION, openapi_document
from gateway.api.operations import Operations
from gateway.core.calls import HttpRoute

if TYPE_CHECKING:
    from gateway.api.context import ApiContext
    from gateway.core.calls import HttpHandler

_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = "/versions/{version}"


def http_routes(context: ApiContext) -> list[HttpRoute]:
    """Return every route over `context`; `/openapi.json` describes exactly these."""
    errors, operations = ErrorTranslator(context.profile), Operations(context)
    server = ServerHttp(context, operations)
    routes = [
        *_server_routes(server),
        *_repository_routes(RepositoryHttp(operations)),
        # Before the routes of models: "stats" in place of a model's name is a route of its own.
        *_model_routes(ModelHttp(context, operations)),
        *_settings_routes(server),
        *_shared_memory_routes(server),
    ]
    table = [_guarded(route, errors) for route in routes] + _infer_routes(InferHttp(context, errors), errors)
    server.publish(openapi_document(table, context.metadata))
    return table


def _guarded(route: HttpRoute, errors: ErrorTranslator) -> HttpRoute:
    assert route.handler is not None
    return HttpRoute(route.method, route.pattern, errors.http(route.handler), operation_id=route.operation_id)


def _get(pattern: str, handler: HttpHandler, operation_id: str) -> HttpRoute:
    return HttpRoute("GET", pattern, handler, operation_id=operation_id)


def _post(pattern: str, handler: HttpHandler, operation_id: str) -> HttpRoute:
    return HttpRoute("POST", pattern, handler, operation_id=operation_id)


def _server_routes(server: ServerHttp) -> list[HttpRoute]:
    return [
        _get("/", server.root, "root"),
        _get("/openapi.json", server.openapi, "openapi"),
        _get("/v2", server.metadata, "serverMetadata"),
        _get("/v2/health/live", server.live, "serverLive"),
        _get("/v2/health/ready", server.ready, "serverReady"),
    ]


def _repository_routes(repository: RepositoryHttp) -> list[HttpRoute]:
    routes = []
    for prefix, suffix in (("/v2/repository", ""), ("/v2/repository/{repository}", OF_REPOSITORY)):
        routes += [
            _post(f"{prefix}/index", repository.index, f"repositoryIndex{suffix}"),
            _post(f"{prefix}/models/{{model}}/load", repository.load, f"loadModel{suffix}"),
            _post(f"{prefix}/models/{{model}}/unload", repository.unload, f"unloadModel{suffix}"),
        ]
    return routes


def _model_routes(models: ModelHttp) -> list[HttpRoute]:
    routes = [_get("/v2/models/stats", models.all_statistics, "statistics")]
    for prefix, suffix in ((_MODEL, ""), (_MODEL + _VERSION, OF_VERSION)):
        routes += [
            _get(prefix, models.metadata, f"modelMetadata{suffix}"),
            _get(f"{prefix}/ready", models.ready, f"modelReady{suffix}"),
            _get(f"{prefix}/config", models.config, f"modelConfig{suffix}"),
            _get(f"{prefix}/stats", models.statistics, f"modelStatistics{suffix}"),
        ]
    return routes


def _infer_routes(infer: InferHttp, errors: ErrorTranslator) -> list[HttpRoute]:
    routes = []
    for prefix, suffix in ((_MODEL, ""), (_MODEL + _VERSION, OF_VERSION)):
        routes += [
            HttpRoute("POST", f"{prefix}/infer", begin=infer.infer, operation_id=f"infer{suffix}"),
            HttpRoute("POST", f"{prefix}/generate", begin=infer.generate, operation_id=f"generate{suffix}"),
            _post(f"{prefix}/generate_stream", errors.http(infer.generate_stream), f"generateStream{suffix}"),
        ]
    return routes


def _settings_routes(server: ServerHttp) -> list[HttpRoute]:
    return [
        _get("/v2/logging", server.get_log, "getLogSettings"),
        _post("/v2/logging", server.set_log, "setLogSettings"),
        _get("/v2/trace/setting", server.get_trace, "getTraceSettings"),
        _post("/v2/trace/setting", server.set_trace, "setTraceSettings"),
        _get(f"{_MODEL}/trace/setting", server.get_trace, "getModelTraceSettings"),
        _post(f"{_MODEL}/trace/setting", server.set_trace, "setModelTraceSettings"),
    ]


def _shared_memory_routes(server: ServerHttp) -> list[HttpRoute]:
    routes = []
    for kind in ("system", "cuda"):
        prefix, name, refuse = f"/v2/{kind}sharedmemory", f"{kind}SharedMemory", server.shared_memory
        region = f"{prefix}/region/{{region}}"
        routes += [
            _get(f"{prefix}/status", refuse, f"{name}Status"),
            _get(f"{region}/status", refuse, f"{name}Status{OF_REGION}"),
            _post(f"{region}/register", refuse, f"{name}Register"),
            _post(f"{prefix}/unregister", refuse, f"{name}Unregister"),
            _post(f"{region}/unregister", refuse, f"{name}Unregister{OF_REGION}"),
        ]
    return routes
