"""HTTP methods about models and the repository: readiness, metadata, statistics, load, unload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api.cold import served_when_ready
from gateway.api.http_bodies import boolean, json_object, json_response, load_parameters, parameters_of
from gateway.core.errors import NotFound
from gateway.protocol.metadata import metadata_json
from gateway.protocol.model_config import config_json
from gateway.protocol.repository_index import index_json
from gateway.protocol.statistics import statistics_json

if TYPE_CHECKING:
    from gateway.api.context import ApiContext
    from gateway.api.operations import Operations
    from gateway.core.calls import HttpRequest, HttpResponse


def model_version(request: HttpRequest) -> tuple[str, str]:
    """Return model and version of the path; the version is empty when the path has none.

    Raises:
        NotFound: the version is not made of digits: there is no such route, as Triton has it.
    """
    version = request.path_params.get("version", "")
    if version and not (version.isascii() and version.isdigit()):
        raise NotFound("Not Found")
    return request.path_params["model"], version


class ModelHttp:
    """Handlers about models; each answers with a response or raises a GatewayError."""

    def __init__(self, context: ApiContext, operations: Operations) -> None:
        self._context = context
        self._operations = operations

    async def ready(self, request: HttpRequest) -> HttpResponse:
        """Answer 200 when ready, 400 when not, as Triton does."""
        model, version = model_version(request)
        if self._operations.model_ready(model, version):
            return json_response({"name": model, "ready": True})
        return json_response({"name": model, "ready": False, "error": "Model version not ready"}, 400)

    async def metadata(self, request: HttpRequest) -> HttpResponse:
        """Return what tensors a model takes and gives."""
        model, version = model_version(request)
        served = await served_when_ready(self._context, model, version)
        return json_response(metadata_json(served, self._context.catalog.ready_versions(model)))

    async def config(self, request: HttpRequest) -> HttpResponse:
        """Return the configuration a model is served with."""
        return json_response(config_json(await served_when_ready(self._context, *model_version(request))))

    async def statistics(self, request: HttpRequest) -> HttpResponse:
        """Return what one model has done since it was loaded."""
        return json_response(statistics_json(self._operations.served(*model_version(request))))

    async def all_statistics(self, _request: HttpRequest) -> HttpResponse:
        """Return what every model has done since it was loaded."""
        return json_response(statistics_json(self._operations.served("", "")))


class RepositoryHttp:
    """Handlers about the repository; each answers with a response or raises a GatewayError."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def index(self, request: HttpRequest) -> HttpResponse:
        """List the repository."""
        ready = boolean(json_object(request.body).get("ready", False), "ready")
        return json_response(index_json(self._operations.index(_repository(request), ready=ready)))

    async def load(self, request: HttpRequest) -> HttpResponse:
        """Load or reload a model; answers when it serves."""
        config, files = await load_parameters(json_object(request.body))
        await self._operations.load(_repository(request), request.path_params["model"], config, files)
        return json_response({})

    async def unload(self, request: HttpRequest) -> HttpResponse:
        """Unload a model; no model depends on another, so `unload_dependents` changes nothing."""
        boolean(parameters_of(json_object(request.body)).get("unload_dependents", False), "unload_dependents")
        await self._operations.unload(_repository(request), request.path_params["model"])
        return json_response({})


def _repository(request: HttpRequest) -> str:
    return request.path_params.get("repository", "")
