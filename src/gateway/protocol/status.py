"""The one table from error classes to gRPC codes and HTTP statuses."""

from __future__ import annotations

import enum
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.calls import Headers


class GrpcCode(enum.IntEnum):
    """Status codes of the gRPC specification that the gateway answers."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class StatusProfile(enum.Enum):
    """How refusals for lack of room or time are answered.

    DEFAULT tells them apart; TRITON answers both as Triton does, for clients that retry on that alone.
    """

    DEFAULT = "default"
    TRITON = "triton"


class WireStatus(NamedTuple):
    """What one error becomes on the wire.

    Attributes:
        grpc_code: code of the gRPC specification.
        http_status: HTTP status.
        message: text for the client.
        http_headers: further response headers.
        grpc_metadata: trailing metadata.
    """

    grpc_code: int
    http_status: int
    message: str
    http_headers: Headers = ()
    grpc_metadata: Headers = ()


INTERNAL_MESSAGE: Final = "internal error; the server's log has the cause"

# PayloadTooLarge is INVALID_ARGUMENT, not RESOURCE_EXHAUSTED: sending it again cannot help, and clients retry
# the latter. 499 is the status proxies log for a client that went away: nobody is left to read it.
_TABLE: Final[Mapping[type[errors.GatewayError], tuple[GrpcCode, int]]] = MappingProxyType(
    {
        errors.GatewayError: (GrpcCode.INTERNAL, 500),
        errors.InvalidRequest: (GrpcCode.INVALID_ARGUMENT, 400),
        errors.PayloadTooLarge: (GrpcCode.INVALID_ARGUMENT, 413),
        errors.NotFound: (GrpcCode.NOT_FOUND, 404),
        errors.PermissionDenied: (GrpcCode.PERMISSION_DENIED, 403),
        errors.Unsupported: (GrpcCode.UNIMPLEMENTED, 501),
        errors.Cancelled: (GrpcCode.CANCELLED, 499),
        errors.DeadlineExceeded: (GrpcCode.DEADLINE_EXCEEDED, 504),
        errors.Unavailable: (GrpcCode.UNAVAILABLE, 503),
        errors.Overloaded: (GrpcCode.RESOURCE_EXHAUSTED, 429),
        errors.BackendError: (GrpcCode.INTERNAL, 500),
        errors.BackendUnavailable: (GrpcCode.UNAVAILABLE, 503),
        errors.ModelLoadError: (GrpcCode.INTERNAL, 500),
        errors.ConfigError: (GrpcCode.INVALID_ARGUMENT, 400),
    }
)
_TRITON: Final = frozenset({errors.Overloaded, errors.DeadlineExceeded})
_OVERLOAD_RETRY_S: Final = 1.0


def status_of(error: BaseException, profile: StatusProfile = StatusProfile.DEFAULT) -> WireStatus:
    """Return what `error` becomes on the wire.

    An exception that is no GatewayError was not meant for the client: it becomes INTERNAL / 500 with a
    neutral message. Logging it is the caller's affair.
    """
    if not isinstance(error, errors.GatewayError):
        return WireStatus(GrpcCode.INTERNAL, 500, INTERNAL_MESSAGE)
    kind = next(cls for cls in type(error).__mro__ if cls in _TABLE)
    code, http_status = _TABLE[kind]
    if profile is StatusProfile.TRITON and kind in _TRITON:
        code, http_status = GrpcCode.UNAVAILABLE, 503
    retry_s = _retry_after_s(error)
    if retry_s is None:
        return WireStatus(code, http_status, str(error))
    http_headers = (("Retry-After", str(max(1, math.ceil(retry_s)))),)
    grpc_metadata = (("grpc-retry-pushback-ms", str(max(0, round(retry_s * 1000)))),)
    return WireStatus(code, http_status, str(error), http_headers, grpc_metadata)


def _retry_after_s(error: errors.GatewayError) -> float | None:
    """Return when to try again; an overload always says, other refusals only when they know."""
    if not isinstance(error, errors.Unavailable):
        return None
    default_s = _OVERLOAD_RETRY_S if isinstance(error, errors.Overloaded) else None
    return default_s if error.retry_after_s is None else error.retry_after_s
