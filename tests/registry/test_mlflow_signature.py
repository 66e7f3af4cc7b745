"""MLmodel files: which file is the model, and what MLflow's signature of it may say."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.datatypes import Datatype
from gateway.core.registry import RegistryError
from gateway.core.types import ModelSignature, TensorSpec
from gateway.registry.mlflow.mlmodel import MAX_BYTES, model_filename
from gateway.registry.mlflow.narrowing import check_narrows, narrow

SUBJECT = "registered model 'fraud' version 3"


def written(directory: Path, mlmodel: str, *files: str) -> Path:
    """Write an MLmodel file and empty others."""
    (directory / "MLmodel").write_text(mlmodel)
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).touch()
    return directory


@pytest.mark.parametrize("name", ["model.onnx", "sub/other.onnx"])
def test_the_model_file_is_the_one_of_the_onnx_flavour(tmp_path: Path, name: str) -> None:
    """Whatever else there is."""
    mlmodel = f"flavors:\n  onnx:\n    data: {name}\n  python_function:\n    data: other\n"
    assert model_filename(written(tmp_path, mlmodel, name, "other"), SUBJECT) == name


REFUSED = {
    "another flavour": (
        "flavors:\n  sklearn:\n    pickled_model: model.pkl\n  python_function: {}\n",
        r"has no ONNX flavour \(it has python_function, sklearn\): log it with mlflow\.onnx\.log_model",
    ),
    "no flavour": ("flavors: {}\n", r"no ONNX flavour \(it has none\)"),
    "no flavours": ("run_id: x\n", r"no ONNX flavour \(it has none\)"),
    "flavours that are a list": ("flavors: [onnx]\n", "no ONNX flavour"),
    "no file": ("flavors: {onnx: {}}\n", "names None"),
    "a flavour that is text": ("flavors: {onnx: model.onnx}\n", "names None"),
    "a file that is not there": ("flavors: {onnx: {data: lost.onnx}}\n", r"names 'lost\.onnx'"),
    "a directory": ("flavors: {onnx: {data: sub}}\n", "names 'sub'"),
    "the directory itself": ("flavors: {onnx: {data: .}}\n", "does not have"),
    "a file above": ("flavors: {onnx: {data: ../secret.onnx}}\n", "does not have"),
    "a file above by a detour": ("flavors: {onnx: {data: sub/../../secret.onnx}}\n", "does not have"),
    "a detour": ("flavors: {onnx: {data: sub/../inside.onnx}}\n", "does not have"),
    "an absolute path": ("flavors: {onnx: {data: /etc/passwd}}\n", "does not have"),
    "a link that leads out": ("flavors: {onnx: {data: link.onnx}}\n", "does not have"),
    "a zero": ('flavors: {onnx: {data: "a\\0b"}}\n', "does not have"),
    "a number": ("flavors: {onnx: {data: 7}}\n", "names 7"),
    "no mapping": ("- flavors\n", "is no mapping"),
    "nothing": ("", "is no mapping"),
    "no YAML": ("flavors: [\n", r"is not YAML \(line 2\)"),
    "a tag that makes objects": ("flavors: !!python/object/apply:os.system [true]\n", "is not YAML"),
    "a pit": ("[" * 10_000, "is not YAML"),
    "bytes": ("\0", "is not YAML"),
    "too much": ("#" * (MAX_BYTES + 1), "longer than"),
    "the same key twice": ("flavors: {}\nflavors: {onnx: {data: model.onnx}}\n", "is not YAML"),
}


@pytest.mark.parametrize(("mlmodel", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_onnx_model_is_refused(tmp_path: Path, mlmodel: str, message: str) -> None:
    """In words, at the step `verify`, and not to be tried again."""
    (tmp_path / "secret.onnx").touch()
    directory = tmp_path / "version"
    (directory / "sub").mkdir(parents=True)
    (directory / "inside.onnx").touch()
    (directory / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    with pytest.raises(RegistryError, match=message) as caught:
        model_filename(written(directory, mlmodel), SUBJECT)
    assert caught.value.step == "verify"
    assert not caught.value.may_pass
    assert SUBJECT in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_version_without_mlmodel_is_refused(tmp_path: Path) -> None:
    """The message says what writes one."""
    with pytest.raises(RegistryError, match=r"has no file MLmodel.*mlflow\.onnx\.log_model"):
        model_filename(tmp_path, SUBJECT)


def tensor(dtype: str, shape: list[int], name: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a tensor as MLflow writes it."""
    named = {} if name is None else {"name": name}
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **named, **more}


def column(kind: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a column as MLflow writes it."""
    return {"type": kind, "required": True, **({} if name is None else {"name": name}), **more}


def spec(name: str, datatype: Datatype, *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


ONE = ModelSignature(
    inputs=(spec("X", Datatype.FP32, -1, 4),),
    outputs=(spec("label", Datatype.INT64, -1), spec("probabilities", Datatype.FP32, -1, 3)),
)
TWO = ModelSignature(
    inputs=(spec("age", Datatype.INT64, -1, 1), spec("city", Datatype.BYTES, -1, 1)),
    outputs=(spec("score", Datatype.FP32, -1, 1),),
)

FITS: dict[str, tuple[ModelSignature, list[Any], list[Any]]] = {
    "nothing is said": (ONE, [], []),
    "unnamed, the same": (ONE, [tensor("float32", [-1, 4])], [tensor("int64", [-1])]),
    "named, the same": (ONE, [tensor("float32", [-1, 4], "X")], [tensor("int64", [-1], "label")]),
    "a batch of fixed size": (ONE, [tensor("float32", [8, 4])], []),
    "an axis left open": (ONE, [tensor("float32", [-1, -1])], []),
    "64-bit floats, as Python makes them": (ONE, [tensor("float64", [-1, 4])], []),
    "64-bit floats out": (ONE, [], [tensor("float64", [-1, 3], "probabilities")]),
    "an unnamed output of a file with two": (ONE, [], [tensor("float64", [-1, 17])]),
    "an output by a name of its own": (ONE, [], [tensor("object", [-1], "prediction")]),
    "an output without the file's last axis": (TWO, [], [tensor("float64", [-1])]),
    "an output that is a column": (ONE, [], [column("long")]),
    "columns as features": (ONE, [column("double", c) for c in "abcd"], []),
    "columns as inputs": (TWO, [column("long", "age"), column("string", "city")], []),
    "a column less": (TWO, [column("integer", "age")], []),
    "an optional column that the file lacks": (TWO, [column("long", "since", required=False)], []),
    "fewer columns than features, some optional": (ONE, [column("double", "a", required=False)], []),
    "a type that ONNX does not have": (ONE, [tensor("datetime64[ns]", [-1, 4])], []),
    "a type of a later MLflow": (ONE, [{"type": "sparse"}], [{"type": "sparse"}]),
    "objects for text": (TWO, [tensor("object", [-1, 1], "city")], []),
    "text by its length": (TWO, [tensor("str96", [-1, 1], "city")], []),
    "an unnamed input of a file with two": (TWO, [tensor("float32", [-1, 9])], []),
    "nonsense": (
        ONE,
        [7, None, {}, {"type": "tensor"}, {"type": "tensor", "tensor-spec": {"shape": "x"}}],
        [],
    ),
}


@pytest.mark.parametrize(("signature", "inputs", "outputs"), FITS.values(), ids=FITS.keys())
def test_what_narrows_passes(signature: ModelSignature, inputs: list[Any], outputs: list[Any]) -> None:
    """MLflow may say less than the file, and what its own flavour converts."""
    check_narrows(inputs, outputs, signature, SUBJECT)


CONTRADICTS: dict[str, tuple[ModelSignature, list[Any], list[Any], str]] = {
    "another type": (
        ONE,
        [tensor("int64", [-1, 4])],
        [],
        r"input 'X' is int64 \[-1, 4\] there, FP32 \[-1, 4\] in the file",
    ),
    "narrower floats": (ONE, [tensor("float16", [-1, 4])], [], "float16"),
    "text for numbers": (ONE, [tensor("object", [-1, 4], "X")], [], "object"),
    "another number of features": (ONE, [tensor("float32", [-1, 5])], [], r"float32 \[-1, 5\]"),
    "another number of axes": (ONE, [tensor("float32", [4])], [], r"float32 \[4\]"),
    "an input that the file lacks": (
        ONE,
        [tensor("float32", [-1, 4], "features")],
        [],
        "'features'.*has 'X'",
    ),
    "one input of two": (
        TWO,
        [tensor("int64", [-1, 1], "age"), tensor("int64", [-1, 1], "town")],
        [],
        "'town'",
    ),
    "32-bit floats for 64": (
        ModelSignature(inputs=(spec("X", Datatype.FP64, -1, 4),), outputs=()),
        [tensor("float32", [-1, 4])],
        [],
        "FP64",
    ),
    "another type out": (ONE, [], [tensor("float32", [-1], "label")], "output 'label' is float32"),
    "another number of classes": (ONE, [], [tensor("float32", [-1, 2], "probabilities")], r"FP32 \[-1, 3\]"),
    "the only output, another type": (TWO, [], [tensor("int64", [-1, 1])], "output 'score'"),
    "too many columns": (ONE, [column("double", c) for c in "abcde"], [], "5 input columns"),
    "a column that the file lacks": (TWO, [column("long", "income")], [], "'income'.*'age', 'city'"),
    "a column of text for numbers": (ONE, [column("string", c) for c in "abcd"], [], "'a' is string"),
    "a column of numbers for text": (TWO, [column("double", "city")], [], "'city' is double"),
}


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "message"), CONTRADICTS.values(), ids=CONTRADICTS.keys()
)
def test_what_contradicts_is_refused(
    signature: ModelSignature, inputs: list[Any], outputs: list[Any], message: str
) -> None:
    """The message shows both sides."""
    with pytest.raises(RegistryError, match=message) as caught:
        check_narrows(inputs, outputs, signature, SUBJECT)
    assert caught.value.step == "verify"
    assert not caught.value.may_pass
    assert SUBJECT in str(caught.value)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "tensor-spec", "name", "dtype", "shape", "required"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
)


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_any_json_is_judged(inputs: list[Any], outputs: list[Any]) -> None:
    """Nothing but a RegistryError comes of it."""
    with contextlib.suppress(RegistryError):
        check_narrows(inputs, outputs, ONE, SUBJECT)


@given(st.sampled_from(list(Datatype)), st.lists(st.integers(-1, 9), max_size=4).map(tuple))
def test_a_signature_never_contradicts_itself(datatype: Datatype, shape: tuple[int, ...]) -> None:
    """Whatever its types and shapes, as MLflow would write them."""
    dtype = "object" if datatype is Datatype.BYTES else datatype.dtype.name
    both = [tensor(dtype, list(shape), "x")]
    file = ModelSignature(inputs=(spec("x", datatype, *shape),), outputs=(spec("x", datatype, *shape),))
    check_narrows(both, both, file, SUBJECT)


def mlmodel(**signature: Any) -> str:
    return json.dumps({"flavors": {}, "signature": signature})


def test_the_signature_is_read_from_mlmodel(tmp_path: Path) -> None:
    """Its inputs and outputs are JSON texts within the YAML."""
    narrow(written(tmp_path, mlmodel(inputs=json.dumps([tensor("float32", [-1, 4])]), outputs=None)), ONE)
    written(tmp_path, mlmodel(inputs=json.dumps([tensor("int64", [-1, 4])])))
    with pytest.raises(RegistryError, match="contradicts the model file: input 'X'"):
        narrow(tmp_path, ONE)
    narrow(written(tmp_path, "flavors: {}\n"), ONE)


@pytest.mark.parametrize(
    "signature", [{"inputs": "{"}, {"inputs": [1]}, {"outputs": "{}"}, {"inputs": "[" * 10_000}]
)
def test_a_malformed_signature_is_refused(tmp_path: Path, signature: dict[str, Any]) -> None:
    """It was not written by MLflow, and nobody knows what it promises."""
    with pytest.raises(RegistryError, match="no JSON list"):
        narrow(written(tmp_path, mlmodel(**signature)), ONE)
