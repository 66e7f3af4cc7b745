"""The JSON API over a real listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.monitor.pages.options import PageOptions
from tests.monitor.pages.view_fake import CREDIT, NOW_S

if TYPE_CHECKING:
    import httpx

    from tests.monitor.pages.view_fake import FakeView

MODEL = f"/v1/models/{CREDIT}"


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/v1/health", {"ready", "checkpoint_s"}),
        ("/v1/models", {"models"}),
        (MODEL, {"model", "versions", "signals", "coverage", "standing"}),
        (f"{MODEL}/scores?signal=income", {"scores", "cut"}),
        (f"{MODEL}/coverage", {"ratio", "markers"}),
        (f"{MODEL}/distribution?signal=income", {"numeric", "missing", "rows"}),
        (f"{MODEL}/performance", {"metrics", "reliability", "fairness"}),
        (f"{MODEL}/arms?candidate=canary&baseline=stable", {"verdict", "metrics"}),
        (f"{MODEL}/verdict?candidate=canary&baseline=stable", {"verdict", "reason", "coverage", "evidence"}),
        ("/v1/alarms", {"alarms", "expected_false", "raised"}),
        ("/v1/pipeline", {"producers", "lag_s"}),
    ],
)
async def test_what_is_known_is_served(client: httpx.AsyncClient, path: str, members: set[str]) -> None:
    """Every resource answers JSON with the members of its value, guarded against other origins."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert members <= answer.json().keys()
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


async def test_scores_say_what_they_are_about(client: httpx.AsyncClient) -> None:
    """A score carries its stream as an object, its finding as a word, and only the signal asked for."""
    found = (await client.get(f"{MODEL}/scores", params={"signal": "income", "window": "1h"})).json()[
        "scores"
    ]
    assert {score["signal"] for score in found} == {"income"}
    assert found[0]["key"]["model"] == CREDIT
    assert found[-1]["finding"] == "drift"
    assert found[-1]["end_s"] <= NOW_S


async def test_unknown_numbers_are_null(client: httpx.AsyncClient) -> None:
    """JSON has no NaN: a bound that is not declared is null."""
    metrics = (await client.get(f"{MODEL}/performance")).json()["metrics"]
    assert metrics[0]["most"] is None
    assert metrics[0]["least"] is not None


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/models/nobody", 404, "nobody"),
        (f"{MODEL}/distribution", 400, "'signal' is missing"),
        (f"{MODEL}/distribution?signal=nonsense", 404, "nonsense"),
        (f"{MODEL}/scores?window=2h", 400, "'window' must be one of 5m, 1h, 1d"),
        (f"{MODEL}/scores?range=3h", 400, "'range'"),
        (f"{MODEL}/scores?start=2&end=1", 400, "'end' must be after"),
        (f"{MODEL}/scores?start=nan", 400, "'start' must be seconds"),
        (f"{MODEL}/scores?version=one", 400, "'version' must be a number"),
        (f"{MODEL}/scores?search={'x' * 1001}", 400, "1000 characters"),
        (f"{MODEL}/scores?search=%00", 400, "control characters"),
        (f"{MODEL}/verdict?candidate=canary", 400, "'baseline' is missing"),
        (f"{MODEL}/report?format=pdf", 400, "'format' must be one of html, json, parquet"),
        ("/v1/nothing", 404, "no such page"),
    ],
)
async def test_errors_are_sentences(client: httpx.AsyncClient, path: str, status: int, words: str) -> None:
    """What cannot be answered says why, as JSON, with a status of its kind."""
    answer = await client.get(path)
    assert answer.status_code == status
    assert words in answer.json()["error"]


async def test_health_tells_when_it_is_not_ready(client: httpx.AsyncClient, view: FakeView) -> None:
    """A probe sees 503 with the reason."""
    view.ready = False
    answer = await client.get("/v1/health")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "the state is being restored"


LABELS: list[Any] = [
    {"key": "a", "label": 1},
    {"key": "b", "label": "good", "row": 2, "at_s": 1.5, "revision": 3, "weight": 2, "source": "crm"},
]
MALFORMED: list[Any] = [
    3,
    {},
    {"key": "", "label": 1},
    {"key": "c"},
    {"key": "c", "label": [1]},
    {"key": "c", "label": 1, "row": -1},
    {"key": "c", "label": 1, "weight": 0},
    {"key": "c", "label": 1, "weight": True},
    {"key": "c", "label": 1, "at_s": "soon"},
    {"key": "c" * 513, "label": 1},
    {"key": "c", "label": 1, "revision": 1 << 40},
    {"key": "c", "label": (1 << 53) + 1},
]


async def test_labels_are_taken_and_bad_ones_counted(client: httpx.AsyncClient, view: FakeView) -> None:
    """A malformed label is refused alone; the others reach the view as they were posted."""
    answer = await client.post("/v1/labels", json={"model": CREDIT, "labels": [*LABELS, *MALFORMED]})
    assert answer.status_code == 200, answer.text
    taken = answer.json()
    assert (taken["joined"], taken["refused"]) == (2, len(MALFORMED))
    assert taken["reasons"] == {"malformed": len(MALFORMED)}
    (_, first), (_, second) = view.posted
    assert (first.key, first.label, first.revision, first.at_s) == ("a", 1, 0, None)
    assert (second.row, second.at_s, second.revision, second.weight, second.source) == (2, 1.5, 3, 2.0, "crm")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"model": "m", "labels": []}', "text/plain", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"model": "m", "labels": {}}', "application/json", 400),
        (b'{"model": "", "labels": []}', "application/json", 400),
        (b'{"model": "m", "labels": [' + b"0," * 200 + b"0]}", "application/json", 413),
        (b" " * 200_001, "application/json", 413),
    ],
)
@pytest.mark.parametrize("options", [PageOptions(port=0, max_labels=100, max_body_bytes=200_000)])
async def test_hostile_posts_are_refused(
    client: httpx.AsyncClient, view: FakeView, body: bytes, kind: str, status: int
) -> None:
    """A post that is no such document, or too large, is refused whole."""
    answer = await client.post("/v1/labels", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]
    assert not view.posted


async def test_a_subject_is_erased(client: httpx.AsyncClient, view: FakeView) -> None:
    """Whatever characters name it; how many records there were is told."""
    answer = await client.delete("/v1/subjects/customer%2F12%20a")
    assert answer.json() == {"erased": 3}
    assert view.erased == ["customer/12 a"]


async def test_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    """What is read only cannot be written."""
    answer = await client.post("/v1/models")
    assert answer.status_code == 405
    assert "error" in answer.json()
