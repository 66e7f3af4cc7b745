"""Loading and unloading by clients, in a repository of mode explicit, through every client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.clients import Client, connected, floats, refusal
from tests.acceptance.process import Gateways, RunningGateway, serving, started_once
from tests.acceptance.zoo import save, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X = floats([1, 2])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("control") / "repository"
    save(directory, "doubling", scaled(2.0))
    save(directory, "doubling", scaled(20.0), version=2)
    save(directory, "tripling", scaled(3.0))
    save(directory, "broken", b"this is no model")
    return directory


@pytest.fixture(scope="module")
def gateways(repository: Path) -> Iterator[Gateways]:
    mode = ("--repository-mode", "explicit", "--load-model", "tripling")
    logs = repository.parent
    with started_once(
        lambda transport: serving(logs / f"{transport}.log", repository, *mode, transport=transport)
    ) as gateways:
        yield gateways


@pytest.fixture
def gateway(gateways: Gateways, transport: str) -> RunningGateway:
    return gateways(transport)


@pytest.fixture
def client(kind: str, gateway: RunningGateway) -> Iterator[Client]:
    with connected(kind, gateway) as client:
        yield client
        client.call("unload_model", "doubling")


def index(client: Client) -> dict[str, tuple[str, str]]:
    """Return `model/version` -> state and reason."""
    found = client.describe("get_model_repository_index")
    rows = found["models"] if client.transport == "grpc" else found
    return {
        f"{row['name']}/{row.get('version', '')}".rstrip("/"): (row.get("state", ""), row.get("reason", ""))
        for row in rows
    }


def answer(client: Client, version: str = "") -> Any:
    return client.infer("doubling", {"x": X}, model_version=version).as_numpy("y").tolist()


def test_load_and_unload(client: Client) -> None:
    """A model serves from the answer to its load to that of its unload, and is listed all the time."""
    assert "doubling" in {name.partition("/")[0] for name in index(client)}
    assert refusal(client, lambda: answer(client))[0] == "NOT_FOUND"
    client.call("load_model", "doubling")
    assert answer(client) == [[20, 40]]
    assert index(client)["doubling/2"] == ("READY", "")
    client.call("unload_model", "doubling")
    code, message = refusal(client, lambda: answer(client))
    assert (code, "'doubling'" in message) == ("NOT_FOUND", True)
    assert client.infer("tripling", {"x": X}).as_numpy("y").tolist() == [[3, 6]]


def test_a_config_in_place_of_the_models_own(client: Client) -> None:
    """The config sent with a load decides: another version, fewer rows; the next load without one ends it."""
    policy = {"specific": {"versions": [1]}}
    client.call("load_model", "doubling", config=json.dumps({"max_batch_size": 3, "version_policy": policy}))
    assert answer(client) == [[2, 4]]
    described = client.describe("get_model_config", "doubling")
    described = described["config"] if client.transport == "grpc" else described
    assert int(described["max_batch_size"]) == 3
    four = {"x": floats(*[[1, 2]] * 4)}
    assert refusal(client, lambda: client.infer("doubling", four))[0] == "INVALID_ARGUMENT"
    client.call("load_model", "doubling")
    assert answer(client) == [[20, 40]]


def test_files_in_place_of_the_repositorys(client: Client) -> None:
    """Files sent with a load are the whole model, until a load without them."""
    client.call(
        "load_model",
        "doubling",
        config=json.dumps({"backend": "onnxruntime"}),
        files={"file:7/model.onnx": scaled(5.0).SerializeToString()},
    )
    assert answer(client) == [[5, 10]]
    assert refusal(client, lambda: answer(client, "2"))[0] == "NOT_FOUND"
    client.call("load_model", "doubling")
    assert answer(client) == [[20, 40]]


@pytest.mark.parametrize(
    "path", ["file:../1/model.onnx", "file:/etc/model.onnx", "file:1/../../../model.onnx"]
)
def test_files_that_would_leave_the_model(client: Client, path: str) -> None:
    """A path out of the model's directory is refused, and what serves goes on."""
    client.call("load_model", "doubling")
    files = {path: scaled(5.0).SerializeToString()}
    load = {"config": json.dumps({"backend": "onnxruntime"}), "files": files}
    _, message = refusal(client, lambda: client.call("load_model", "doubling", **load))
    assert "must be relative to the model and plain" in message
    assert answer(client) == [[20, 40]]


def test_a_config_that_is_wrong(client: Client) -> None:
    """The refusal names the field, and what serves goes on."""
    client.call("load_model", "doubling")
    wrong = json.dumps({"max_batch_size": "many"})
    _, message = refusal(client, lambda: client.call("load_model", "doubling", config=wrong))
    assert "max_batch_size" in message
    assert answer(client) == [[20, 40]]


def test_files_without_a_config(client: Client) -> None:
    """Tritonclient refuses this itself over HTTP, the gateway over gRPC; either way nothing is loaded."""
    files = {"file:1/model.onnx": scaled(5.0).SerializeToString()}
    _, message = refusal(client, lambda: client.call("load_model", "doubling", files=files))
    assert "config" in message
    assert refusal(client, lambda: answer(client))[0] == "NOT_FOUND"


def test_a_model_that_cannot_be_loaded(client: Client) -> None:
    """The load fails with the reason, which the index keeps; others are not disturbed."""
    code, message = refusal(client, lambda: client.call("load_model", "broken"))
    assert (code, message.startswith("failed to load 'broken'")) == ("INTERNAL", True)
    state, reason = index(client)["broken/1"]
    assert (state, "not a complete ONNX file" in reason) == ("UNAVAILABLE", True)
    assert refusal(client, lambda: client.infer("broken", {"x": X}))[0] in {"UNAVAILABLE", "NOT_FOUND"}
    assert client.infer("tripling", {"x": X}).as_numpy("y").tolist() == [[3, 6]]


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_a_model_that_is_not_there(client: Client, method: str) -> None:
    """Neither can be done, and the refusal names the model."""
    code, message = refusal(client, lambda: client.call(method, "nothing"))
    assert (code, "'nothing'" in message) == ("NOT_FOUND", True)
