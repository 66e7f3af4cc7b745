"""Bad HTTP against a real gateway: each answer says what was wrong, and nothing is harmed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from loadtests.soak_http import HttpConnection, NoAnswer, request
from loadtests.soak_models import OFFSET
from tests.robustness.http_corpus import CASES, LIMIT_BYTES, BadHttp, path, posted, tensor

if TYPE_CHECKING:
    from loadtests.soak_server import GatewayProcess


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_requests_are_refused_in_words(gateway: GatewayProcess, case: BadHttp) -> None:
    """Every request of the corpus gets its 4xx (or listed 5xx) and a message that names what was wrong."""
    async with HttpConnection(gateway.http_port) as connection:
        connection.writer.write(case.data)
        if case.half_close:
            connection.writer.write_eof()
        answer = await connection.answer()
    assert answer.status == case.status, answer.body
    assert answer.headers["content-type"] == "application/json"
    for word in case.words:
        assert word in answer.error


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"], ids=["NaN", "Infinity", "minus Infinity"])
async def test_non_finite_data_is_answered_alike(gateway: GatewayProcess, value: str) -> None:
    """NaN and Infinity in the data are no mistake: Triton's clients write them, and they come back."""
    body = json.dumps({"inputs": [tensor(data=["@", 1, 2, 3])]}).replace('"@"', value)
    async with HttpConnection(gateway.http_port) as connection:
        answer = await connection.exchange(posted(body.encode()))
    assert answer.status == 200
    assert f"[{value},2".encode() in answer.body.replace(b".0", b"")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET /v2 HTTP/1.1\r\nHost:", "headers did not arrive in time"),
        (
            f"POST {path(OFFSET)} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode(),
            "body did not arrive in time",
        ),
        (
            f"POST {path(OFFSET)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{{".encode(),
            "body did not arrive in time",
        ),
    ],
    ids=["headers", "body", "chunk"],
)
async def test_slow_clients_are_given_up(gateway: GatewayProcess, sent: bytes, words: str) -> None:
    """A request that stops arriving is answered 408 when its time is up, and the connection is closed."""
    async with HttpConnection(gateway.http_port) as connection:
        answer = await connection.exchange(sent)
        assert (answer.status, answer.closing) == (408, True)
        assert words in answer.error
        with pytest.raises(NoAnswer):
            await connection.answer()


async def test_clients_that_go_are_forgotten(gateway: GatewayProcess) -> None:
    """Connections dropped in the middle of requests leave no descriptor behind."""
    before = gateway.usage().fds
    for size in (1, 40, 200, 300):
        connections = [HttpConnection(gateway.http_port) for _ in range(25)]
        for connection in connections:
            await connection.__aenter__()
            connection.writer.write(posted({"inputs": [tensor()]})[:size])
        for connection in connections:
            connection.abort()
    async with HttpConnection(gateway.http_port) as connection:
        # Closed by the server: by then it has seen every connection go that went before.
        await connection.exchange(request("GET", "/v2", Connection="close"))
    assert gateway.usage().fds <= before + 2


async def test_many_large_uploads_share_the_limit(gateway: GatewayProcess) -> None:
    """Oversize uploads are refused by their length alone: fifty at once take no memory."""
    head = f"POST {path(OFFSET)} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n".encode()

    async def upload() -> int:
        async with HttpConnection(gateway.http_port) as connection:
            connection.writer.write(head + bytes(LIMIT_BYTES))
            return (await connection.answer()).status

    assert set(await asyncio.gather(*(upload() for _ in range(50)))) == {413}
