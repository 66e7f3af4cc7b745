"""What a signature tells about a request agrees with the validator of the version that has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.options import BatchingOptions, ModelSpec, PadRule
from gateway.core.types import Datatype, InferRequest, ModelSignature, RequestedOutput, Tensor, TensorSpec
from gateway.models.validation import RequestValidator
from gateway.routing.fitting import takes_as_little, would_take

NAMES = st.sampled_from(["a", "b"])
TYPES = st.sampled_from([Datatype.FP32, Datatype.INT64])
DTYPES = {Datatype.FP32: np.float32, Datatype.INT64: np.int64}


@dataclass
class Version:
    """As much of a served version as is looked at."""

    signature: ModelSignature
    spec: ModelSpec


@st.composite
def versions(draw: st.DrawFn) -> Any:
    """Versions of up to two inputs."""
    specs = []
    for name in sorted(draw(st.sets(NAMES, min_size=1))):
        axis = draw(st.sampled_from([0, None]))
        size = st.sampled_from([-1, 1, 2])
        first = -1 if axis == 0 else draw(size)
        specs.append(TensorSpec(name, draw(TYPES), (first, draw(size)), axis, draw(st.booleans())))
    names = draw(st.sampled_from(["y", "yz"]))
    outputs = tuple(TensorSpec(name, Datatype.FP32, (-1, 1)) for name in names)
    pad = tuple(
        PadRule(input=s.name, axis=1, buckets=(2,)) for s in specs if s.shape[1] < 0 and draw(st.booleans())
    )
    batching = BatchingOptions(max_batch_rows=2, pad=pad, split_large=draw(st.booleans()))
    return Version(ModelSignature(tuple(specs), outputs), ModelSpec(name="m", batching=batching))


@st.composite
def requests(draw: st.DrawFn) -> InferRequest:
    """Requests of up to three inputs, names twice included."""
    tensors = []
    for name in draw(st.lists(NAMES, max_size=3)):
        datatype = draw(TYPES)
        shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
        tensors.append(Tensor(name, datatype, np.zeros(shape, DTYPES[datatype])))
    outputs = draw(st.lists(st.sampled_from(["y", "z"]), max_size=2))
    return InferRequest(model_name="m", inputs=tuple(tensors), outputs=tuple(map(RequestedOutput, outputs)))


@given(versions(), requests())
def test_it_says_what_the_validator_says(version: Any, sent: InferRequest) -> None:
    """Of every request; what neither a batch axis nor rows are asked of is not limited in rows."""
    validator = RequestValidator("m", version.signature, version.spec.batching, implicit_batch=False)
    try:
        validator.check(sent)
    except InvalidRequest:
        taken = False
    else:
        taken = True
    assert would_take(version, sent) is taken


@given(versions(), versions())
def test_versions_that_ask_the_same_are_told_by_what_they_ask(one: Any, other: Any) -> None:
    """By signature and batching, not by anything else."""
    assert takes_as_little(one, replace(one, spec=replace(one.spec, name="n")))
    same = one.signature == other.signature and one.spec.batching == other.spec.batching
    assert takes_as_little(one, other) is same
