"""Which arm of a rollout or split gave an answer, told beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.assigned import ARM_PARAMETER

if TYPE_CHECKING:
    from gateway.core.calls import Headers
    from gateway.core.types import InferResponse

ARM_HEADER: Final = "x-gateway-arm"
"""Response header over HTTP, trailer over gRPC."""


def arm_headers(response: InferResponse) -> Headers:
    """Return the header that names the arm that gave an answer; none where no route was followed."""
    arm = response.parameters.get(ARM_PARAMETER)
    return ((ARM_HEADER, arm),) if isinstance(arm, str) else ()
