"""Posts of JSON over HTTP, signed as the Standard Webhooks specification says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.config.registry_settings import SecretSettings

TIMEOUT_S: Final = 10.0
_MAX_DETAIL: Final = 200
_PREFIX: Final = "whsec_"


class PostFailed(GatewayError):
    """A post was not taken.

    Attributes:
        lasting: repeating it is of no use: the receiver refused what it says.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


def signing_key(secret: SecretSettings | None) -> bytes:
    """Return the key that a secret stands for, `whsec_` and base64 or any text; empty without one.

    Raises:
        ConfigError: it is not where the configuration says, or not base64.
    """
    text = "" if secret is None else secret.read()
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError as exc:
        raise ConfigError(f"a webhook's secret: what follows {_PREFIX} is not base64") from exc


def signed_headers(secret: bytes, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that identify and, with a secret, sign a delivery.

    Args:
        secret: key of the HMAC; empty: no signature.
        message_id: the same for every repetition.
        at_s: time of the attempt, seconds since the epoch.
        body: as sent.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at_s)}
    if secret:
        digest = hmac.new(secret, f"{message_id}.{at_s}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def post(url: str, body: bytes, headers: dict[str, str], timeout_s: float = TIMEOUT_S) -> None:
    """Post JSON; blocks for `timeout_s` per read.

    Raises:
        PostFailed: nobody is there, or the answer is no success.
    """
    request = urllib.request.Request(  # noqa: S310 - the configuration checks the scheme
        url, body, {"content-type": "application/json", "user-agent": "model-gateway-monitor", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - likewise
            answer.read(_MAX_DETAIL)
    except urllib.error.HTTPError as exc:
        with exc:
            detail = _detail(exc)
        # 408 and 429 ask for another attempt; the other 4xx will say the same again.
        lasting = 400 <= exc.code < 500 and exc.code not in {408, 429}
        raise PostFailed(f"{url} answered {exc.code}{detail}", lasting=lasting) from exc
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise PostFailed(f"{url}: {getattr(exc, 'reason', None) or exc}") from exc


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(_MAX_DETAIL).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    return f": {text}" if text.isprintable() and text else ""
