"""Corrupt and malicious ONNX files beside a good model: refused with a reason, nothing else disturbed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.acceptance.clients import AioClient, Client, connected, floats, refusal
from tests.acceptance.process import RunningGateway, serving
from tests.acceptance.zoo import model, save, scaled, tensor

X = floats([1, 2])
WEIGHTS = floats([2, 2]).tobytes()
Write = Callable[[Path, str], object]


def _content(content: bytes) -> Write:
    return lambda repository, name: save(repository, name, content)


def with_external_data(location: str) -> onnx.ModelProto:
    """Build `y = x * factor` whose factor is kept in the file at `location`."""
    factor = TensorProto(name="factor", data_type=TensorProto.FLOAT, dims=[1, 2])
    factor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(WEIGHTS))}.items():
        factor.external_data.add(key=key, value=value)
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    return model([node], [tensor("x", ["batch", 2])], [tensor("y", ["batch", 2])], [factor])


def _beside(repository: Path, name: str) -> None:
    """External data in the model's directory, one level above the version's."""
    save(repository, name, with_external_data("../weights.bin"))
    (repository / name / "weights.bin").write_bytes(WEIGHTS)


def _absolute(repository: Path, name: str) -> None:
    elsewhere = repository.parent / "weights.bin"
    elsewhere.write_bytes(WEIGHTS)
    save(repository, name, with_external_data(str(elsewhere)))


def _behind_link(repository: Path, name: str) -> None:
    secret = repository.parent / "secret.bin"
    secret.write_bytes(WEIGHTS)
    path = save(repository, name, with_external_data("weights.bin"))
    (path.parent / "weights.bin").symlink_to(secret)


def _in_linked_directory(repository: Path, name: str) -> None:
    elsewhere = repository.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights.bin").write_bytes(WEIGHTS)
    path = save(repository, name, with_external_data("data/weights.bin"))
    (path.parent / "data").symlink_to(elsewhere)


def _linked_model(repository: Path, name: str) -> None:
    elsewhere = repository.parent / "elsewhere.onnx"
    elsewhere.write_bytes(scaled(2).SerializeToString())
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").symlink_to(elsewhere)


def _missing_data(repository: Path, name: str) -> None:
    save(repository, name, with_external_data("weights.bin"))


def _short_data(repository: Path, name: str) -> None:
    path = save(repository, name, with_external_data("weights.bin"))
    (path.parent / "weights.bin").write_bytes(WEIGHTS[:3])


def _custom_operator(repository: Path, name: str) -> None:
    node = helper.make_node("Evil", ["x"], ["y"], domain="com.example")
    built = model([node], [tensor("x", ["batch", 2])], [tensor("y", ["batch", 2])])
    built.opset_import.append(helper.make_opsetid("com.example", 1))
    save(repository, name, built)


def _impossible_graph(repository: Path, name: str) -> None:
    built = scaled(2)
    built.graph.node[0].input[0] = "nowhere"
    save(repository, name, built)


def _wrong_weights(repository: Path, name: str) -> None:
    built = scaled(2)
    built.graph.initializer[0].CopyFrom(
        TensorProto(name="factor", data_type=TensorProto.FLOAT, dims=[1000], raw_data=b"\0" * 8)
    )
    save(repository, name, built)


def _precompiled(repository: Path, name: str) -> None:
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="../../secret"
    )
    built = model([node], [tensor("x", ["batch", 2])], [tensor("y", ["batch", 2])])
    built.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    save(repository, name, built)


_GOOD = scaled(2.0).SerializeToString()
BAD: dict[str, tuple[Write, str]] = {
    "empty": (_content(b""), "not a complete ONNX file"),
    "garbage": (_content(b"\xde\xad\xbe\xef" * 500), "not a complete ONNX file"),
    "text": (_content(b"<html>404 Not Found</html>"), "not a complete ONNX file"),
    "truncated": (_content(_GOOD[: len(_GOOD) // 2]), "not a complete ONNX file"),
    "headless": (_content(_GOOD[20:]), "not a complete ONNX file"),
    "impossible": (_impossible_graph, "nowhere"),
    "wrong_weights": (_wrong_weights, "tensor 'factor' holds 8 bytes, its shape needs 4000"),
    "custom_operator": (_custom_operator, "custom operator 'com.example::Evil'"),
    "precompiled": (_precompiled, "EPContext"),
    "escaping": (_beside, "'../weights.bin' leaves the version directory"),
    "absolute": (_absolute, "must be relative to the version directory"),
    "linked": (_behind_link, "link"),
    "linked_directory": (_in_linked_directory, "link"),
    "linked_model": (_linked_model, "link"),
    "missing_data": (_missing_data, "is missing from the version directory"),
    "short_data": (_short_data, "cut short?"),
}


def write_repository(repository: Path) -> None:
    """Write every bad model, and one that is good."""
    save(repository, "good", scaled(2.0))
    for name, (write, _) in BAD.items():
        write(repository, name)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that was started with every bad model in its repository.

    Models are loaded alike whichever transport they are asked for by; one is enough.
    """
    directory = tmp_path_factory.mktemp("bad")
    write_repository(directory / "repository")
    with serving(directory / "log", directory / "repository", "--log-format", "json") as gateway:
        yield gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Client]:
    with connected("grpc", gateway) as client:
        yield client


def index(client: Client) -> dict[str, dict[str, str]]:
    """Return the rows of the repository index by model."""
    return {row["name"]: row for row in client.describe("get_model_repository_index")["models"]}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_reason(name: str, client: Client, gateway: RunningGateway) -> None:
    """The index and the log say why, without paths of the server; the model does not answer."""
    row = index(client)[name]
    assert (row["state"], BAD[name][1] in row["reason"]) == ("UNAVAILABLE", True), row["reason"]
    assert str(gateway.log.parent / "repository") not in row["reason"]
    code, _ = refusal(client, lambda: client.infer(name, {"x": X}))
    assert code in {"UNAVAILABLE", "NOT_FOUND"}
    assert any(_told(line, name) for line in gateway.log.read_text().splitlines())


def _told(line: str, name: str) -> bool:
    """Whether a line of the log is a warning that this model failed to load, with the reason."""
    if not line.startswith("{"):
        return False  # what is told to people on a terminal
    entry = json.loads(line)
    told: str = entry["event"]
    begins = told.startswith(f"model '{name}' version 1 failed to load:")
    return begins and BAD[name][1] in told and entry["level"] == "warning"


def test_the_good_model_serves(client: Client, gateway: RunningGateway) -> None:
    """It came up beside all of them, and answers."""
    assert gateway.states()["good/1"] == "READY"
    assert client.infer("good", {"x": X}).as_numpy("y").tolist() == [[2, 4]]


def test_a_bad_model_that_comes_while_others_serve(tmp_path: Path) -> None:
    """While each is loaded and refused, the good model answers every request."""
    repository = tmp_path / "repository"
    write_repository(repository)
    mode = ("--repository-mode", "explicit", "--load-model", "good")
    with (
        serving(tmp_path / "log", repository, *mode) as gateway,
        closing(AioClient.grpc(gateway, 60)) as client,
    ):
        for name, (_, reason) in BAD.items():
            loading = client.begin_call("load_model", name)
            answers = [client.infer("good", {"x": X}).as_numpy("y").tolist()]
            while not loading.done():
                answers.append(client.infer("good", {"x": X}).as_numpy("y").tolist())
            code, message = refusal(client, loading.result)
            assert (code, reason in message) == ("INTERNAL", True), message
            assert answers == [[[2, 4]]] * len(answers)
        assert client.call("is_model_ready", "good") is True
