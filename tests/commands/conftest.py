"""A scripted HTTP server that stands where a gateway would, and records what the commands send."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.commands.client import Address

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class StubGateway:
    """Answers each (method, path) as told, anything else with 404 as a gateway would."""

    address: Address
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.address.url

    def answer(self, method: str, path: str, document: Any, status: int = 200) -> None:
        self.answers[method, path] = (status, {}, json.dumps(document).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: StubGateway

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.stub.received.append(Received(self.command, self.path, headers, body))
        missing: Answer = (404, {}, b'{"error": "Not Found"}')
        status, extra, answer = self.stub.answers.get((self.command, self.path), missing)
        self.send_response(status)
        for name, value in {**extra, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815  the name http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as the base class names it
        """Keep quiet."""


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    class Handler(_Handler):
        """This test's own, so that its stub is not another test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub = StubGateway(Address(secure=False, host="127.0.0.1", port=server.server_address[1]))
        Handler.stub = stub
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield stub
        server.shutdown()
        thread.join()


@pytest.fixture
def digits(stub: StubGateway) -> StubGateway:
    """A stub that knows the metadata of a model `digits` and answers its infer with fixed probabilities."""
    metadata = {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    }
    stub.answer("GET", "/v2/models/digits", metadata)
    output = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
    answer = {"model_name": "digits", "model_version": "2", "outputs": [output]}
    stub.answer("POST", "/v2/models/digits/infer", answer)
    return stub
