"""Every datatype of the protocol through every client, there and back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from tests.acceptance.clients import Client, refusal

_INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
_TINY, _HUGE = np.finfo(np.float32).tiny, np.finfo(np.float32).max


def _integers(name: str) -> npt.NDArray[Any]:
    limits = np.iinfo(name.lower())
    return np.array([[limits.min, 0, limits.max], [1, 2, 3]], name.lower())


VALUES: dict[str, npt.NDArray[Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    **{name: _integers(name) for name in _INTEGERS},
    "FP16": np.array([[1.5, -np.inf, np.nan], [65504.0, 6e-8, -0.0]], np.float16),
    "FP32": np.array([[1.5, -np.inf, np.nan], [_HUGE, _TINY, -0.0]], np.float32),
    "FP64": np.array([[0.1, -np.inf, np.nan], [1e308, 5e-324, -0.0]], np.float64),
    "BF16": np.array([[1.5, -np.inf, np.nan], [3e38, 1e-38, -0.0]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", b"text"], [b"a\0b", "\u00fc\u6f22\U0001f600".encode()]], np.object_),
}


def echo(client: Client, datatype: str, value: npt.NDArray[Any], **options: Any) -> npt.NDArray[Any]:
    """Send a value to the identity model of its datatype and return what came back, its shape checked."""
    inputs = [client.input("x", value, **options)]
    outputs = [client.output("y", **options)]
    result = client.call("infer", f"identity_{datatype.lower()}", inputs, outputs=outputs)
    (described,) = client.head(result)["outputs"]
    assert described["datatype"] == datatype
    assert [int(size) for size in described["shape"]] == list(value.shape)
    answer: npt.NDArray[Any] = result.as_numpy("y")
    return answer


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_there_and_back(client: Client, datatype: str) -> None:
    """Raw binary data keeps every bit: extremes, infinities, NaN, negative zero, text beyond ASCII."""
    sent = VALUES[datatype]
    got = echo(client, datatype, sent)
    assert got.dtype == sent.dtype
    assert got.tolist() == sent.tolist() if datatype == "BYTES" else got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("shape", [(1, 0), (3, 0)], ids=str)
def test_tensors_without_elements(client: Client, datatype: str, shape: tuple[int, int]) -> None:
    """Zero elements are as good a tensor as any; its shape comes back."""
    empty = np.empty(shape, VALUES[datatype].dtype)
    got = echo(client, datatype, empty)
    assert got.size == 0


def test_bytes_that_are_no_text(client: Client) -> None:
    """ONNX strings are UTF-8: other bytes are the client's mistake, and are named in the refusal."""
    wrong = {"x": np.array([[b"text", b"\xff\xfe\x00\x80"]], np.object_)}
    code, message = refusal(client, lambda: client.infer("identity_bytes", wrong))
    assert code == "INVALID_ARGUMENT"
    assert message == (
        "model 'identity_bytes': element 1 of input 'x' is not UTF-8; ONNX string tensors hold text"
    )


def test_scalars(client: Client) -> None:
    """A tensor of rank 0 has an empty shape and one element."""
    result = client.infer("scalar", {"x": np.array(2.5, np.float32)})
    assert client.head(result)["outputs"][0].get("shape", []) == []
    assert result.as_numpy("y").reshape(()) == np.float32(2.5)


_IN_JSON = [name for name in VALUES if name not in {"FP16", "BF16"}]  # the client refuses these two itself


@pytest.mark.parametrize("datatype", _IN_JSON)
@pytest.mark.parametrize("kind", ["http", "http.aio"])
def test_every_datatype_in_json(client: Client, datatype: str) -> None:
    """JSON keeps every value that it can express, NaN and Infinity as bare words included."""
    sent = VALUES[datatype]
    got = echo(client, datatype, sent, binary_data=False)
    if datatype == "BYTES":
        assert [v.encode() if isinstance(v, str) else v for v in got.ravel()] == sent.ravel().tolist()
    else:
        np.testing.assert_array_equal(got, sent)
