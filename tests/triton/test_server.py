"""The servers that other tests rely on do what is asked of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.acceptance import zoo
from tests.acceptance.clients import floats
from tests.acceptance.process import until
from tests.triton import models
from tests.triton.server import StartFailed, TritonServer, triton

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

    from tests.triton.models import Model


def asked(server: TritonServer, model: str, array: npt.NDArray[np.float32], **options: Any) -> Any:
    """Return the output `y` of a model for an input `x`."""
    tensor = tritonclient.grpc.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        return client.infer(model, [tensor], client_timeout=30, **options).as_numpy("y").tolist()


def scaled(**factors: float) -> Model:
    """Return `y = x * factor` in these versions, `v1=2.0`."""
    files = {int(name.removeprefix("v")): zoo.scaled(factor) for name, factor in factors.items()}
    return models.of_onnx(files)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """In mode explicit, every model loaded."""
    repository = models.write(
        tmp_path_factory.mktemp("repository"),
        {"scaled": scaled(v1=2.0, v3=4.0), "slow": models.slow(), "sums": models.accumulator()},
    )
    with triton(repository, mode="explicit", load=["*"]) as server:
        yield server


@pytest.fixture
def started(server: TritonServer) -> TritonServer:
    """The server, running again whatever the test before did to it."""
    server.control.unlink(missing_ok=True)
    if not server.running:
        server.start()
    return server


def test_every_version_is_there(started: TritonServer) -> None:
    """Each with the file of its own."""
    answers = {v: asked(started, "scaled", floats([1, 2]), model_version=v) for v in ("1", "3")}
    assert answers == {"1": [[2, 4]], "3": [[4, 8]]}


def test_killed_and_started_again_on_its_ports(started: TritonServer) -> None:
    """Nothing of it is left, and the same client finds it again."""
    address = started.grpc
    started.kill()
    assert not started.says("/v2/health/live")
    started.start()
    assert started.grpc == address
    assert asked(started, "scaled", floats([1, 2])) == [[4, 8]]


def test_frozen_it_accepts_and_does_not_answer(started: TritonServer) -> None:
    """As a host that hangs; what was asked meanwhile is answered when it goes on."""
    tensor = tritonclient.grpc.InferInput("x", [1, 2], "FP32").set_data_from_numpy(floats([1, 2]))
    with tritonclient.grpc.InferenceServerClient(started.grpc) as client:
        client.infer("scaled", [tensor])
        started.suspend()
        try:
            with pytest.raises(InferenceServerException, match="Deadline"):
                client.infer("scaled", [tensor], client_timeout=0.2)
        finally:
            started.resume()
        assert client.infer("scaled", [tensor], client_timeout=30).as_numpy("y").tolist() == [[4, 8]]


def test_faults_are_switched_on_and_off(started: TritonServer) -> None:
    """Of a share of one half every second request fails."""
    started.control.write_text(json.dumps({"error_share": 0.5}))
    for _ in range(3):
        assert asked(started, "scaled", floats([1, 2])) == [[4, 8]]
        with pytest.raises(InferenceServerException, match="the test asked for this error"):
            asked(started, "scaled", floats([1, 2]))
    started.control.unlink()
    assert asked(started, "scaled", floats([1, 2])) == [[4, 8]]


def test_versions_are_loaded_and_unloaded(started: TritonServer) -> None:
    """Of mode explicit, with the versions that a configuration of the call names, until it is unloaded."""
    one = json.dumps(
        {
            "backend": "python",
            "max_batch_size": 64,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2]}],
            "version_policy": {"specific": {"versions": [1]}},
        }
    )
    with tritonclient.grpc.InferenceServerClient(started.grpc) as client:
        client.load_model("scaled", config=one)
        until(lambda: not client.is_model_ready("scaled", "3"))
        assert client.is_model_ready("scaled", "1")
        client.load_model("scaled")  # as the configuration said that it was loaded with
        assert not client.is_model_ready("scaled", "3")
        client.unload_model("scaled")
        until(lambda: not client.is_model_ready("scaled", "1"))
        client.load_model("scaled")
        assert client.is_model_ready("scaled", "3")


def test_a_sequence_has_a_state(started: TritonServer) -> None:
    """Values of one sequence are added up, and those of another apart."""
    with tritonclient.grpc.InferenceServerClient(started.grpc) as client:
        sums = []
        for sequence, value, start in ((7, 1, True), (8, 10, True), (7, 2, False), (8, 20, False)):
            tensor = tritonclient.grpc.InferInput("value", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[value]], np.int32))
            result = client.infer("sums", [tensor], sequence_id=sequence, sequence_start=start)
            sums.append(int(result.as_numpy("sum")[0, 0]))
    assert sums == [1, 10, 3, 30]


def test_a_poll_finds_what_is_new(repository: Path) -> None:
    """Of mode poll, a model that is written after the start."""
    options = {"repository-poll-secs": "1"}
    models.write(repository, {"first": scaled(v1=2.0)})
    with triton(repository, mode="poll", options=options) as server:
        models.write(repository, {"second": scaled(v1=3.0)})
        until(lambda: server.says("/v2/models/second/ready"))
        assert asked(server, "second", floats([1, 2])) == [[3, 6]]


def test_a_start_that_fails_says_why(repository: Path) -> None:
    """With the end of the log, at once and not when patience is over."""
    broken = models.of_onnx({1: zoo.scaled(2.0)}, more=["no such field"])
    models.write(repository, {"broken": broken})
    with pytest.raises(StartFailed, match="broken"), triton(repository):
        pass
