"""Gates that are answered from outside, by real servers that answer well, badly, late, or never."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.core.rollout import ExternalGate, PrometheusGate
from gateway.rollouts.asking import Answer, Asker
from gateway.rollouts.effects import AskGate
from tests.rollouts.shell.http_peer import Peer, peer
from tests.rollouts.shell.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Peer]:
    with peer() as made:
        yield made


def question(gate: ExternalGate | PrometheusGate, place: str = "drift.external") -> AskGate:
    return AskGate("line", "id1", 2, place, gate, {"stable": 1, "canary": 2})


async def ask_external(url: str, timeout_s: float = 10.0) -> Answer:
    return await Asker().ask(question(ExternalGate(url, timeout_s)), "m")


async def ask_prometheus(url: str, query: str = "up") -> Answer:
    return await Asker().ask(question(PrometheusGate(url, query, timeout_s=10.0)), "m")


@pytest.mark.parametrize("verdict", ["pass", "fail", "hold", "no_data"])
async def test_a_verdict_is_taken_with_its_reason(server: Peer, verdict: str) -> None:
    server.reply = lambda: (200, json.dumps({"verdict": verdict, "reason": "drift 0.3"}).encode())
    assert await ask_external(f"{server.url}/gate?team=risk") == Answer(verdict=verdict, reason="drift 0.3")
    asked = parse_qs(urlsplit(server.paths[0]).query)
    assert asked == {
        "team": ["risk"],
        "rollout": ["line"],
        "rollout_id": ["id1"],
        "step": ["2"],
        "model": ["m"],
        "stable": ["1"],
        "canary": ["2"],
    }


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b'{"verdict": "maybe"}', "expected a verdict"),
        (200, b"[]", "expected a verdict"),
        (200, b'{"verdict": ["pass"]}', "expected a verdict"),
        (200, b"<html>", "Expecting value"),
        (200, b"[" * 100_000, "recursion"),
        (200, b'{"reason": "' + b"x" * (1 << 20) + b'"}', "longer than"),
        (503, b'{"error": "busy"}', "answered 503: busy"),
        (404, b"[]", "answered 404"),
    ],
)
async def test_whatever_is_no_verdict_is_an_error_in_words(
    server: Peer, status: int, body: bytes, words: str
) -> None:
    server.reply = lambda: (status, body)
    answer = await ask_external(server.url)
    assert answer.verdict == ""
    assert words in answer.error


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert "refused" in (await ask_external(f"http://127.0.0.1:{port}")).error


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"no http\r\n\r\n"])
async def test_an_answer_that_breaks_off_is_an_error(sent: bytes) -> None:
    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(sent)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        answer = await ask_external(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert answer.error
    assert answer.verdict == ""


async def test_a_question_without_an_answer_is_given_up_and_not_asked_twice_at_once(server: Peer) -> None:
    hold = threading.Event()

    def late() -> tuple[int, bytes]:
        hold.wait()
        return 200, b'{"verdict": "pass"}'

    server.reply = late
    asker = Asker()
    first = asyncio.ensure_future(asker.ask(question(ExternalGate(server.url, 30.0)), "m"))
    await until(lambda: bool(server.paths), 0.001)
    second = await asker.ask(question(ExternalGate(server.url, 30.0)), "m")
    assert "has not answered the question before" in second.error
    assert len(server.paths) == 1
    hold.set()
    assert (await first).verdict == "pass"


async def test_a_server_that_says_nothing_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert (await ask_external(url, timeout_s=0.1)).error == f"{url} did not answer within 0.1 s"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"resultType": "scalar", "result": [1.0, "0.25"]}, 0.25),
        ({"resultType": "vector", "result": [{"metric": {}, "value": [1.0, "7"]}]}, 7.0),
        ({"resultType": "vector", "result": []}, None),
        ({"resultType": "scalar", "result": [1.0, "NaN"]}, None),
        ({"resultType": "scalar", "result": [1.0, "+Inf"]}, float("inf")),
    ],
)
async def test_a_query_comes_to_one_number(server: Peer, data: object, value: float | None) -> None:
    server.reply = lambda: (200, json.dumps({"status": "success", "data": data}).encode())
    answer = await ask_prometheus(server.url, 'errors{model="{model}",version="{canary}"} / {stable}')
    assert (answer.value, answer.error) == (value, "")
    asked = parse_qs(urlsplit(server.paths[0]).query)["query"]
    assert asked == ['errors{model="m",version="2"} / 1']


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"status": "error"}, "expected an answer of Prometheus"),
        (
            {"status": "success", "data": {"resultType": "matrix", "result": []}},
            "scalar or an instant vector",
        ),
        ({"status": "success", "data": None}, "scalar or an instant vector"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, "many"]}}, "many"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, None]}}, "expected a number"),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{}]}},
            "without a value",
        ),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, "2"]}] * 2}},
            "the query gives 2 series",
        ),
    ],
)
async def test_whatever_is_no_number_is_an_error_in_words(server: Peer, document: object, words: str) -> None:
    server.reply = lambda: (200, json.dumps(document).encode())
    answer = await ask_prometheus(server.url)
    assert answer.value is None
    assert words in answer.error
