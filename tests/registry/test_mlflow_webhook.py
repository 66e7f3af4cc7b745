"""Deliveries of MLflow's webhooks: MLflow's own code signs, ours judges."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest, Overloaded, PayloadTooLarge, PermissionDenied
from gateway.registry.mlflow.library import set_defaults
from gateway.registry.mlflow.webhook import MAX_BODY_BYTES, WINDOW_S, Hint, WebhookVerifier, hint_of

SECRET = "a secret of both sides"
NOW = 1_800_000_000
MOVED = {
    "entity": "model_version_alias",
    "action": "created",
    "timestamp": "2027-01-15T08:00:00+00:00",
    "data": {"name": "fraud", "alias": "champion", "version": "7"},
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Keep MLflow, which is imported by what follows, from sending statistics."""
    set_defaults(10.0)


def signed(
    payload: Any = MOVED, *, secret: str = SECRET, delivery: str = "id-1", sent: str = str(NOW)
) -> tuple[dict[str, str], bytes]:
    """Return headers and body as MLflow sends them."""
    from mlflow.webhooks import constants
    from mlflow.webhooks import delivery as sender

    body = json.dumps(payload)
    signature = sender._generate_hmac_signature(secret, delivery, sent, body)
    headers = {
        constants.WEBHOOK_DELIVERY_ID_HEADER: delivery,
        constants.WEBHOOK_TIMESTAMP_HEADER: sent,
        constants.WEBHOOK_SIGNATURE_HEADER: signature,
    }
    return {name.lower(): value for name, value in headers.items()}, body.encode()


def test_what_mlflow_signs_is_taken() -> None:
    """An alias that moved is a hint at its model."""
    assert WebhookVerifier(SECRET).accept(*signed(), NOW) == Hint(
        event="model_version_alias.created", model="fraud"
    )


@given(st.text(min_size=1).filter(lambda s: s.isascii()), st.dictionaries(st.text(), st.text()))
def test_any_secret_and_any_text_is_taken(secret: str, data: dict[str, str]) -> None:
    """MLflow escapes what is not ASCII; the bytes it sends are those that it signed."""
    headers, body = signed({**MOVED, "data": {**data, "name": "fraud"}}, secret=secret)
    hint = WebhookVerifier(secret).accept(headers, body, NOW)
    assert hint is not None
    assert hint.model == "fraud"


def changed(name: str, value: str) -> tuple[dict[str, str], bytes]:
    headers, body = signed()
    return {**headers, name: value}, body


OTHERS: dict[str, Callable[[], tuple[dict[str, str], bytes]]] = {
    "another secret": lambda: signed(secret="another"),
    "another body": lambda: (signed()[0], signed({**MOVED, "data": {"name": "other"}})[1]),
    "another time": lambda: changed("x-mlflow-timestamp", str(NOW + 1)),
    "another delivery": lambda: changed("x-mlflow-delivery-id", "id-2"),
    "no signature": lambda: changed("x-mlflow-signature", ""),
    "no version": lambda: changed(
        "x-mlflow-signature", signed()[0]["x-mlflow-signature"].removeprefix("v1,")
    ),
    "a later version": lambda: changed("x-mlflow-signature", "v2" + signed()[0]["x-mlflow-signature"][2:]),
    "no base64": lambda: changed("x-mlflow-signature", "v1,%%%"),
    "not ASCII": lambda: changed("x-mlflow-signature", "v1,\xe9"),
    "an empty digest": lambda: changed("x-mlflow-signature", "v1,"),
    "no time": lambda: changed("x-mlflow-timestamp", ""),
    "a time in other digits": lambda: signed(sent="١٢٣"),
    "a time that is no number": lambda: signed(sent="now"),
    "an id with a dot": lambda: signed(delivery="id.1"),
    "an endless id": lambda: signed(delivery="x" * 129),
    "no headers": lambda: ({}, b"{}"),
}


@pytest.mark.parametrize("delivery", OTHERS.values(), ids=OTHERS.keys())
def test_what_mlflow_has_not_signed_is_refused(
    delivery: Callable[[], tuple[dict[str, str], bytes]],
) -> None:
    """Whatever was changed, and also when it is tried first."""
    with pytest.raises(PermissionDenied):
        WebhookVerifier(SECRET).accept(*delivery(), NOW)


@pytest.mark.parametrize(
    ("late_s", "taken"), [(-WINDOW_S - 1, False), (-WINDOW_S, True), (WINDOW_S, True), (WINDOW_S + 1, False)]
)
def test_only_recent_deliveries_are_taken(late_s: int, taken: bool) -> None:
    """Clocks may differ by the window, in both directions."""
    verifier = WebhookVerifier(SECRET)
    if taken:
        assert verifier.accept(*signed(), NOW + late_s) is not None
    else:
        with pytest.raises(PermissionDenied, match="clock"):
            verifier.accept(*signed(), NOW + late_s)


@pytest.mark.parametrize("later_s", [0, 1, WINDOW_S, 2 * WINDOW_S])
def test_a_delivery_is_taken_once(later_s: int) -> None:
    """Until its time is refused anyway: one from the future is remembered for twice the window."""
    verifier = WebhookVerifier(SECRET)
    ahead = signed(sent=str(NOW + WINDOW_S))
    assert verifier.accept(*ahead, NOW) is not None
    with pytest.raises(PermissionDenied, match="taken before"):
        verifier.accept(*ahead, NOW + later_s)


def test_a_refused_delivery_is_not_remembered() -> None:
    """A forger cannot use up the id of a genuine one."""
    verifier = WebhookVerifier(SECRET)
    with pytest.raises(PermissionDenied):
        verifier.accept(*signed(secret="another"), NOW)
    assert verifier.accept(*signed(), NOW) is not None


def test_memory_is_bounded() -> None:
    """A flood is refused rather than its repetitions taken; what is too old makes room."""
    verifier = WebhookVerifier(SECRET, max_deliveries=2)
    for number in range(2):
        verifier.accept(*signed(delivery=f"id-{number}"), NOW)
    with pytest.raises(Overloaded):
        verifier.accept(*signed(delivery="id-3"), NOW)
    with pytest.raises(PermissionDenied, match="taken before"):
        verifier.accept(*signed(delivery="id-0"), NOW)
    later = NOW + WINDOW_S + 1
    assert verifier.accept(*signed(delivery="id-3", sent=str(later)), later) is not None


def test_every_event_of_mlflow_is_understood() -> None:
    """Those of registered models name theirs; prompts and budgets are none of ours."""
    from mlflow.entities.webhook import WebhookEvent
    from mlflow.webhooks.types import EVENT_TO_PAYLOAD_CLASS, get_example_payload_for_event

    assert len(EVENT_TO_PAYLOAD_CLASS) > 10
    for entity, action in EVENT_TO_PAYLOAD_CLASS:
        data = get_example_payload_for_event(WebhookEvent(entity, action))
        hint = hint_of(json.dumps({"entity": entity.value, "action": action.value, "data": data}).encode())
        event = f"{entity.value}.{action.value}"
        ours = not event.startswith(("prompt", "budget"))
        assert hint == (Hint(event=event, model="example_model") if ours else None)


@pytest.mark.parametrize(
    "payload",
    [
        {"entity": "feature", "action": "invented", "data": {"name": "fraud"}},
        {"entity": "model_version", "action": "created", "data": {}},
        {"entity": "model_version", "action": "created", "data": {"name": 7}},
        {"entity": "model_version", "action": "created"},
    ],
)
def test_what_is_not_understood_may_concern_any_model(payload: Any) -> None:
    """A later MLflow's event makes the gateway look, which is harmless."""
    hint = hint_of(json.dumps(payload).encode())
    assert hint is not None
    assert hint.model is None


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b"7", b"{}", b"\xff", b"[" * 100_000, b'{"entity": 1, "action": 2}']
)
def test_what_is_no_payload_is_refused(body: bytes) -> None:
    """Even when it is signed."""
    with pytest.raises(InvalidRequest):
        hint_of(body)


def test_a_long_body_is_refused() -> None:
    """Before it is hashed."""
    with pytest.raises(PayloadTooLarge):
        WebhookVerifier(SECRET).accept({}, b" " * (MAX_BODY_BYTES + 1), NOW)


def test_an_empty_secret_is_refused() -> None:
    """It would be everybody's."""
    with pytest.raises(ValueError, match="secret"):
        WebhookVerifier("")
