"""How and in which version a request ended: the labels of metrics, spans and access lines."""

from __future__ import annotations

import asyncio
import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.core.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import InferRequest, InferResponse


class Outcome(enum.StrEnum):
    """How a request or a batch ended."""

    OK = "ok"
    INVALID = "invalid"
    """It could never succeed as sent; includes too large."""
    NOT_FOUND = "not_found"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    OVERLOADED = "overloaded"
    """A queue or budget was full."""
    DEADLINE = "deadline"
    """The client's time ran out before the run."""
    CANCELLED = "cancelled"
    """The client gave up or went."""
    UNAVAILABLE = "unavailable"
    """Not ready, draining, or not now for another reason than load."""
    BACKEND_ERROR = "backend_error"
    INTERNAL = "internal"
    """A fault of the gateway itself."""


_OUTCOMES: Final[Mapping[type[BaseException], Outcome]] = MappingProxyType(
    {
        InvalidRequest: Outcome.INVALID,
        NotFound: Outcome.NOT_FOUND,
        PermissionDenied: Outcome.DENIED,
        Unsupported: Outcome.UNSUPPORTED,
        Overloaded: Outcome.OVERLOADED,
        Unavailable: Outcome.UNAVAILABLE,
        DeadlineExceeded: Outcome.DEADLINE,
        Cancelled: Outcome.CANCELLED,
        asyncio.CancelledError: Outcome.CANCELLED,
        GeneratorExit: Outcome.CANCELLED,
        BackendError: Outcome.BACKEND_ERROR,
    }
)


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the outcome an error stands for: its nearest listed class's; INTERNAL when none is listed."""
    if error is None:
        return Outcome.OK
    for kind in type(error).__mro__:
        if (outcome := _OUTCOMES.get(kind)) is not None:
            return outcome
    return Outcome.INTERNAL


def version_of(request: InferRequest, response: InferResponse | None) -> str:
    """Return the version that answered, else the one chosen for the request, else the one it asked for."""
    if response is not None:
        return response.model_version
    return str(request.served_version) if request.served_version else request.model_version
