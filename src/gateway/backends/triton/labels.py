"""The class labels of a model on Triton, which answers with them but has no call that lists them."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from gateway.backends.triton.connection import Asked
from gateway.core.errors import GatewayError
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.backends.triton.connection import TritonConnection
    from gateway.backends.triton.signature import ModelFacts
    from gateway.backends.triton.versions import Loaded
    from gateway.core.types import TensorSpec

MAX_CLASSES: Final = 100_000
TIMEOUT_S: Final = 10.0
_log = logging.getLogger(__name__)


async def learned(
    connection: TritonConnection, loaded: Loaded, facts: ModelFacts
) -> Mapping[str, tuple[str, ...]]:
    """Return output -> labels in index order, of every output that has a label file on Triton.

    The model is run once, on zeros, and asked for the classes of each such output, all of them. Where it
    does not take zeros, or an output's size varies, there are no labels, and a warning says so.
    """
    found = {}
    for spec in facts.signature.outputs:
        if spec.name not in facts.labelled:
            continue
        classes = math.prod(size for axis, size in enumerate(spec.shape) if axis != spec.batch_axis)
        try:
            message = _question(loaded, facts, spec, classes)
            answer = await connection.infer(Asked(loaded, loaded.model), message, TIMEOUT_S)
            found[spec.name] = _labels(pb.ModelInferResponse.FromString(answer), classes)
        except (GatewayError, ValueError) as error:
            _log.warning(
                "the labels of output %r of %r cannot be learnt from Triton: %s",
                spec.name,
                loaded.model,
                error,
            )
    return found


def _question(loaded: Loaded, facts: ModelFacts, wanted: TensorSpec, classes: int) -> bytes:
    """Return a request of one row of zeros.

    Raises:
        ValueError: the output has no such classes.
    """
    if not 0 < classes <= MAX_CLASSES or wanted.datatype is Datatype.BYTES:
        raise ValueError(f"{classes} classes of {wanted.datatype.value}")
    request = pb.ModelInferRequest(model_name=loaded.model, model_version=str(loaded.version))
    for spec in facts.signature.inputs:
        if spec.optional:
            continue
        shape = [1 if size < 0 else size for size in spec.shape]
        request.inputs.add(name=spec.name, datatype=spec.datatype.value, shape=shape)
        count = math.prod(shape)
        empty_text = bytes(4)  # its length
        nothing = (
            empty_text * count
            if spec.datatype is Datatype.BYTES
            else np.zeros(count, spec.datatype.dtype).tobytes()
        )
        request.raw_input_contents.append(nothing)
    output = request.outputs.add(name=wanted.name)
    output.parameters["classification"].int64_param = classes
    return bytes(request.SerializeToString())


def _labels(answer: pb.ModelInferResponse, classes: int) -> tuple[str, ...]:
    """Read texts `value:index:label`, each behind its length.

    Raises:
        ValueError: they are not such texts, or not one for each class.
    """
    labels: dict[int, str] = {}
    rest = answer.raw_output_contents[0] if answer.raw_output_contents else b""
    while rest:
        size = int.from_bytes(rest[:4], "little")
        _, index, label = rest[4 : 4 + size].decode().split(":", 2)
        labels[int(index)] = label
        rest = rest[4 + size :]
    if sorted(labels) != list(range(classes)):
        raise ValueError(f"{len(labels)} of {classes} classes have one")
    return tuple(labels[index] for index in range(classes))
