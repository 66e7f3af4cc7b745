"""Values that travel through the gateway: tensors, requests, responses, signatures, identities.

Classes on the hot path are slotted and treated as immutable once built, except where a field says who
may write it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import numpy.typing as npt

from gateway.core.assigned import Assigned
from gateway.core.datatypes import Datatype as Datatype  # noqa: PLC0414 - one of this module's names

ParameterValue: TypeAlias = bool | int | float | str
"""A protocol parameter: InferParameter's oneof without its wire widths."""

Array: TypeAlias = npt.NDArray[Any]

NO_PARAMETERS: Final[Mapping[str, ParameterValue]] = MappingProxyType({})
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def _no_parameters() -> Mapping[str, ParameterValue]:
    return NO_PARAMETERS


def _no_headers() -> Mapping[str, str]:
    return NO_HEADERS


class VersionId(NamedTuple):
    """Identity of one model version: keys queues, leases, memos and logs.

    Attributes:
        model: public model name.
        number: the protocol's version integer, the public face only.
        digest: content digest of the artifact and the options it was loaded with; two loads of changed
            files under one number differ here.
    """

    model: str
    number: int
    digest: str


class Device(NamedTuple):
    """Where a model runs: kind `cpu`, `cuda` or `fleet`, and the ordinal of the accelerator (0 for cpu).

    For models of remote fleets the ordinal is the fleet's place in the configuration: it tells fleets apart.
    """

    kind: str = "cpu"
    ordinal: int = 0

    def __str__(self) -> str:
        """Return `cpu` or, for example, `cuda:1`."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.ordinal}"


CPU: Final = Device()


@dataclass(frozen=True)
class Principal:
    """Who is asking; anonymous until authentication exists.

    Attributes:
        tenant: fairness and quota unit.
        identity: the authenticated name, empty when anonymous.
        scopes: what the caller may do.
    """

    tenant: str = ""
    identity: str = ""
    scopes: frozenset[str] = frozenset()


ANONYMOUS: Final = Principal()


@dataclass(frozen=True)
class TraceContext:
    """W3C trace context: 16-byte and 8-byte ids as integers, sampled flag, state as sent.

    Attributes:
        recorded: it is that of a server span which this process records, not the caller's.
    """

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""
    recorded: bool = False


class Tensor:
    """One named tensor.

    Attributes:
        name: tensor name in the model.
        datatype: wire datatype; `array.dtype == datatype.dtype`.
        array: the values in their protocol shape. As an input it is usually a read-only view over the
            received buffer, perhaps unaligned; BYTES is an object array of `bytes`.
    """

    __slots__ = (
        "array",
        "datatype",
        "name",
    )

    def __init__(
        self,
        name: str,
        datatype: Datatype,
        array: Array,
    ) -> None:
        self.name = name
        self.datatype = datatype
        self.array = array


class RequestedOutput(NamedTuple):
    """One output the client asked for.

    Attributes:
        name: output name in the model.
        classification: 0, or the number of top classes to answer instead of the tensor.
        parameters: the output's own parameters (`binary_data` and the like), for the codec.
    """

    name: str
    classification: int = 0
    parameters: Mapping[str, ParameterValue] = NO_PARAMETERS


class InferRequest:
    """One inference request, the same for every transport.

    Attributes:
        model_name: model asked for.
        model_version: version as asked; empty lets the gateway choose.
        request_id: the client's id, echoed; may be empty.
        inputs: tensors as sent, names unique.
        outputs: outputs asked for; empty means all of the model's.
        parameters: request parameters without those that have fields of their own here
            (priority, timeout); still holds sequence and custom ones.
        priority: protocol priority, 0 = the queue's default, 1 = highest.
        deadline_s: monotonic time after which the request must not be started, or None.
        arrived_s: monotonic time of the last byte's arrival.
        received_bytes: size of the buffers the inputs keep alive; what limits are charged.
        headers: request metadata, lower-case names.
        principal: who asks; written by the authentication layer only.
        flow_key: fairness unit within a queue; the tenant by default.
        trace: the caller's trace context; replaced by the telemetry layer with its own span when sampled.
        served_version: number of the version that was chosen for it; written by the router with the lease,
            0 before.
        kind: requests with the same object here have the same input names, datatypes and shapes in the same
            order, and ask for the same outputs; None says nothing.
        assigned: the arm it got; written by the router, None where no route of its model was followed.
    """

    __slots__ = (
        "arrived_s",
        "assigned",
        "deadline_s",
        "flow_key",
        "headers",
        "inputs",
        "kind",
        "model_name",
        "model_version",
        "outputs",
        "parameters",
        "principal",
        "priority",
        "received_bytes",
        "request_id",
        "served_version",
        "trace",
    )

    def __init__(
        self,
        *,
        model_name: str,
        model_version: str = "",
        request_id: str = "",
        inputs: tuple[Tensor, ...],
        outputs: tuple[RequestedOutput, ...] = (),
        parameters: Mapping[str, ParameterValue] = NO_PARAMETERS,
        priority: int = 0,
        deadline_s: float | None = None,
        arrived_s: float = 0.0,
        received_bytes: int = 0,
        headers: Mapping[str, str] = NO_HEADERS,
        principal: Principal = ANONYMOUS,
        flow_key: str = "",
        trace: TraceContext | None = None,
        served_version: int = 0,
        kind: object = None,
        assigned: Assigned | None = None,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.request_id = request_id
        self.inputs = inputs
        self.outputs = outputs
        self.parameters = parameters
        self.priority = priority
        self.deadline_s = deadline_s
        self.arrived_s = arrived_s
        self.received_bytes = received_bytes
        self.headers = headers
        self.principal = principal
        self.flow_key = flow_key
        self.trace = trace
        self.served_version = served_version
        self.kind = kind
        self.assigned = assigned


class RequestTiming:
    """Where one request's time went, in nanoseconds; zero where a step did not happen.

    Attributes:
        queue_ns: from entering the queue until its batch was formed.
        compute_input_ns: assembling the batch and handing it to the device.
        compute_infer_ns: the backend's run.
        compute_output_ns: fetching and splitting the outputs.
        batch_rows: rows of the batch that carried it, padding not counted.
    """

    __slots__ = (
        "batch_rows",
        "compute_infer_ns",
        "compute_input_ns",
        "compute_output_ns",
        "queue_ns",
    )

    def __init__(
        self,
        queue_ns: int = 0,
        compute_input_ns: int = 0,
        compute_infer_ns: int = 0,
        compute_output_ns: int = 0,
        batch_rows: int = 0,
    ) -> None:
        self.queue_ns = queue_ns
        self.compute_input_ns = compute_input_ns
        self.compute_infer_ns = compute_infer_ns
        self.compute_output_ns = compute_output_ns
        self.batch_rows = batch_rows


NO_TIMING: Final = RequestTiming()


class InferResponse:
    """The answer to one request.

    Attributes:
        model_name: as asked.
        model_version: the number of the version that answered, as text.
        request_id: the request's id.
        outputs: tensors, in the order asked for (the model's order when none was). Views over the
            batch's output; never written to.
        parameters: response parameters; the router puts the arm into them as the request completes.
        timing: where the time went.
        final: False for all but the last response of a decoupled stream.
    """

    __slots__ = (
        "final",
        "model_name",
        "model_version",
        "outputs",
        "parameters",
        "request_id",
        "timing",
    )

    def __init__(
        self,
        *,
        model_name: str,
        model_version: str,
        request_id: str = "",
        outputs: tuple[Tensor, ...],
        parameters: Mapping[str, ParameterValue] = NO_PARAMETERS,
        timing: RequestTiming = NO_TIMING,
        final: bool = True,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.request_id = request_id
        self.outputs = outputs
        self.parameters = parameters
        self.timing = timing
        self.final = final

    def replaced(
        self,
        *,
        outputs: tuple[Tensor, ...] | None = None,
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> InferResponse:
        """Return a copy with other outputs or parameters."""
        return InferResponse(
            model_name=self.model_name,
            model_version=self.model_version,
            request_id=self.request_id,
            outputs=self.outputs if outputs is None else outputs,
            parameters=self.parameters if parameters is None else parameters,
            timing=self.timing,
            final=self.final,
        )


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: tensor name.
        datatype: element type.
        shape: all axes including the batch axis; -1 where any size goes.
        batch_axis: which axis counts rows; None when the tensor has none (a scalar `sr`, say) and is
            shared by the whole batch.
        optional: an input that may be left out.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    batch_axis: int | None = 0
    optional: bool = False


@dataclass(frozen=True)
class ModelSignature:
    """What a model takes and gives.

    Attributes:
        inputs: in the model's order.
        outputs: in the model's order.
        decoupled: a request may have any number of responses; only `stream` works.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decoupled: bool = False

    @property
    def batchable(self) -> bool:
        """Whether requests may share a run: some input and every output has a batch axis."""
        return any(i.batch_axis is not None for i in self.inputs) and all(
            o.batch_axis is not None for o in self.outputs
        )


class VersionState(enum.Enum):
    """Life of one model version; transitions are in `gateway.models.lifecycle`."""

    NEW = "NEW"
    FETCHING = "FETCHING"
    VERIFYING = "VERIFYING"
    LOADING = "LOADING"
    CHECKING = "CHECKING"
    WARMING = "WARMING"
    TESTING = "TESTING"
    READY = "READY"
    DRAINING = "DRAINING"
    UNLOADED = "UNLOADED"
    FAILED = "FAILED"


class Batch:
    """What a backend runs.

    Attributes:
        inputs: name -> array; C-contiguous, aligned, owned by the batch, not written to after hand-over.
            BYTES inputs are object arrays of `bytes`.
        rows: size of the batch axis, padding included; 1 for an unbatched run.
        output_names: the outputs wanted, a subset of the signature's; never empty.
        parameters: parameters shared by every request of the batch.
        deadline_s: monotonic time after which none of its requests wants an answer; None if one always does.
        request_id: the client's id, of a batch of one request; else empty.
        priority: the most urgent that its requests ask for, 1 is highest; 0 if one asks for none.
        trace: the trace context of a batch of one request.

    The last four are filled in for remote models alone: a run in this process has no use for them.
    """

    __slots__ = (
        "deadline_s",
        "inputs",
        "output_names",
        "parameters",
        "priority",
        "request_id",
        "rows",
        "trace",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        output_names: tuple[str, ...],
        parameters: Mapping[str, ParameterValue] = NO_PARAMETERS,
        *,
        deadline_s: float | None = None,
        request_id: str = "",
        priority: int = 0,
        trace: TraceContext | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.output_names = output_names
        self.parameters = parameters
        self.deadline_s = deadline_s
        self.request_id = request_id
        self.priority = priority
        self.trace = trace


class BatchResult:
    """What a backend answers.

    Attributes:
        outputs: name -> array for at least `Batch.output_names`; owned by the caller from here on and
            never overwritten by a later run.
        compute_input_ns: handing inputs to the device.
        compute_infer_ns: the run itself.
        compute_output_ns: fetching outputs.
    """

    __slots__ = (
        "compute_infer_ns",
        "compute_input_ns",
        "compute_output_ns",
        "outputs",
    )

    def __init__(
        self,
        outputs: Mapping[str, Array],
        compute_input_ns: int = 0,
        compute_infer_ns: int = 0,
        compute_output_ns: int = 0,
    ) -> None:
        self.outputs = outputs
        self.compute_input_ns = compute_input_ns
        self.compute_infer_ns = compute_infer_ns
        self.compute_output_ns = compute_output_ns


@dataclass(frozen=True)
class Artifact:
    """Files of one model version on local disk.

    Attributes:
        directory: the version's directory; nothing outside it may be read for the version.
        model_file: the file the backend loads, inside `directory`.
        digest: content digest of the files.
    """

    directory: Path
    model_file: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class VersionOrigin:
    """Where a version of a registry comes from, for people.

    Attributes:
        registry: the registry's name in the configuration.
        source: the reference that the model's entry gives, `mlflow://fraud@champion`.
        label: the registry's own version id.
        aliases: aliases that name this version now.
        lineage: JSON types by name; as `RegistryVersion.lineage`.
    """

    registry: str
    source: str
    label: str
    aliases: tuple[str, ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """One state that a version has been through on its way to READY.

    Attributes:
        state: the state.
        began_s: wall-clock seconds since the epoch.
        seconds: how long it took; up to now for the one it is in.
    """

    state: VersionState
    began_s: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """One row of the repository index.

    Attributes:
        id: the version.
        state: where it is in its life.
        reason: why, for anything but READY; for READY with a failed reload, what failed.
        memory_bytes: what the loaded version holds, measured or estimated; 0 when not loaded.
        inflight: leases held now.
        since_s: wall-clock seconds since the epoch of the last transition.
        origin: where it comes from; None for a version of a local repository.
        content_digest: SHA-256 over names and contents of its files; empty until they are here.
        steps: the states it went through until READY or FAILED, in order.
        done_bytes: of its files, while FETCHING or VERIFYING.
        total_bytes: of its files, 0 while unknown.
        claims: who wants it, by the names of the claims.
    """

    id: VersionId
    state: VersionState
    reason: str = ""
    memory_bytes: int = 0
    inflight: int = 0
    since_s: float = 0.0
    origin: VersionOrigin | None = None
    content_digest: str = ""
    steps: tuple[StepTiming, ...] = ()
    done_bytes: int = 0
    total_bytes: int = 0
    claims: tuple[str, ...] = ()
