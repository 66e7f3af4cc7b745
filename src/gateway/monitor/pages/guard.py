"""Who may ask what, and what every answer carries: the one layer around pages and API."""

from __future__ import annotations

import base64
import ipaddress
import logging
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from gateway.core.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    Unavailable,
)
from gateway.monitor.pages.jsontext import json_bytes

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.monitor.pages.options import PageOptions

# Charts bring style sheets of their own as elements, which only 'unsafe-inline' lets in; scripts are files
# of this server's alone.
_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
)
"""Carried by every answer."""

_STATUSES: Final[tuple[tuple[type[GatewayError], int], ...]] = (
    (PayloadTooLarge, 413),
    (InvalidRequest, 400),
    (PermissionDenied, 403),
    (NotFound, 404),
    (DeadlineExceeded, 504),
    (Unavailable, 503),
)
_STATE: Final = ("/v1/", "/ui/data/", "/metrics")
"""Paths below which something is told of the state."""
_READS: Final = ("GET", "HEAD")
_logger = logging.getLogger(__name__)


class Guard:
    """ASGI layer: refuses who may not, adds headers, and logs what broke.

    Args:
        app: what is guarded.
        options: token and hosts.
    """

    def __init__(self, app: ASGIApp, options: PageOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check(scope)
        except PermissionDenied as error:
            await refusal(error)(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception:
            _logger.exception("monitor_page_failed", extra={"path": scope["path"]})

    def _check(self, scope: Scope) -> None:
        if not scope["path"].startswith(_STATE) or scope["path"] == "/v1/health":
            return
        headers = Headers(scope=scope)
        if self._options.token:
            secret = _secret(headers.get("authorization", ""))
            if not compare_digest(secret.encode(), self._options.token.encode()):
                raise PermissionDenied("this needs the monitor's token: Authorization: Bearer TOKEN")
            return
        if not self._is_known(headers.get("host", "")):
            raise PermissionDenied("this host name is not in the monitor's 'hosts', and it has no token")
        peer = scope.get("client") or ("", 0)
        if scope["method"] not in _READS and not _is_loopback(peer[0]):
            raise PermissionDenied("without a token only this host may change what the monitor knows")

    def _is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        name = name.strip("[]").lower()
        return name == "localhost" or name in self._options.hosts or _is_address(name)


def _secret(authorization: str) -> str:
    """Return the bearer token, or the password of whatever user; empty without either."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def refusal(error: GatewayError) -> Response:
    """Return the answer to a request that could not be served."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return error_answer(status, str(error))


def error_answer(status: int, sentence: str) -> Response:
    """Return `{"error": sentence}`."""
    return Response(json_bytes({"error": sentence[:1000]}), status, media_type="application/json")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
