"""Loads that cannot work, against a real gateway: the sender is told, and what served before goes on."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from loadtests.soak_http import HttpConnection, fetch
from loadtests.soak_kills import served
from loadtests.soak_load import http_infer
from loadtests.soak_models import OFFSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtests.soak_server import GatewayProcess


@pytest.fixture(scope="module")
def explicit() -> Iterator[GatewayProcess]:
    with served(mode="explicit") as (server, directory):
        broken = directory / "repository" / "broken" / "1"
        broken.mkdir(parents=True)
        (broken / "model.onnx").write_bytes(b"no model")
        yield server


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": "{"}, "JSON"),
        ({"config": '{"max_batch_size":-1}'}, "max_batch_size"),
        ({"config": '{"platform":"tensorflow_graphdef"}'}, "tensorflow_graphdef"),
        ({"config": "{}", "file:1/model.onnx": base64.b64encode(b"no model").decode()}, "ONNX"),
        ({"config": "{}", "file:../../escape.onnx": "AAAA"}, "../../escape.onnx"),
        ({"config": "{}", "file:1/model.onnx": "A"}, "base64"),
        ({"config": 7}, "config"),
        ({"weights": "x"}, "weights"),
    ],
    ids=["no JSON", "bad value", "platform", "no model", "escape", "no base64", "no text", "unknown"],
)
async def test_what_a_client_sends_with_a_load_may_be_wrong(
    explicit: GatewayProcess, parameters: Mapping[str, object], words: str
) -> None:
    """A configuration or file that cannot be loaded is a 400 that says why, and the old version serves on."""
    body = json.dumps({"parameters": parameters}).encode()
    answer = await fetch(explicit.http_port, "POST", f"/v2/repository/models/{OFFSET}/load", body)
    assert answer.status == 400
    assert words in answer.error
    async with HttpConnection(explicit.http_port) as connection:
        assert (await connection.exchange(http_infer((0.0, 0.0, 0.0, 0.0)))).status == 200


async def test_a_broken_model_in_the_repository_is_the_servers(explicit: GatewayProcess) -> None:
    """It is no mistake of the client that asks for it: 500 with the reason, and nothing else is disturbed."""
    answer = await fetch(explicit.http_port, "POST", "/v2/repository/models/broken/load")
    assert (answer.status, "ONNX" in answer.error) == (500, True)
    async with HttpConnection(explicit.http_port) as connection:
        assert (await connection.exchange(http_infer((0.0, 0.0, 0.0, 0.0)))).status == 200
