"""Which version a request means when it comes, and whose labels its answer gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import GatewayError
from gateway.protocol import classification

if TYPE_CHECKING:
    from gateway.core.interfaces import ModelCatalog, ServedVersion
    from gateway.core.types import InferRequest, InferResponse


def version_meant(catalog: ModelCatalog, model: str, version: str) -> ServedVersion | None:
    """Return the READY version that a request means at this moment.

    None for what can't be looked up: the service that the request goes to says what is wrong with it.
    """
    try:
        return catalog.get(model, version)
    except GatewayError:
        return None


def classified(
    catalog: ModelCatalog, request: InferRequest, response: InferResponse, meant: ServedVersion | None
) -> InferResponse:
    """Return `response` with the outputs classified that the request wants so; itself if it wants none.

    Args:
        catalog: looked into when another version answered than was meant at submission.
        request: what was asked.
        response: what was answered.
        meant: `version_meant` at submission. Kept, because a version that drains is in no catalog any
            more when its last requests are answered.

    Raises:
        InvalidRequest: an output has no order of values.
        NotFound, NotReady: another version answered and is gone.
    """
    if not any(output.classification for output in request.outputs):
        return response
    if meant is None or str(meant.id.number) != response.model_version:
        meant = catalog.get(response.model_name, response.model_version)
    return classification.classified(response, request.outputs, meant)
