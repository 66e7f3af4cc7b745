"""Batches to ModelInferRequests and ModelInferResponses to arrays, in Triton's raw form.

Requests are always made anew from arrays and checked values: nothing that a client sent goes on as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from gateway.backends.triton.wire import Malformed, cut, with_raw
from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from gateway.backends.triton.shared_memory import Placed
    from gateway.core.calls import Buffer
    from gateway.core.types import Array, Batch, ModelSignature, ParameterValue, TensorSpec

CUT_BYTES: Final = 64 << 10
"""Responses from this size on are cut before they are parsed; below, the walk costs more than the copies."""
OFF_LOOP_BYTES: Final = 1 << 20
"""Messages from this size on are written and read in a thread: 1 MiB takes about 0.3 ms."""
MAX_MESSAGE_BYTES: Final = (1 << 31) - 1
_LENGTH: Final = Struct("<I")
_INT64: Final = range(-(1 << 63), 1 << 63)
_RESERVED: Final = frozenset({"priority", "timeout", "headers", "binary_data_output"})
_SEQUENCE: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
FINAL: Final = "triton_final_response"
EMPTY_FINAL: Final = "triton_enable_empty_final_response"


class WrongAnswer(Exception):
    """An endpoint answered something that is no answer to what it was asked."""


@dataclass(frozen=True)
class Target:
    """What of a model a request has to say.

    Attributes:
        model: its name on Triton.
        version: its number there.
        signature: what it takes and gives.
        sequences: it keeps state between the requests of a sequence.
        priorities: priority levels of its queue there; 0: none.
        timeouts: its queue there lets requests bring a shorter timeout.
    """

    model: str
    version: str
    signature: ModelSignature
    sequences: bool = False
    priorities: int = 0
    timeouts: bool = False

    @cached_property
    def datatypes(self) -> Mapping[str, Datatype]:
        """Datatype of each input."""
        return {spec.name: spec.datatype for spec in self.signature.inputs}

    @cached_property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The outputs by name."""
        return {spec.name: spec for spec in self.signature.outputs}


class Answer(NamedTuple):
    """One response.

    Attributes:
        outputs: name -> array, read-only; a view over the response where it is large.
        final: it says that no further one follows.
        in_shared_memory: names and shapes of the outputs that were put there.
    """

    outputs: dict[str, Array]
    final: bool
    in_shared_memory: dict[str, tuple[int, ...]]


def size_of(batch: Batch) -> int:
    """Return about how many bytes a batch takes on the wire; BYTES by a sample of their elements."""
    return sum([_size(array) for array in batch.inputs.values()])


def _size(array: Array) -> int:
    if array.dtype.kind != "O" or not array.size:
        return array.nbytes
    sample = array.reshape(-1)[:: max(1, array.size // 16)].tolist()
    return array.size * (_LENGTH.size + sum(map(len, sample)) // len(sample))


def encode(
    batch: Batch, target: Target, *, timeout_us: int | None = None, placed: Placed | None = None
) -> bytes:
    """Return the serialised request of a batch.

    Args:
        batch: what to run.
        target: on what.
        timeout_us: longest time in Triton's queue, said only where the model's queue takes it.
        placed: inputs and outputs that lie in shared memory; they are named, not sent.

    Raises:
        InvalidRequest: a parameter cannot be said.
    """
    request = pb.ModelInferRequest(model_name=target.model, model_version=target.version, id=batch.request_id)
    datatypes = target.datatypes
    raw: list[Buffer] = []
    for name, array in batch.inputs.items():
        datatype = datatypes[name]
        tensor = request.inputs.add(name=name, datatype=datatype.value, shape=array.shape)
        if placed is not None and name in placed.inputs:
            _refer(tensor, placed.region, *placed.inputs[name])
        else:
            raw.append(raw_form(array, datatype))
    for name in batch.output_names:
        wanted = request.outputs.add(name=name)
        if placed is not None and name in placed.outputs:
            _refer(wanted, placed.region, *placed.outputs[name])
    _add_parameters(request, batch, target, timeout_us)
    return with_raw(request.SerializeToString(), raw)


def _refer(tensor: Any, region: str, offset: int, nbytes: int) -> None:
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = nbytes
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def _add_parameters(request: Any, batch: Batch, target: Target, timeout_us: int | None) -> None:
    for key, value in batch.parameters.items():
        if _is_forwarded(key, target):
            _set(request.parameters[key], key, value)
    if target.signature.decoupled:
        request.parameters[EMPTY_FINAL].bool_param = True
    if target.priorities and 0 < batch.priority <= target.priorities:
        request.parameters["priority"].uint64_param = batch.priority
    if target.timeouts and timeout_us is not None:
        request.parameters["timeout"].int64_param = max(1, timeout_us)


def _is_forwarded(key: str, target: Target) -> bool:
    """Whether a parameter is the model's to see; Triton's own are set here or not at all."""
    if key in _SEQUENCE:
        return target.sequences
    return key not in _RESERVED and not key.startswith(("triton_", "shared_memory_"))


def _set(parameter: Any, key: str, value: ParameterValue) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        if value not in _INT64:
            raise InvalidRequest(f"parameter '{key}' is {value}, which is no 64-bit signed integer")
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def raw_form(array: Array, datatype: Datatype) -> Buffer:
    """Return a tensor's elements as Triton wants them; a view where the array is laid out so already."""
    if datatype is Datatype.BYTES:
        elements: list[bytes] = array.reshape(-1).tolist()
        lengths = map(_LENGTH.pack, map(len, elements))
        return b"".join(chain.from_iterable(zip(lengths, elements, strict=True)))
    # Reinterpreted as bytes because the buffer protocol has no format for bfloat16.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def decode(message: bytes, target: Target, elsewhere: Container[str] = ()) -> Answer:
    """Read a serialised ModelInferResponse.

    Args:
        message: as it came.
        target: who was asked.
        elsewhere: outputs that were to be put in shared memory; the response has no contents of them then.

    Raises:
        WrongAnswer: it is no such message, comes from another version, or an output is not as the signature
            says.
    """
    try:
        head, raw = cut(message) if len(message) >= CUT_BYTES else (message, None)
        response = pb.ModelInferResponse.FromString(head)
    except (Malformed, DecodeError) as error:
        raise WrongAnswer(f"not a ModelInferResponse: {error}") from error
    return read(response, target, raw, elsewhere)


def read(
    response: Any, target: Target, raw: Sequence[Buffer] | None = None, elsewhere: Container[str] = ()
) -> Answer:
    """As `decode`, of a parsed response; its raw contents are its own where they are not given."""
    raw = response.raw_output_contents if raw is None else raw
    if response.model_version != target.version:
        raise WrongAnswer(f"asked version {target.version}, version {response.model_version[:20]} answered")
    if len(raw) != len(response.outputs):
        raise WrongAnswer(f"{len(response.outputs)} outputs with {len(raw)} raw contents")
    outputs, shared = dict[str, Any](), dict[str, tuple[int, ...]]()
    for tensor, content in zip(response.outputs, raw, strict=True):
        spec, shape = _checked(tensor, target.outputs)
        if spec.name in elsewhere and not len(content):
            shared[spec.name] = shape
        else:
            outputs[spec.name] = array_of(content, spec, shape)
    final = FINAL in response.parameters and response.parameters[FINAL].bool_param
    return Answer(outputs, final, shared)


def check_complete(answer: Answer, names: Iterable[str]) -> None:
    """See whether an answer has the outputs of `names`.

    Raises:
        WrongAnswer: it lacks one.
    """
    for name in names:
        if name not in answer.outputs:
            raise WrongAnswer(f"output '{name}' is missing")


def _checked(tensor: Any, specs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, tuple[int, ...]]:
    spec = specs.get(tensor.name)
    if spec is None:
        raise WrongAnswer(f"an output '{tensor.name[:80]}' that the model does not have")
    if tensor.datatype != spec.datatype.value:
        raise WrongAnswer(
            f"output '{spec.name}' of datatype {tensor.datatype[:20]}, not {spec.datatype.value}"
        )
    shape = tuple(tensor.shape)
    if min(shape, default=0) < 0:
        raise WrongAnswer(f"output '{spec.name}' of shape {list(shape)}")
    return spec, shape


def array_of(content: Buffer, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Return the array over raw contents: a read-only view of them; BYTES are copied.

    Raises:
        WrongAnswer: they have not the size that datatype and shape ask for.
    """
    count = 1
    for size in shape:
        count *= size
    if spec.datatype is Datatype.BYTES:
        return _strings(bytes(content), count, spec.name).reshape(shape)
    if len(content) != count * spec.datatype.itemsize:
        raise WrongAnswer(
            f"output '{spec.name}' of shape {list(shape)} and {spec.datatype.value} in {len(content)} bytes"
        )
    if spec.datatype is Datatype.BOOL:
        octets = np.frombuffer(content, np.uint8)
        if octets.size and octets.max() > 1:
            octets = (octets != 0).view(np.uint8)
        octets.flags.writeable = False
        return octets.view(np.bool_).reshape(shape)
    # An array over a read-only buffer is read-only.
    return np.ndarray(shape, spec.datatype.dtype, content)


def _strings(raw: bytes, count: int, name: str) -> Array:
    if count * _LENGTH.size > len(raw):
        raise WrongAnswer(f"output '{name}': {len(raw)} bytes are too few for {count} elements")
    position, elements = 0, list[bytes]()
    while position < len(raw) and len(elements) <= count:
        start = position + _LENGTH.size
        if start > len(raw):
            raise WrongAnswer(f"output '{name}': the length of an element is cut off")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        elements.append(raw[start:position])
    if position != len(raw) or len(elements) != count:
        raise WrongAnswer(f"output '{name}': its bytes do not hold {count} elements")
    array = np.empty(count, dtype=np.object_)
    array[:] = elements
    array.flags.writeable = False
    return array
