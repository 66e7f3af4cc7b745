"""The one error tree. Wire codes are not here: `gateway.protocol.status` maps each class to gRPC and HTTP."""

from __future__ import annotations


class GatewayError(Exception):
    """Root of every error the gateway raises on purpose.

    The message is for the client: it names the model, what was got and what was expected, and never
    holds payload bytes, paths of the server or library internals.
    """


class InvalidRequest(GatewayError):
    """The request can never succeed as sent: wrong names, shapes, datatypes, sizes or parameters."""


class PayloadTooLarge(InvalidRequest):
    """A configured size limit was passed; nothing beyond the limit was kept in memory."""


class NotFound(GatewayError):
    """The model, version, route or region named does not exist here."""


class PermissionDenied(GatewayError):
    """The caller is known, or anonymous, and may not do this."""


class Unsupported(GatewayError):
    """A part of the protocol that this server or model does not offer."""


class Cancelled(GatewayError):
    """The client gave up, or the connection went, before the answer was ready."""


class DeadlineExceeded(GatewayError):
    """The time the client allowed passed before the request was run."""


class Unavailable(GatewayError):
    """Cannot be answered now; the same request may succeed later.

    Attributes:
        retry_after_s: seconds after which a retry is sensible, or None when unknown.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A bounded queue or budget is full; refused at once."""


class NotReady(Unavailable):
    """The model version exists and is loading, unloading or failed."""


class Draining(Unavailable):
    """The server is shutting down and takes no new work."""


class BackendError(GatewayError):
    """The backend failed on this request's data or while running it."""


class BackendUnavailable(BackendError):
    """The backend as a whole failed (lost device, out of memory, dead process): no input is to blame."""


class ModelLoadError(GatewayError):
    """A model version could not be made ready; the message says which step failed and why."""


class ConfigError(GatewayError):
    """A configuration file is wrong; the message carries file, line and, where known, a suggestion."""
