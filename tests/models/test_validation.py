"""The request validator against a table of unfit requests."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gateway.core.errors import InvalidRequest
from gateway.core.options import BatchingOptions, PadRule
from gateway.core.types import (
    Array,
    Datatype,
    InferRequest,
    ModelSignature,
    RequestedOutput,
    Tensor,
    TensorSpec,
)
from gateway.models.validation import RequestValidator

SIGNATURE = ModelSignature(
    (
        TensorSpec("INPUT0", Datatype.FP32, (-1, 4)),
        TensorSpec("INPUT1", Datatype.INT32, (-1, -1)),
        TensorSpec("RATE", Datatype.INT64, (), batch_axis=None, optional=True),
    ),
    (TensorSpec("OUTPUT0", Datatype.FP32, (-1, 4)), TensorSpec("OUTPUT1", Datatype.FP32, (-1, 4))),
)


def validator(batching: BatchingOptions | None = None, *, implicit: bool = False) -> RequestValidator:
    options = batching or BatchingOptions(max_batch_rows=8)
    return RequestValidator("m", SIGNATURE, options, implicit_batch=implicit)


def tensor(name: str, array: Array, datatype: Datatype | None = None) -> Tensor:
    return Tensor(name, datatype or next(d for d in Datatype if d.dtype == array.dtype), array)


def request(*inputs: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest(
        model_name="m", inputs=inputs, outputs=tuple(RequestedOutput(name) for name in outputs)
    )


def first(rows: int = 2, features: int = 4) -> Tensor:
    return tensor("INPUT0", np.zeros((rows, features), "f4"))


def second(rows: int = 2, length: int = 3) -> Tensor:
    return tensor("INPUT1", np.zeros((rows, length), "i4"))


RATE = tensor("RATE", np.array(16000, "i8"))


@pytest.mark.parametrize(
    "fit",
    [
        request(first(), second()),
        request(second(8, 0), first(8)),
        request(first(1), second(1), RATE),
        request(first(), second(), outputs=("OUTPUT1", "OUTPUT0")),
    ],
)
def test_fit_requests_pass(fit: InferRequest) -> None:
    """Requests in any order, with or without optional inputs, of any variable size pass."""
    validator().check(fit)


@pytest.mark.parametrize(
    ("unfit", "message"),
    [
        (
            request(first()),
            "expected between 2 and 3 inputs but got 1 inputs for model 'm'. Got input(s) ['INPUT0'], but",
        ),
        (request(RATE), "missing required input(s) ['INPUT0','INPUT1']"),
        (request(), "Got input(s) [], but missing required input(s) ['INPUT0','INPUT1']"),
        (
            request(first(), second(), tensor("X", np.zeros(1, "f4"))),
            "unexpected inference input 'X' for model 'm'",
        ),
        (request(first(), second(), first()), "input 'INPUT0' already exists in request"),
        (
            request(tensor("INPUT0", np.zeros((2, 4), "f8")), second()),
            "inference input 'INPUT0' data-type is 'FP64', but model 'm' expects 'FP32'",
        ),
        (
            request(first(2, 5), second()),
            "unexpected shape for input 'INPUT0' for model 'm'. Expected [-1,4], got [2,5].",
        ),
        (
            request(tensor("INPUT0", np.zeros((2, 4, 1), "f4")), second()),
            "Expected [-1,4], got [2,4,1].",
        ),
        (
            request(tensor("INPUT0", np.zeros((), "f4")), second()),
            "input 'INPUT0' has no shape but model requires batch dimension for 'm'",
        ),
        (request(first(2), second(3)), "input 'INPUT1' batch size does not match other inputs for 'm'"),
        (request(first(9), second(9)), "inference request batch-size must be <= 8 for 'm'"),
        (request(first(0), second(0)), "inference request batch-size must be >= 1 for 'm'"),
        (request(first(), second(), outputs=("NO",)), "unexpected inference output 'NO' for model 'm'"),
        (
            request(first(), second(), outputs=("OUTPUT0", "OUTPUT0")),
            "output 'OUTPUT0' already exists in request",
        ),
    ],
)
def test_unfit_requests_are_refused_in_tritons_words(unfit: InferRequest, message: str) -> None:
    """Each kind of misfit is refused with the message that clients may look for."""
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        validator().check(unfit)


def test_count_message_without_optional_inputs_is_exact() -> None:
    """Without optional inputs the expected count is one number, as Triton's own tests have it."""
    inputs = tuple(TensorSpec(f"INPUT{i}", Datatype.FP32, (-1, 4)) for i in range(3))
    strict = RequestValidator(
        "m", ModelSignature(inputs, SIGNATURE.outputs), BatchingOptions(), implicit_batch=True
    )
    message = (
        "expected 3 inputs but got 1 inputs for model 'm'. Got input(s) ['INPUT0'], but missing required "
        "input(s) ['INPUT1','INPUT2']. Please provide all required input(s)."
    )
    with pytest.raises(InvalidRequest, match=f"^{re.escape(message)}$"):
        strict.check(request(first()))


def test_implicit_batch_adds_tritons_note() -> None:
    """Where the batch axis is implicit a shape error explains max_batch_size."""
    with pytest.raises(InvalidRequest, match=r"got \[2,5\]. NOTE: Setting a non-zero max_batch_size"):
        validator(implicit=True).check(request(first(2, 5), second()))


def test_splitting_lifts_the_limit_of_rows() -> None:
    """A model that splits large requests takes more rows than fit one batch."""
    validator(BatchingOptions(max_batch_rows=8, split_large=True)).check(request(first(9), second(9)))


def test_longer_than_the_last_bucket_is_refused() -> None:
    """A tensor that no declared bucket can hold is refused before it is queued."""
    padded = BatchingOptions(pad=(PadRule(input="INPUT1", axis=1, buckets=(4, 16)),))
    validator(padded).check(request(first(), second(2, 16)))
    with pytest.raises(InvalidRequest, match="at most 16 along axis 1, got 17"):
        validator(padded).check(request(first(), second(2, 17)))


def test_model_without_batch_axis_knows_no_rows() -> None:
    """Fixed and empty first axes are fine where no axis counts rows."""
    signature = ModelSignature(
        (
            TensorSpec("a", Datatype.FP32, (-1, 2), batch_axis=None),
            TensorSpec("b", Datatype.FP32, (-1,), batch_axis=None),
        ),
        (TensorSpec("y", Datatype.FP32, (-1,), batch_axis=None),),
    )
    bare = RequestValidator("m", signature, BatchingOptions(max_batch_rows=1), implicit_batch=False)
    bare.check(request(tensor("a", np.zeros((5, 2), "f4")), tensor("b", np.zeros(0, "f4"))))
