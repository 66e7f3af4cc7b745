"""MLflow's webhooks: whether a delivery is genuine and new, and which model it is about. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import InvalidRequest, Overloaded, PayloadTooLarge, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURE_HEADER: Final = "x-mlflow-signature"
TIMESTAMP_HEADER: Final = "x-mlflow-timestamp"
DELIVERY_HEADER: Final = "x-mlflow-delivery-id"
WINDOW_S: Final = 300
"""Seconds by which a delivery's time may differ from ours, as the Standard Webhooks specification advises."""
MAX_BODY_BYTES: Final = 1 << 20

_VERSION: Final = "v1"
# Without a dot: the signed text is "id.timestamp.body", and an id must not be able to look like two of them.
_DELIVERY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_OF_A_MODEL: Final = frozenset(
    {"registered_model", "model_version", "model_version_tag", "model_version_alias"}
)
_OF_NO_MODEL: Final = frozenset(
    {"prompt", "prompt_version", "prompt_tag", "prompt_version_tag", "prompt_alias", "budget_policy"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What a delivery says has changed; the registry itself is asked what.

    Attributes:
        event: `model_version_alias.created` and the like, for logs.
        model: the registered model concerned; None when it may be any.
    """

    event: str
    model: str | None


class WebhookVerifier:
    """Tells genuine deliveries from others, and each from its repetition.

    It remembers the ids of genuine deliveries for as long as their time is accepted; at most
    `max_deliveries`, beyond which deliveries are refused, for polling finds the change anyway.

    Args:
        secret: the webhook's, as given to MLflow.
        max_deliveries: ids remembered.

    Raises:
        ValueError: the secret is empty.
    """

    def __init__(self, secret: str, max_deliveries: int = 10_000) -> None:
        if not secret:
            raise ValueError("a webhook needs a secret")
        self._secret = secret.encode()
        self._max_deliveries = max_deliveries
        self._seen: dict[str, float] = {}

    def accept(self, headers: Mapping[str, str], body: bytes, now_s: float) -> Hint | None:
        """Return what a delivery says has changed; None when it concerns no registered model.

        Args:
            headers: of the request, lower-case names.
            body: as received.
            now_s: wall-clock seconds since the epoch.

        Raises:
            PermissionDenied: not signed with the secret, too old or from the future, or seen before.
            InvalidRequest: genuine, and not what MLflow sends.
            PayloadTooLarge: the body is longer than `MAX_BODY_BYTES`.
            Overloaded: more deliveries than are remembered came within the window.
        """
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"webhook: {len(body)} bytes, at most {MAX_BODY_BYTES} are taken")
        delivery = _matching(_DELIVERY, headers, DELIVERY_HEADER)
        timestamp = _matching(_TIMESTAMP, headers, TIMESTAMP_HEADER)
        if not self._is_signed(headers.get(SIGNATURE_HEADER, ""), delivery, timestamp, body):
            raise PermissionDenied(f"webhook: {SIGNATURE_HEADER} does not match: is the secret the same?")
        sent_s = int(timestamp)
        if abs(now_s - sent_s) > WINDOW_S:
            raise PermissionDenied(
                f"webhook: sent {now_s - sent_s:.0f} s ago by the sender's clock, {WINDOW_S} s are allowed"
            )
        self._remember(delivery, sent_s + WINDOW_S, now_s)
        return hint_of(body)

    def _is_signed(self, signature: str, delivery: str, timestamp: str, body: bytes) -> bool:
        signed = b"%b.%b.%b" % (delivery.encode(), timestamp.encode(), body)
        expected = hmac.new(self._secret, signed, hashlib.sha256).digest()
        return hmac.compare_digest(expected, _decoded(signature))

    def _remember(self, delivery: str, until_s: float, now_s: float) -> None:
        if self._seen.get(delivery, 0.0) >= now_s:
            raise PermissionDenied("webhook: this delivery has been taken before")
        if len(self._seen) >= self._max_deliveries:
            self._seen = {known: end for known, end in self._seen.items() if end >= now_s}
        if len(self._seen) >= self._max_deliveries:
            raise Overloaded(f"webhook: more than {self._max_deliveries} deliveries in {2 * WINDOW_S} s")
        self._seen[delivery] = until_s


def hint_of(body: bytes) -> Hint | None:
    """Return what a payload says has changed; None when it concerns no registered model.

    An event that this program does not know may concern any model.

    Raises:
        InvalidRequest: it is not the JSON object that MLflow sends.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("webhook: the body is not JSON") from exc
    entity, action, data = (_member(payload, name) for name in ("entity", "action", "data"))
    if not isinstance(entity, str) or not isinstance(action, str):
        raise InvalidRequest("webhook: the body names no entity and action")
    if entity in _OF_NO_MODEL:
        return None
    name = _member(data, "name")
    known = entity in _OF_A_MODEL and isinstance(name, str) and name
    return Hint(event=f"{entity}.{action}"[:100], model=name if known else None)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _matching(form: re.Pattern[str], headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not form.fullmatch(value):
        raise PermissionDenied(f"webhook: header {name} is missing or malformed")
    return value


def _decoded(signature: str) -> bytes:
    """Return the bytes of `v1,BASE64`; nothing for anything else."""
    version, _, encoded = signature.partition(",")
    try:
        return base64.b64decode(encoded, validate=True) if version == _VERSION else b""
    except (binascii.Error, ValueError):
        return b""
