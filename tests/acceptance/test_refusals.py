"""Requests that can never be served: the code and the words, through every client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.acceptance.clients import Client, floats, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

X = floats([1, 2])


def _infer(model: str, arrays: dict[str, Any], **options: Any) -> Callable[[Client], Any]:
    return lambda client: client.infer(model, arrays, **options)


REFUSED: dict[str, tuple[Callable[[Client], Any], str, str]] = {
    "unknown model": (
        _infer("nothing", {"x": X}),
        "NOT_FOUND",
        "Request for unknown model: 'nothing' is not found",
    ),
    "unknown version": (
        _infer("scaled", {"x": X}, model_version="9"),
        "NOT_FOUND",
        "Request for unknown model: 'scaled' version 9 is not found",
    ),
    "input of a wrong name": (
        _infer("scaled", {"z": X}),
        "INVALID_ARGUMENT",
        "unexpected inference input 'z' for model 'scaled', allowed inputs are: x",
    ),
    "input of a wrong datatype": (
        _infer("scaled", {"x": X.astype(np.int32)}),
        "INVALID_ARGUMENT",
        "inference input 'x' data-type is 'INT32', but model 'scaled' expects 'FP32'",
    ),
    "input of a wrong shape": (
        _infer("scaled", {"x": floats([1, 2, 3])}),
        "INVALID_ARGUMENT",
        "unexpected shape for input 'x' for model 'scaled'. Expected [-1,2], got [1,3].",
    ),
    "input of a wrong rank": (
        _infer("scaled", {"x": X[0]}),
        "INVALID_ARGUMENT",
        "unexpected shape for input 'x' for model 'scaled'. Expected [-1,2], got [2].",
    ),
    "missing input": (
        _infer("pair", {"a": X}),
        "INVALID_ARGUMENT",
        (
            "expected 2 inputs but got 1 inputs for model 'pair'. Got input(s) ['a'], "
            "but missing required input(s) ['b']."
        ),
    ),
    "uneven rows": (
        _infer("pair", {"a": X, "b": floats([1, 2], [3, 4])}),
        "INVALID_ARGUMENT",
        "input 'b' batch size does not match other inputs for 'pair'",
    ),
    "too many rows": (
        _infer("scaled", {"x": np.zeros((65, 2), np.float32)}),
        "INVALID_ARGUMENT",
        "inference request batch-size must be <= 64 for 'scaled', got 65",
    ),
    "no rows": (
        _infer("scaled", {"x": np.zeros((0, 2), np.float32)}),
        "INVALID_ARGUMENT",
        "inference request batch-size must be >= 1 for 'scaled', got 0",
    ),
    "output of a wrong name": (
        _infer("pair", {"a": X, "b": X}, outputs=["product"]),
        "INVALID_ARGUMENT",
        "unexpected inference output 'product' for model 'pair', allowed outputs are: difference, sum",
    ),
    "output asked for twice": (
        _infer("pair", {"a": X, "b": X}, outputs=["sum", "sum"]),
        "INVALID_ARGUMENT",
        "output 'sum' already exists in request for model 'pair'",
    ),
    "classes of text": (
        lambda client: client.call(
            "infer",
            "identity_bytes",
            client.inputs({"x": np.array([[b"a"]], np.object_)}),
            outputs=[client.output("y", class_count=1)],
        ),
        "INVALID_ARGUMENT",
        "classification is not available for output 'y' of datatype BYTES",
    ),
    "metadata of an unknown model": (
        lambda client: client.call("get_model_metadata", "nothing"),
        "NOT_FOUND",
        "Request for unknown model: 'nothing' is not found",
    ),
    "config of an unknown version": (
        lambda client: client.call("get_model_config", "pair", "9"),
        "NOT_FOUND",
        "Request for unknown model: 'pair' version 9 is not found",
    ),
    "input given twice": (
        lambda client: client.call("infer", "scaled", [client.input("x", X)] * 2),
        "INVALID_ARGUMENT",
        "input 'x' already exists in request for model 'scaled'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_code_and_reason(client: Client, case: str) -> None:
    """Code and beginning of the message are Triton's; the next request on the connection is served."""
    call, code, message = REFUSED[case]
    got = refusal(client, lambda: call(client))
    assert (got[0], got[1][: len(message)]) == (code, message)
    assert client.infer("scaled", {"x": X}).as_numpy("y").tolist() == [[2, 4]]


@pytest.mark.parametrize("version", ["-1", "zero", "1.5", "0"])
def test_a_version_that_is_no_number(client: Client, version: str) -> None:
    """GRPC says what a version is; over HTTP, as in Triton, there is no such route but for numbers."""
    code, message = refusal(client, lambda: client.infer("scaled", {"x": X}, model_version=version))
    if client.transport == "grpc" or version == "0":
        assert code == "INVALID_ARGUMENT"
        assert f"specified version string '{version}'" in message
    else:
        assert (code, message) == ("NOT_FOUND", "Not Found")
