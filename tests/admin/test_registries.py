"""Webhooks and wishes to look at a registry now, over real HTTP and a real source."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.registry.mlflow.webhook import MAX_BODY_BYTES, WebhookVerifier
from tests.admin.conftest import Admin, administration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRET: Final = "a secret of both sides"
OTHER: Final = "another registry's"
PATH: Final = "/registries/prod/webhook"
CANARY: Final = "text-of-the-body"
MOVED: Final = {
    "entity": "model_version_alias",
    "action": "created",
    "data": {"name": "fraud", "alias": CANARY, "version": "2"},
}


def signed(
    payload: object, sent_s: float, *, secret: str = SECRET, delivery: str = "id-1"
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers; the tests of the verifier hold this form against MLflow's own code."""
    body, sent = json.dumps(payload).encode(), str(int(sent_s))
    digest = hmac.new(secret.encode(), b"%b.%b.%b" % (delivery.encode(), sent.encode(), body), hashlib.sha256)
    headers = {
        "x_mlflow_delivery_id": delivery,
        "x_mlflow_timestamp": sent,
        "x_mlflow_signature": "v1," + base64.b64encode(digest.digest()).decode(),
    }
    return body, headers


@pytest.fixture
async def hooked(tmp_path: Path) -> AsyncIterator[Admin]:
    """A port that takes webhooks of `prod`, three at most within the time they are remembered."""
    webhooks = {"other": WebhookVerifier(OTHER), "prod": WebhookVerifier(SECRET, max_deliveries=3)}
    async with administration(tmp_path, webhooks=webhooks) as served:
        yield served


async def deliver(admin: Admin, payload: object = MOVED, path: str = PATH, **how: Any) -> Any:
    body, headers = signed(payload, admin.rig.wall.now_s, **how)
    return await admin.ask("POST", path, body, **headers)


async def test_a_delivery_makes_a_look(hooked: Admin) -> None:
    """202 with how much is looked at; the moved alias is found long before the next poll."""
    hooked.rig.registry.alias("champion", "2")
    received = await deliver(hooked)
    assert received.status == 202
    assert json.loads(received.body) == {"registry": "prod", "looking_at": 1}
    await hooked.rig.pass_s(1.0)
    assert hooked.rig.labels == ["2"]


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        ({**MOVED, "data": {"name": "another"}}, 0),
        ({**MOVED, "entity": "something_new"}, 1),
        ({**MOVED, "entity": "prompt"}, 0),
    ],
)
async def test_what_a_delivery_concerns(hooked: Admin, payload: object, count: int) -> None:
    """A model that is not followed and no model at all make no look, what nobody knows makes one at all."""
    asked = len(hooked.rig.registry.asked)
    assert json.loads((await deliver(hooked, payload)).body)["looking_at"] == count
    await hooked.rig.pass_s(1.0)
    assert len(hooked.rig.registry.asked) - asked == count


async def refused(admin: Admin, status: int, words: str, body: bytes, **headers: str) -> None:
    """Assert that a delivery is refused, repeats nothing of itself, and makes no look."""
    asked = len(admin.rig.registry.asked)
    received = await admin.ask("POST", PATH, body, **headers)
    assert received.status == status, received.body
    assert words in received.error
    assert CANARY not in received.error
    assert SECRET not in received.error
    await admin.rig.pass_s(1.0)
    assert len(admin.rig.registry.asked) == asked


@pytest.mark.parametrize("secret", [CANARY, OTHER])
async def test_another_secret(hooked: Admin, secret: str) -> None:
    """403, though it be that of another registry."""
    body, headers = signed(MOVED, hooked.rig.wall.now_s, secret=secret)
    await refused(hooked, 403, "does not match", body, **headers)


async def test_no_signature(hooked: Admin) -> None:
    """403, with the header that is missing."""
    await refused(hooked, 403, "x-mlflow-delivery-id is missing", json.dumps(MOVED).encode())


async def test_a_body_that_was_changed(hooked: Admin) -> None:
    """403."""
    body, headers = signed(MOVED, hooked.rig.wall.now_s)
    await refused(hooked, 403, "does not match", body.replace(b"created", b"deleted"), **headers)


async def test_a_header_that_is_given_twice(hooked: Admin) -> None:
    """403: two ids joined are no id."""
    body, headers = signed(MOVED, hooked.rig.wall.now_s)
    await refused(hooked, 403, "malformed", body, **headers, x_mlflow_delivery_ID=CANARY)


async def test_a_replay(hooked: Admin) -> None:
    """403, though everything is genuine."""
    body, headers = signed(MOVED, hooked.rig.wall.now_s)
    assert (await hooked.ask("POST", PATH, body, **headers)).status == 202
    await hooked.rig.pass_s(1.5)
    await refused(hooked, 403, "taken before", body, **headers)


@pytest.mark.parametrize("seconds", [-400, 400])
async def test_out_of_time(hooked: Admin, seconds: float) -> None:
    """403 for old ones and for those from the future."""
    body, headers = signed(MOVED, hooked.rig.wall.now_s + seconds)
    await refused(hooked, 403, "300 s are allowed", body, **headers)


async def test_a_body_that_is_no_event(hooked: Admin) -> None:
    """400, genuine though it is."""
    body, headers = signed([CANARY], hooked.rig.wall.now_s)
    await refused(hooked, 400, "names no entity and action", body, **headers)


async def test_a_body_that_is_too_long(hooked: Admin) -> None:
    """413, unread."""
    body, headers = signed([CANARY * (MAX_BODY_BYTES // len(CANARY) + 1)], hooked.rig.wall.now_s)
    await refused(hooked, 413, f"at most {MAX_BODY_BYTES}", body, **headers)


async def test_too_many_to_remember(hooked: Admin) -> None:
    """503 with when to try again, and again room when the first are forgotten."""
    for number in range(3):
        assert (await deliver(hooked, delivery=f"id-{number}")).status == 202
    await hooked.rig.pass_s(1.5)
    body, headers = signed(MOVED, hooked.rig.wall.now_s, delivery="id-3")
    await refused(hooked, 503, "more than 3 deliveries", body, **headers)
    assert (await hooked.ask("POST", PATH, body, **headers)).headers["retry-after"] == "60"
    await hooked.rig.pass_s(301.0, step_s=20.0)
    assert (await deliver(hooked, delivery="id-3")).status == 202


async def test_an_unknown_registry(hooked: Admin) -> None:
    """404, whoever signed."""
    received = await deliver(hooked, path="/registries/prud/webhook")
    assert (received.status, received.error) == (404, "no registry 'prud'; there is: registry prod")


async def test_a_registry_without_a_secret(admin: Admin) -> None:
    """404, with what is missing."""
    received = await deliver(admin)
    assert received.status == 404
    assert "webhook_secret" in received.error


async def test_only_post(hooked: Admin) -> None:
    """405 with what is allowed."""
    received = await hooked.ask("GET", PATH)
    assert (received.status, received.headers["allow"]) == (405, "post")


@pytest.mark.parametrize("path", ["/registries/prod/poll", "/registries/registry%20prod/poll?model=fraud"])
async def test_a_wish_to_look_now(admin: Admin, path: str) -> None:
    """202, under the registry's name or its source's; the moved alias is found at once."""
    admin.rig.registry.alias("champion", "2")
    received = await admin.ask("POST", path)
    assert received.status == 202
    assert json.loads(received.body)["looking_at"] == 1
    await admin.rig.pass_s(1.0)
    assert admin.rig.labels == ["2"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/registries/nowhere/poll", 404, "no registry 'nowhere'"),
        ("/registries/prod/poll?model=iris", 404, "fraud = s3://bucket/fraud@champion"),
        ("/registries/prod/poll?model=", 400, "?model=NAME"),
        ("/registries/prod/poll?modell=fraud", 400, "?model=NAME"),
        ("/registries/prod/poll?model=fraud&model=iris", 400, "once"),
        ("/registries/prod/poll?fraud", 400, "malformed"),
        ("/registries/prod/poll?" + "&".join(f"a{n}=1" for n in range(50)), 400, "malformed"),
    ],
)
async def test_wishes_that_make_no_sense(admin: Admin, path: str, status: int, words: str) -> None:
    """Each says what is expected."""
    received = await admin.ask("POST", path)
    assert received.status == status
    assert words in received.error
