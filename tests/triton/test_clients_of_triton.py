"""What clients meet where a model runs on Triton, and not where it runs in the gateway."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.acceptance.clients import Client, floats, refusal
from tests.acceptance.process import PATIENCE_S
from tests.acceptance.test_describe import only
from tests.acceptance.test_equality import CLIENTS, SUBJECTS, ask, assert_close, assert_same_labels
from tests.triton import models
from tests.triton.server import triton

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.process import RunningGateway
    from tests.triton.server import TritonServer


def test_metadata_is_tritons(client: Client) -> None:
    """Versions and tensors as Triton has them, and its platform."""
    metadata = client.describe("get_model_metadata", "digits")
    assert (metadata["name"], metadata["platform"]) == ("digits", "python")
    assert sorted(metadata["versions"]) == ["1", "2"]
    tensors = [
        (t["name"], t["datatype"], [int(size) for size in t["shape"]])
        for t in (only(metadata["inputs"]), only(metadata["outputs"]))
    ]
    assert tensors == [("pixels", "FP32", [-1, 64]), ("probabilities", "FP32", [-1, 10])]


def test_the_config_has_tritons_rows(client: Client) -> None:
    """The batch axis left out of the dims, and the rows that Triton takes."""
    config = client.describe("get_model_config", "digits", "2")
    config = config["config"] if client.transport == "grpc" else config
    assert (config["name"], int(config["max_batch_size"])) == ("digits", 64)
    assert [int(size) for size in only(config["input"])["dims"]] == [64]


def test_classification(client: Client) -> None:
    """The best classes of each row, best first, by their numbers."""
    pixels = np.random.default_rng(7).integers(0, 17, (3, 64)).astype(np.float32)
    probabilities = client.infer("digits", {"pixels": pixels}).as_numpy("probabilities")
    inputs, outputs = client.inputs({"pixels": pixels}), [client.output("probabilities", class_count=3)]
    classes = client.call("infer", "digits", inputs, outputs=outputs).as_numpy("probabilities")
    found = [[int(text.decode().split(":")[1]) for text in row] for row in classes.tolist()]
    assert found == np.argsort(-probabilities)[:, :3].tolist()


async def test_equal_to_direct_runs_of_each_request(zoo: RunningGateway) -> None:
    """Of 64 clients at once, half over each transport, everyone gets the answer to its own request."""
    subject = SUBJECTS["digits"]
    direct = [subject.run(payload) for payload in subject.payloads]
    answers = await ask(zoo, "digits", subject, requests=2)
    assert len(answers) == 2 * CLIENTS
    for answered in answers:
        assert_close(answered, direct[answered.payload])
        assert_same_labels(subject, answered, direct[answered.payload])


def test_bytes_need_not_be_text(client: Client) -> None:
    """Strings of ONNX are UTF-8; what Triton takes is the model's affair."""
    sent = np.array([[b"text", b"\xff\xfe\x00\x80"]], np.object_)
    assert client.infer("identity_bytes", {"x": sent}).as_numpy("y").tolist() == sent.tolist()


def test_a_request_that_ends_triton_does_not_reach_it(client: Client, triton_zoo: TritonServer) -> None:
    """Classes of text divide by zero in Triton 2.51; here they are refused before anything is sent."""
    inputs = client.inputs({"x": np.array([[b"a"]], np.object_)})
    outputs = [client.output("y", class_count=1)]
    code, message = refusal(client, lambda: client.call("infer", "identity_bytes", inputs, outputs=outputs))
    assert (code, message) == (
        "INVALID_ARGUMENT",
        "classification is not available for output 'y' of datatype BYTES",
    )
    assert triton_zoo.running


def test_such_a_request_does_end_triton(repository: Path) -> None:
    """Sent to it directly; when this fails, its release repaired it and the test before says less."""
    tensor = tritonclient.grpc.InferInput("x", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"a"]], np.object_))
    output = tritonclient.grpc.InferRequestedOutput("y", class_count=1)
    with triton(models.write(repository, {"text": models.identity("BYTES")})) as server:
        with (
            tritonclient.grpc.InferenceServerClient(server.grpc) as client,
            pytest.raises(InferenceServerException),
        ):
            client.infer("text", [tensor], outputs=[output])
        server.wait_gone()


def test_control_calls_do_not_reach_triton(client: Client, triton_zoo: TritonServer) -> None:
    """Unloading through the gateway is the gateway's affair; Triton's shared memory is not to be had."""
    with pytest.raises(InferenceServerException):
        client.call("register_system_shared_memory", "r", "/r", 64)
    with pytest.raises(InferenceServerException):
        client.call("unload_model", "pair")
    assert triton_zoo.says("/v2/models/pair/ready")
    assert client.infer("scaled", {"x": floats([1, 2])}).as_numpy("y").tolist() == [[2, 4]]


class Repeated:
    """A stream of tritonclient.grpc on which the decoupled model `repeat` is asked."""

    def __init__(self, client: tritonclient.grpc.InferenceServerClient) -> None:
        self._client = client
        self._answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: self._answers.put(error or result))

    def ask(self, request_id: str, **inputs: int) -> None:
        tensors = [
            tritonclient.grpc.InferInput(name, [1], "INT32").set_data_from_numpy(np.array([value], np.int32))
            for name, value in inputs.items()
        ]
        self._client.async_stream_infer(
            "repeat", tensors, request_id=request_id, enable_empty_final_response=True
        )

    def answer(self) -> tuple[str, int | str | None, bool]:
        """Return id, index (None of an empty answer, the text of an error) and whether it is the last."""
        result = self._answers.get(timeout=PATIENCE_S)
        if isinstance(result, InferenceServerException):
            return "", result.message(), True
        response = result.get_response()
        index = result.as_numpy("index")
        final = response.parameters["triton_final_response"].bool_param
        return response.id, None if index is None else int(index[0]), final


@pytest.fixture
def repeated(zoo: RunningGateway) -> Iterator[Repeated]:
    with tritonclient.grpc.InferenceServerClient(zoo.grpc) as client:
        yield Repeated(client)
        client.stop_stream(cancel_requests=True)


def _until_final(repeated: Repeated) -> list[tuple[str, int | str | None]]:
    answers = []
    final = False
    while not final:
        request_id, index, final = repeated.answer()
        answers.append((request_id, index))
    return answers


def test_a_decoupled_model_answers_many_times_in_order(repeated: Repeated) -> None:
    """Every answer as it comes, and then that it was the last."""
    repeated.ask("a", count=4)
    assert [index for _, index in _until_final(repeated) if index is not None] == [0, 1, 2, 3]
    repeated.ask("b", count=0)
    assert _until_final(repeated) == [("b", None)]


def test_a_decoupled_model_that_fails_half_way(repeated: Repeated) -> None:
    """What came before the error was delivered, nothing is sent again, and the stream goes on."""
    repeated.ask("a", count=4, fail_at=2)
    *before, (_, error) = _until_final(repeated)
    assert [index for _, index in before] == [0, 1]
    assert "it fails here" in str(error)
    repeated.ask("b", count=1)
    answers = _until_final(repeated)
    assert ("b", 0) in answers


def test_parameters_reach_the_model(client: Client) -> None:
    """Those that mean nothing to the gateway are the model's: here, how long it takes."""

    def computed_ns() -> int:
        stats = only(client.describe("get_inference_statistics", "slow", "1")["model_stats"])
        return int(stats["inference_stats"]["compute_infer"]["ns"])

    before_ns = computed_ns()
    result = client.infer("slow", {"x": floats([1, 2])}, parameters={"ms": 300})
    assert result.as_numpy("y").tolist() == [[1, 2]]
    assert computed_ns() - before_ns >= 300_000_000
