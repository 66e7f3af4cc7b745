"""Who may ask what."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from gateway.monitor.pages.guard import Guard
from gateway.monitor.pages.options import PageOptions

if TYPE_CHECKING:
    import httpx

TOKEN = "s3cret"
WITH_TOKEN = pytest.mark.parametrize("options", [PageOptions(port=0, token=TOKEN)])


@WITH_TOKEN
@pytest.mark.parametrize("path", ["/v1/models", "/ui/data/", "/v1/pipeline", "/metrics"])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 403),
        ("Bearer wrong", 403),
        (f"Basic {TOKEN}", 403),
        (f"Basic {base64.b64encode(f'{TOKEN}:'.encode()).decode()}", 403),
        (f"Basic {base64.b64encode(f'prometheus:{TOKEN}'.encode()).decode()}", 200),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
    ],
)
async def test_a_token_guards_all_state(
    client: httpx.AsyncClient, path: str, header: str, status: int
) -> None:
    """Nothing of the state is told without it."""
    answer = await client.get(path, headers={"authorization": header} if header else {})
    assert answer.status_code == status


@WITH_TOKEN
@pytest.mark.parametrize("path", ["/", "/models/x", "/ui/files/page.js", "/v1/health"])
async def test_empty_pages_need_no_token(client: httpx.AsyncClient, path: str) -> None:
    """A browser cannot send one when it opens a page; the page asks with it afterwards."""
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8010", 200),
        ("[::1]:8010", 200),
        ("drift.example", 200),
        ("evil.example", 403),
    ],
)
@pytest.mark.parametrize("options", [PageOptions(port=0, hosts=("drift.example",))])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
async def test_a_name_of_somebody_else_is_refused(
    client: httpx.AsyncClient, path: str, host: str, status: int
) -> None:
    """A page of the web that has its own name point here gets nothing."""
    assert (await client.get(path, headers={"host": host})).status_code == status


@pytest.mark.parametrize(
    ("method", "peer", "status"),
    [
        ("POST", "10.0.0.8", 403),
        ("DELETE", "10.0.0.8", 403),
        ("GET", "10.0.0.8", 200),
        ("POST", "127.0.0.1", 200),
        ("DELETE", "::1", 200),
    ],
)
async def test_without_a_token_only_this_host_writes(method: str, peer: str, status: int) -> None:
    """Labels turn gates and erasure is for good: reading from afar is one thing, writing another."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/v1/labels",
        "method": method,
        "client": (peer, 1),
        "headers": [(b"host", b"127.0.0.1")],
    }
    await Guard(app, PageOptions())(scope, lambda: None, send)  # type: ignore[arg-type,return-value]
    assert sent[0]["status"] == status


async def test_every_answer_is_guarded(client: httpx.AsyncClient) -> None:
    """Scripts come from here alone, and nobody frames a page."""
    for path in ("/", "/v1/models", "/nowhere"):
        headers = (await client.get(path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "script" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


async def test_a_failure_is_told_without_its_details(client: httpx.AsyncClient, view: Any) -> None:
    """What broke is in the log, not in the answer."""

    async def broken() -> Any:
        raise ZeroDivisionError("secret detail")

    view.pipeline = broken
    answer = await client.get("/v1/pipeline")
    assert answer.status_code == 500
    assert "secret" not in answer.text
