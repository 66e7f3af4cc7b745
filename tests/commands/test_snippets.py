"""Snippets, run word for word as they are printed."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from gateway.commands.samples import SampleOptions
from gateway.commands.snippets import INLINE_ELEMENTS, curl_snippet, infer_url, python_snippet
from gateway.core.types import Datatype, TensorSpec

SMALL = (-1, 4)
LARGE = (-1, 2048)


def run_bash(line: str) -> str:
    return subprocess.run(["bash", "-ec", line], check=True, capture_output=True, text=True).stdout


def check_request(request: dict[str, Any], spec: TensorSpec) -> None:
    (tensor,) = request["inputs"]
    assert tensor["name"] == spec.name
    assert tensor["datatype"] == spec.datatype.value
    assert tensor["shape"] == [1, *spec.shape[1:]]
    assert len(tensor["data"]) == math.prod(tensor["shape"])
    kinds = {Datatype.BOOL: bool, Datatype.BYTES: str}
    expected = kinds.get(spec.datatype, float if spec.datatype.value.startswith(("FP", "BF")) else int)
    assert {type(value) for value in tensor["data"]} == {expected}


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("datatype", list(Datatype))
def test_curl_line_works_in_bash(digits: Any, datatype: Datatype, shape: tuple[int, ...]) -> None:
    """The line pasted into bash posts one well-formed tensor of every datatype, and prints the answer."""
    spec = TensorSpec("pixels", datatype, shape)
    line = curl_snippet(infer_url(digits.url, "digits"), [spec], SampleOptions())
    assert "\n" not in line
    assert len(line) < 400
    printed = run_bash(line)
    assert printed.endswith("\n")
    assert json.loads(printed)["outputs"][0]["data"] == [0.25, 0.75]
    check_request(json.loads(digits.received[-1].body), spec)


def test_python_snippet_works_with_the_standard_library_alone(digits: Any) -> None:
    """The snippet run by an isolated interpreter posts the tensors and prints the outputs."""
    specs = [TensorSpec("pixels", Datatype.FP32, LARGE), TensorSpec("mode", Datatype.BYTES, (1,), None)]
    code = python_snippet(infer_url(digits.url, "digits"), specs, SampleOptions())
    isolated = [sys.executable, "-I", "-S", "-c", code]
    printed = subprocess.run(isolated, check=True, capture_output=True, text=True).stdout
    assert "probabilities" in printed
    request = json.loads(digits.received[-1].body)
    assert [t["name"] for t in request["inputs"]] == ["pixels", "mode"]
    assert request["inputs"][0]["data"] == [0.5] * 2048
    assert request["inputs"][1]["data"] == ["sample"]


@pytest.mark.parametrize("size", [1, INLINE_ELEMENTS + 1])
@pytest.mark.parametrize("name", ["x:0", "it's", 'a"b', "naïve $HOME `id` \\n", "日本", "😀", "a b"])
def test_any_tensor_name_survives_the_shell(digits: Any, name: str, size: int) -> None:
    """Quotes, dollars, backticks, backslashes and letters beyond ASCII reach the server unchanged."""
    spec = TensorSpec(name, Datatype.INT32, (-1, size))
    run_bash(curl_snippet(infer_url(digits.url, "digits"), [spec], SampleOptions()))
    exec(python_snippet(infer_url(digits.url, "digits"), [spec], SampleOptions()), {})
    for received in digits.received:
        assert json.loads(received.body)["inputs"][0]["name"] == name


def test_scalars_and_optional_inputs() -> None:
    """A scalar is sent with shape [] and one value; an optional input is left out."""
    specs = [
        TensorSpec("sr", Datatype.INT64, (), None),
        TensorSpec("extra", Datatype.FP32, (-1, 2), optional=True),
    ]
    line = curl_snippet("http://h/infer", specs, SampleOptions())
    assert '"shape": [], "data": [0]' in line
    assert "extra" not in line


def test_model_name_is_quoted_in_the_url() -> None:
    """A name that is no plain path segment is percent-encoded."""
    assert infer_url("http://h:1", "a/b c") == "http://h:1/v2/models/a%2Fb%20c/infer"
