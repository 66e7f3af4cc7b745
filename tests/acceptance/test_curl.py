"""curl against the HTTP routes: bodies and headers that no client library has tidied up."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.acceptance.clients import floats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.process import RunningGateway

X = floats([1, 2])
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Curl:
    """curl with a base URL; bodies travel through a file."""

    def __init__(self, gateway: RunningGateway, directory: Path) -> None:
        self._base = f"http://{gateway.http}"
        self._file = directory / "body"

    def post(self, path: str, body: bytes, *options: str) -> bytes:
        self._file.write_bytes(body)
        return self.run(path, "--data-binary", f"@{self._file}", *options)

    def run(self, path: str, *options: str) -> bytes:
        command = ["curl", "--silent", "--show-error", "--max-time", "30", *options, self._base + path]
        return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def curl(zoo: RunningGateway, tmp_path: Path) -> Curl:
    return Curl(zoo, tmp_path)


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Split what `curl --include` prints into status, headers and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def test_json(curl: Curl) -> None:
    """The plain case."""
    answer = json.loads(curl.post("/v2/models/scaled/infer", json.dumps(REQUEST).encode()))
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2, 4]}]


def test_binary_body_both_ways(curl: Curl) -> None:
    """JSON in front, raw tensors behind, the length of the JSON in a header, in both directions."""
    size = {"binary_data_size": X.nbytes}
    head = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": size}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    answer = curl.post("/v2/models/scaled/infer", head + X.tobytes(), "--include", "--header", length)
    status, headers, body = parts(answer)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    split = int(headers["inference-header-content-length"])
    assert json.loads(body[:split])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(body[split:], np.float32).tolist() == [2, 4]


def test_raw_body(curl: Curl) -> None:
    """A header of zero: the whole body is the only input, the whole answer the only output."""
    pixels = np.random.default_rng(5).integers(0, 17, (1, 64)).astype(np.float32)
    zero = ("--include", "--header", "Inference-Header-Content-Length: 0")
    status, headers, body = parts(curl.post("/v2/models/digits/infer", pixels.tobytes(), *zero))
    split = int(headers["inference-header-content-length"])
    assert status == 200
    assert np.frombuffer(body[split:], np.float32).sum() == pytest.approx(1)


@pytest.mark.parametrize("method", ["--compressed", "-HAccept-Encoding: gzip"])
def test_gzip_both_ways(curl: Curl, method: str) -> None:
    """A compressed request, and an answer compressed for who asks for it."""
    data = list(range(2000))
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, len(data)], "data": data}]}
    body = gzip.compress(json.dumps(request).encode())
    options = ("--header", "Content-Encoding: gzip", "--include", method)
    status, headers, answer = parts(curl.post("/v2/models/identity_fp32/infer", body, *options))
    assert (status, headers["content-encoding"]) == (200, "gzip")
    text = answer if method == "--compressed" else gzip.decompress(answer)
    assert json.loads(text)["outputs"][0]["data"] == data


REFUSED: dict[str, tuple[bytes, tuple[str, ...], int, str]] = {
    "no JSON": (b"{nonsense", (), 400, "failed to parse the request JSON buffer"),
    "truncated gzip": (gzip.compress(b"x" * 1000)[:20], ("-HContent-Encoding: gzip",), 400, ""),
    "unknown coding": (b"x", ("-HContent-Encoding: zstd",), 501, ""),
    "length beyond the body": (b"{}", ("-HInference-Header-Content-Length: 99",), 400, "from 0 to 2"),
    "empty body": (b"", (), 400, "empty body"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(curl: Curl, case: str) -> None:
    """A status of the client's class with the reason in JSON."""
    body, options, expected, text = REFUSED[case]
    status, headers, answer = parts(curl.post("/v2/models/scaled/infer", body, "--include", *options))
    assert (status, headers["content-type"]) == (expected, "application/json")
    assert text in json.loads(answer)["error"]


ROUTES: dict[str, tuple[tuple[str, ...], int]] = {
    "/v2": ((), 200),
    "/v2/health/live": ((), 200),
    "/v2/health/ready": ((), 200),
    "/v2/models/scaled/ready": ((), 200),
    "/v2/models/scaled/versions/1": ((), 200),
    "/v2/models/stats": ((), 200),
    "/v2/repository/index": (("--request", "POST"), 200),
    "/v2/models/scaled/infer": ((), 405),
    "/v2/nothing": ((), 404),
    "/openapi.json": ((), 200),
}


@pytest.mark.parametrize("path", ROUTES)
def test_routes(curl: Curl, path: str) -> None:
    """Every answer is JSON, whatever its status."""
    options, expected = ROUTES[path]
    status, _, body = parts(curl.run(path, "--include", *options))
    assert status == expected
    answer: Any = json.loads(body)
    assert isinstance(answer, dict | list)
