"""A client of another language that we did not write: Node's @grpc/grpc-js over our .proto files."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from tests.acceptance.clients import ON_BOTH
from tests.acceptance.process import ROOT, RunningGateway

pytestmark = [pytest.mark.network, ON_BOTH]

SOURCE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def installed() -> Path:
    """The client with its packages, installed as its lock says; kept under build/ for the next time."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    lock = SOURCE / "package-lock.json"
    target = ROOT / "build" / f"node-client-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent))
        for name in ("package.json", lock.name):
            shutil.copy(SOURCE / name, made)
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=made, check=True, timeout=110
        )
        made.rename(target)
    shutil.copy(SOURCE / "client.mjs", target)
    return target


class Node:
    """Calls one gateway through the Node client, a process for each call."""

    def __init__(self, client: Path, gateway: RunningGateway) -> None:
        self._command = ["node", str(client / "client.mjs"), gateway.grpc, str(ROOT / "protos")]

    def call(self, method: str, request: Any) -> dict[str, Any]:
        case = json.dumps({"method": method, "request": request})
        done = subprocess.run(
            self._command, input=case, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def answers(self, method: str, request: Any) -> list[dict[str, Any]]:
        answer = self.call(method, request)
        assert "responses" in answer, answer
        responses: list[dict[str, Any]] = answer["responses"]
        return responses


@pytest.fixture
def node(installed: Path, demo: RunningGateway) -> Node:
    return Node(installed, demo)


def digits_request(request_id: str, pixels: npt.NDArray[np.float32]) -> dict[str, Any]:
    tensor = {"name": "pixels", "datatype": "FP32", "shape": list(pixels.shape)}
    raw = base64.b64encode(pixels.tobytes()).decode()
    return {"model_name": "digits", "id": request_id, "inputs": [tensor], "raw_input_contents": [raw]}


def some_pixels(rows: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(rows).integers(0, 17, (rows, 64)).astype(np.float32)


def direct(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(ROOT / "models" / "digits" / "2" / "model.onnx")
    probabilities: npt.NDArray[np.float32] = session.run(["probabilities"], {"pixels": pixels})[0]
    return probabilities


def assert_answers(response: dict[str, Any], request_id: str, pixels: npt.NDArray[np.float32]) -> None:
    """The response is that of version 2 of `digits` to these pixels."""
    assert (response["id"], response["model_version"]) == (request_id, "2")
    (output,) = response["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == (
        "probabilities",
        "FP32",
        [len(pixels), 10],
    )
    raw = base64.b64decode(response["raw_output_contents"][0])
    got = np.frombuffer(raw, np.float32).reshape(-1, 10)
    np.testing.assert_allclose(got, direct(pixels), rtol=1e-5)


def test_health_check(node: Node) -> None:
    """The standard health service, for the server and for a model."""
    for service in ("", "digits"):
        assert node.answers("Health", {"service": service}) == [{"status": "SERVING"}]


def test_metadata(node: Node) -> None:
    """What the stubs made of our .proto understand of the answer."""
    (metadata,) = node.answers("ModelMetadata", {"name": "digits"})
    assert (metadata["name"], metadata["versions"]) == ("digits", ["1", "2"])
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]


def test_infer(node: Node) -> None:
    """Raw tensors there and back."""
    pixels = some_pixels(3)
    (response,) = node.answers("ModelInfer", digits_request("7", pixels))
    assert_answers(response, "7", pixels)


def test_infer_with_typed_contents(node: Node) -> None:
    """Tensors as repeated numbers, as a generated stub offers them first."""
    pixels = some_pixels(1)
    request = digits_request("8", pixels)
    del request["raw_input_contents"]
    request["inputs"][0]["contents"] = {"fp32_contents": pixels.ravel().tolist()}
    (response,) = node.answers("ModelInfer", request)
    assert_answers(response, "8", pixels)


def test_streaming(node: Node) -> None:
    """Answers in the order of the requests, an error among them, then the end of the stream."""
    batches = [some_pixels(rows) for rows in (1, 2, 3)]
    requests = [digits_request(str(len(pixels)), pixels) for pixels in batches]
    requests.insert(1, digits_request("wrong", np.zeros((1, 3), np.float32)))
    first, wrong, *rest = node.answers("ModelStreamInfer", requests)
    assert wrong["error_message"].startswith("unexpected shape for input 'pixels' for model 'digits'")
    for answer, pixels in zip((first, *rest), batches, strict=True):
        assert_answers(answer["infer_response"], str(len(pixels)), pixels)


def test_refusals(node: Node) -> None:
    """Code and message as the gRPC library of that language shows them."""
    answer = node.call("ModelInfer", {**digits_request("", some_pixels(1)), "model_name": "nothing"})
    assert answer == {"code": "NOT_FOUND", "message": "Request for unknown model: 'nothing' is not found"}
