import io
from typing import Any

import numpy as np
import pytest

from gateway.commands.client import ModelMetadata
from gateway.commands.failure import CommandFailed
from gateway.commands.inputs import guess_format, is_whole_request, parse_json, read_tensors
from gateway.core.types import Datatype, TensorSpec


def model(*specs: TensorSpec) -> ModelMetadata:
    return ModelMetadata("m", ("1",), "onnxruntime_onnx", specs, ())


def one(datatype: Datatype, shape: tuple[int, ...] = (-1, 2)) -> ModelMetadata:
    return model(TensorSpec("x", datatype, shape))


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.json", "json"), ("a.NPY", "npy"), ("a.npz", "npz"), ("a.bin", "raw"), ("-", "json"), ("a", "json")],
)
def test_format_is_guessed_from_the_name(name: str, kind: str) -> None:
    """Extensions decide, JSON is the default."""
    assert guess_format(name) == kind


@pytest.mark.parametrize("datatype", [d for d in Datatype if d not in {Datatype.BYTES, Datatype.BOOL}])
def test_numbers_become_the_models_datatype(datatype: Datatype) -> None:
    """JSON and npy of Python's own widths are cast to what the model takes."""
    for content, kind in ((b'{"x": [[1, 2]]}', "json"), (npy([[1, 2]]), "npy"), (npz(x=[[1, 2]]), "npz")):
        (tensor,) = read_tensors(content, kind, one(datatype))
        assert (tensor.name, tensor.datatype) == ("x", datatype)
        assert tensor.array.dtype == datatype.dtype
        assert tensor.array.astype(float).tolist() == [[1.0, 2.0]]


def test_one_item_gets_its_batch_axis() -> None:
    """A value that lacks only the batch axis becomes one row."""
    (tensor,) = read_tensors(b'{"x": [1, 2]}', "json", one(Datatype.FP32))
    assert tensor.array.shape == (1, 2)


def test_texts_and_booleans() -> None:
    """JSON strings become bytes, true and false become BOOL."""
    texts = read_tensors('{"x": [["é", "b"]]}'.encode(), "json", one(Datatype.BYTES))[0].array
    assert texts.tolist() == [["é".encode(), b"b"]]
    assert read_tensors(b'{"x": [true, false]}', "json", one(Datatype.BOOL))[0].array.tolist() == [
        [True, False]
    ]


@pytest.mark.parametrize(
    ("content", "kind", "datatype", "message"),
    [
        (b"{", "json", Datatype.FP32, "not JSON"),
        (b"[1]", "json", Datatype.FP32, "JSON object"),
        (b'{"y": [1]}', "json", Datatype.FP32, "has no input"),
        (b'{"x": [300, 1]}', "json", Datatype.UINT8, "do not fit"),
        (b'{"x": [-1, 1]}', "json", Datatype.UINT64, "do not fit"),
        (b'{"x": [0.5, 1]}', "json", Datatype.INT32, "fractional"),
        (b'{"x": ["a", "b"]}', "json", Datatype.FP32, "must be numbers"),
        (b'{"x": [[1, 2], [3]]}', "json", Datatype.FP32, "'x' takes FP32"),
        (b'{"x": [1, 2]}', "json", Datatype.BYTES, "expected texts"),
        (b"no array", "npy", Datatype.FP32, "not a npy file"),
        (npz(x=[1, 2])[:40], "npz", Datatype.FP32, "not a npz file"),
    ],
)
def test_inputs_that_would_be_misread_are_refused(
    content: bytes, kind: str, datatype: Datatype, message: str
) -> None:
    """Nothing wraps, is cut off or guessed: the message says what was wrong."""
    with pytest.raises(CommandFailed, match=message):
        read_tensors(content, kind, one(datatype))


def test_pickles_are_not_loaded() -> None:
    """An npy of Python objects, which would run code, is refused."""
    with pytest.raises(CommandFailed, match="not a npy file"):
        read_tensors(npy(np.array([{}], dtype=object)), "npy", one(Datatype.BYTES))


def test_npy_needs_a_model_of_one_input() -> None:
    """With two inputs the array could be either: the message names both."""
    two = model(TensorSpec("a", Datatype.FP32, (-1,)), TensorSpec("b", Datatype.FP32, (-1,)))
    with pytest.raises(CommandFailed, match=r"\['a', 'b'\]"):
        read_tensors(npy([1.0]), "npy", two)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}', True),
        (b'{"inputs": [1, 2]}', False),
        (b'{"x": [1]}', False),
    ],
)
def test_whole_requests_are_told_from_mappings(content: bytes, whole: bool) -> None:
    """Even a model whose only input is called `inputs` can be given a mapping."""
    assert is_whole_request(parse_json(content)) is whole
