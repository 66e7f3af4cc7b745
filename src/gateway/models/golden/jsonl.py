"""Reads `golden.jsonl`: one case per line.

    {"inputs": {"x": [[1.0, 2.0]]}, "outputs": {"y": [[3.0]]}, "tolerance": {"rtol": 1e-3, "atol": 1e-5}}

A tensor is a list, nested as its shape is, or `{"datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}`
with its elements in any nesting. `tolerance` may be left out, and so may outputs that do not matter.
"""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.errors import ModelLoadError
from gateway.core.types import Datatype
from gateway.models.golden.cases import (
    MOST_CASES,
    GoldenCase,
    check_names,
    check_shape,
    expected_values,
    input_values,
    tolerance_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.types import Array, ModelSignature, TensorSpec

JSONL: Final = "golden.jsonl"
MOST_LINE_BYTES: Final = 128 * 1024
"""The parser stops the whole process while it reads a line; for this size 4 ms."""

_MEMBERS: Final = frozenset({"inputs", "outputs", "tolerance"})


def jsonl_cases(raw: bytes, signature: ModelSignature) -> Iterator[GoldenCase]:
    """Give the cases of a file in order; blank lines are left out.

    Raises:
        ModelLoadError: from any step, naming the case.
    """
    file = io.BytesIO(raw)
    number = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        if not line.strip():
            continue
        number += 1
        if number > MOST_CASES:
            raise ModelLoadError(f"{JSONL} has more than {MOST_CASES} cases")
        title = f"{JSONL} case {number}"
        if len(line) > MOST_LINE_BYTES:
            most = MOST_LINE_BYTES // 1024
            raise ModelLoadError(f"{title} has more than {most} KiB; put cases of that size into golden.npz")
        try:
            yield _case(title, json.loads(line), signature)
        except RecursionError as error:
            raise ModelLoadError(f"{title} is nested too deeply") from error
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelLoadError(f"{title}: {error}") from error


def _case(title: str, case: Any, signature: ModelSignature) -> GoldenCase:
    members = _object(case, "a case")
    if unknown := sorted(members.keys() - _MEMBERS):
        raise ValueError(f"unknown member '{unknown[0]}', a case has inputs, outputs and tolerance")
    inputs = _object(members.get("inputs"), "inputs")
    outputs = _object(members.get("outputs"), "outputs")
    check_names(inputs, outputs, signature)
    return GoldenCase(
        title=title,
        inputs={s.name: _input(inputs[s.name], s) for s in signature.inputs if s.name in inputs},
        outputs={s.name: _output(outputs[s.name], s) for s in signature.outputs if s.name in outputs},
        tolerance=tolerance_of(_object(members.get("tolerance", {}), "tolerance")),
    )


def _object(value: Any, title: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{title} must be an object")  # noqa: TRY004 - the file is wrong, no argument is
    return value


def _input(value: Any, spec: TensorSpec) -> Array:
    where = f"input '{spec.name}'"
    array = input_values(_array(value, spec, where), spec.datatype, where)
    check_shape(array.shape, spec, where)
    return array


def _output(value: Any, spec: TensorSpec) -> Array:
    where = f"output '{spec.name}'"
    return expected_values(_array(value, spec, where), spec.datatype, where)


def _array(value: Any, spec: TensorSpec, where: str) -> Array:
    """Return a tensor's elements in its shape, in whatever dtype they come."""
    if not isinstance(value, dict):
        return _nested(value, spec.datatype, where)
    if value.keys() != {"datatype", "shape", "data"}:
        raise ValueError(f"{where} must be a list, or have datatype, shape and data")
    if value["datatype"] != spec.datatype.value:
        raise ValueError(f"{where} is {value['datatype']}, the model has {spec.datatype.value}")
    shape = value["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the shape of {where} must be a list of sizes")
    elements = _nested(value["data"], spec.datatype, where)
    if math.prod(shape) != elements.size:
        raise ValueError(f"{where} has shape {shape} and {elements.size} elements")
    return elements.reshape(shape)


def _nested(value: Any, datatype: Datatype, where: str) -> Array:
    """Return nested lists as an array; texts keep their zero bytes in one of objects only."""
    try:
        array: Array = np.array(value, np.object_ if datatype is Datatype.BYTES else None)
    except ValueError as error:
        raise ValueError(f"{where} has lists of unequal lengths") from error
    return array
