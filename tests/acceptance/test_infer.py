"""What a request may say beside its data, through every client: outputs, classes, compression, parameters."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.acceptance.clients import Client, floats
from tests.acceptance.process import ROOT

PAIR = {"a": floats([5, 7]), "b": floats([3, 10])}
HTTP_ONLY = pytest.mark.parametrize("kind", ["http", "http.aio"])


def test_all_outputs_in_the_models_order(client: Client) -> None:
    """A request that names no output gets all of them."""
    result = client.infer("pair", PAIR)
    assert [output["name"] for output in client.head(result)["outputs"]] == ["sum", "difference"]
    assert result.as_numpy("sum").tolist() == [[8, 17]]
    assert result.as_numpy("difference").tolist() == [[2, -3]]


@pytest.mark.parametrize("names", [["difference"], ["difference", "sum"], ["sum", "difference"]], ids=str)
def test_requested_outputs_in_the_order_asked(client: Client, names: list[str]) -> None:
    """The outputs asked for, no others, in the order asked for; the data follows the names."""
    result = client.infer("pair", PAIR, outputs=names)
    assert [output["name"] for output in client.head(result)["outputs"]] == names
    assert result.as_numpy("difference").tolist() == [[2, -3]]


def test_inputs_in_any_order(client: Client) -> None:
    """Inputs go by their names."""
    result = client.infer("pair", dict(reversed(PAIR.items())))
    assert result.as_numpy("difference").tolist() == [[2, -3]]


def test_optional_inputs(client: Client) -> None:
    """An input with a default may be left out, and replaces the default when it is there."""
    x = floats([1, 2])
    assert client.infer("optional", {"x": x}).as_numpy("y").tolist() == [[11, 12]]
    assert client.infer("optional", {"x": x, "shift": floats([0.5])[0]}).as_numpy("y").tolist() == [
        [1.5, 2.5]
    ]


@HTTP_ONLY
def test_json_and_binary_in_one_request(client: Client) -> None:
    """Each input and each output is JSON or binary as it says itself."""
    inputs = [client.input("a", PAIR["a"], binary_data=True), client.input("b", PAIR["b"], binary_data=False)]
    outputs = [client.output("sum", binary_data=False), client.output("difference", binary_data=True)]
    result = client.call("infer", "pair", inputs, outputs=outputs)
    in_json, binary = client.head(result)["outputs"]
    assert in_json["data"] == [8, 17]
    assert (binary["parameters"]["binary_data_size"], "data" in binary) == (8, False)
    assert result.as_numpy("difference").tolist() == [[2, -3]]


def test_classification_with_labels(client: Client) -> None:
    """The best classes of each row as value:index:label, best first, values as the model gives them."""
    pixels = np.random.default_rng(7).integers(0, 17, (3, 64)).astype(np.float32)
    probabilities = client.infer("digits", {"pixels": pixels}).as_numpy("probabilities")
    inputs, outputs = client.inputs({"pixels": pixels}), [client.output("probabilities", class_count=3)]
    classes = client.call("infer", "digits", inputs, outputs=outputs).as_numpy("probabilities")
    assert classes.shape == (3, 3)
    for row, scores in zip(classes, probabilities, strict=True):
        parts = [text.decode().split(":") for text in row.tolist()]
        best = np.argsort(-scores)[:3]
        assert [(int(index), label) for _, index, label in parts] == [(i, str(i)) for i in best]
        np.testing.assert_allclose([float(value) for value, _, _ in parts], scores[best], atol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Client, algorithm: str) -> None:
    """Compressed requests are understood, and responses that were to be compressed are readable."""
    x = np.arange(4096, dtype=np.float32).reshape(2, -1)
    inputs, outputs = client.inputs({"x": x}), [client.output("y")]
    result = client.call("infer", "identity_fp32", inputs, outputs=outputs, **client.compressed(algorithm))
    np.testing.assert_array_equal(result.as_numpy("y"), x)


@HTTP_ONLY
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_of_json(client: Client, algorithm: str) -> None:
    """Long JSON answers, which do come compressed, are readable too."""
    x = np.arange(4096, dtype=np.float32).reshape(2, -1)
    inputs = [client.input("x", x, binary_data=False)]
    outputs = [client.output("y", binary_data=False)]
    result = client.call("infer", "identity_fp32", inputs, outputs=outputs, **client.compressed(algorithm))
    np.testing.assert_array_equal(result.as_numpy("y"), x)


@pytest.mark.parametrize(
    "request_id", ["", "42", "\u00fc-\u6f22-\U0001f600", "x" * 500], ids=["none", "number", "text", "long"]
)
def test_the_request_id_comes_back(client: Client, request_id: str) -> None:
    """Whatever its characters; none where none was sent."""
    result = client.infer("pair", PAIR, request_id=request_id)
    assert client.head(result).get("id", "") == request_id


def test_the_version_that_answered(client: Client) -> None:
    """A version asked for answers and says so; without one the highest answers."""
    pixels = np.random.default_rng(3).integers(0, 17, (4, 64)).astype(np.float32)
    asked = {
        version: client.infer("digits", {"pixels": pixels}, model_version=version)
        for version in ("1", "2", "")
    }
    assert {v: client.head(r)["model_version"] for v, r in asked.items()} == {"1": "1", "2": "2", "": "2"}
    for version in ("1", "2"):
        session = onnxruntime.InferenceSession(ROOT / "models" / "digits" / version / "model.onnx")
        (direct,) = session.run(["probabilities"], {"pixels": pixels})
        np.testing.assert_allclose(asked[version].as_numpy("probabilities"), direct, rtol=1e-5)


def test_parameters_of_the_users_own(client: Client) -> None:
    """Parameters that mean nothing to the gateway do no harm, whatever their type."""
    own = {"tenant": "a", "retries": 3, "debug": True}
    result = client.infer("pair", PAIR, parameters=own)
    assert result.as_numpy("sum").tolist() == [[8, 17]]


def test_sequence_parameters(client: Client) -> None:
    """Sequence parameters are taken by models that keep no state."""
    result = client.infer("pair", PAIR, sequence_id=9, sequence_start=True, sequence_end=True)
    assert result.as_numpy("sum").tolist() == [[8, 17]]


def test_many_rows(client: Client) -> None:
    """A request may fill a whole batch."""
    x = np.arange(128, dtype=np.float32).reshape(64, 2)
    np.testing.assert_array_equal(client.infer("scaled", {"x": x}).as_numpy("y"), x * 2)
