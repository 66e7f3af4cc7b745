"""Every gRPC service that the server offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api.errors import ErrorTranslator
from gateway.api.grpc_health import health_service
from gateway.api.grpc_inference import inference_service
from gateway.api.grpc_reflection import reflection_services

if TYPE_CHECKING:
    from gateway.api.context import ApiContext
    from gateway.core.calls import RpcService


def rpc_services(context: ApiContext) -> list[RpcService]:
    """Return inference, health and both versions of reflection, which list them all."""
    errors = ErrorTranslator(context.profile)
    services = [inference_service(context), health_service(context.catalog, context.readiness, errors)]
    names = [service.name for service in services]
    return [*services, *reflection_services(names, context.readiness, errors)]
