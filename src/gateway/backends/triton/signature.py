"""A model's signature, and how it wants to be batched, from the metadata and the configuration on Triton."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.backends.triton.options import Batching
from gateway.core.errors import ModelLoadError
from gateway.core.options import EVERY_PARAMETER
from gateway.core.types import Datatype, ModelSignature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.options import BatchingOptions

_DATATYPES: Final[Mapping[str, Datatype]] = {d.value: d for d in Datatype}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What Triton says about one version.

    Attributes:
        signature: what it takes and gives; the batch axis is 0, where it has one.
        platform: as Triton reports it, `onnxruntime_onnx`; the backend's name where that is all it says.
        versions: its versions that were ready on the endpoint asked.
        max_batch_size: most rows of one request; 0: it has no batch axis.
        instances: batches that one endpoint runs at once.
        dynamic_batching: Triton forms batches of it.
        preferred_rows: batch sizes that it says are worth waiting for, ascending.
        delay_s: how long Triton lets requests wait for company.
        sequences: requests belong to sequences that have state on an endpoint.
        ragged: requests of unequal shapes share Triton's batches, in a form that only Triton makes.
        priorities: priority levels of its queue on Triton; 0: none.
        timeouts: requests may bring a shorter time in that queue.
        labelled: outputs that have a file of class labels on Triton.
        labels: output -> labels in index order, as far as they could be learnt.
    """

    signature: ModelSignature
    platform: str
    versions: tuple[int, ...] = ()
    max_batch_size: int = 0
    instances: int = 1
    dynamic_batching: bool = False
    preferred_rows: tuple[int, ...] = ()
    delay_s: float = 0.0
    sequences: bool = False
    ragged: bool = False
    priorities: int = 0
    timeouts: bool = False
    labelled: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def whose_batches(self) -> Batching:
        """Who can form batches of it at all: GATEWAY, PASSTHROUGH, or AUTO for either."""
        if self.sequences or self.ragged or self.signature.decoupled or self.max_batch_size < 2:
            return Batching.PASSTHROUGH
        return Batching.AUTO if self.dynamic_batching else Batching.GATEWAY


def read_facts(metadata: Any, config: Any) -> ModelFacts:
    """Read ModelMetadataResponse and ModelConfig.

    Raises:
        ModelLoadError: a datatype that this gateway does not know, a shape tensor, or the two contradict each
            other.
    """
    for tensor in config.input:
        if tensor.is_shape_tensor:
            raise ModelLoadError(f"input '{tensor.name}' is a shape tensor on Triton; those are not served")
    batched = config.max_batch_size > 0
    optional = {tensor.name for tensor in config.input if tensor.optional}
    inputs = tuple(_spec(t, batched=batched, optional=t.name in optional) for t in metadata.inputs)
    outputs = tuple(_spec(t, batched=batched) for t in metadata.outputs)
    dynamic = config.dynamic_batching if config.HasField("dynamic_batching") else None
    policy = dynamic.default_queue_policy if dynamic is not None else None
    return ModelFacts(
        signature=ModelSignature(inputs, outputs, decoupled=config.model_transaction_policy.decoupled),
        platform=config.platform or metadata.platform or config.backend,
        versions=tuple(sorted(int(v) for v in metadata.versions if v.isdigit())),
        max_batch_size=config.max_batch_size,
        instances=_instances(config),
        dynamic_batching=dynamic is not None,
        preferred_rows=tuple(sorted(dynamic.preferred_batch_size)) if dynamic is not None else (),
        delay_s=dynamic.max_queue_delay_microseconds / 1e6 if dynamic is not None else 0.0,
        sequences=config.HasField("sequence_batching"),
        ragged=any(tensor.allow_ragged_batch for tensor in config.input),
        priorities=dynamic.priority_levels if dynamic is not None else 0,
        timeouts=policy is not None
        and policy.allow_timeout_override
        and policy.default_timeout_microseconds > 0,
        labelled=tuple(tensor.name for tensor in config.output if tensor.label_filename),
    )


def batching_of(options: BatchingOptions, facts: ModelFacts, wanted: Batching) -> BatchingOptions:
    """Return `options` as they can be for a model on Triton.

    Batches never pass its `max_batch_size`; its preferred sizes are taken over where the options name none;
    there is never a delay here where Triton makes requests wait too; a model that only Triton can batch, or
    that shall be passed through, is not batched here. A model there may read any parameter: requests share
    a batch only where all are equal, unless the options say which matter.
    """
    possible = facts.whose_batches
    if Batching.PASSTHROUGH in {possible, wanted}:
        # One request is one run; the bound on its rows is Triton's.
        return dataclasses.replace(
            options, enabled=False, max_delay_s=0.0, preferred_rows=(), allowed_rows=()
        )
    most = min(options.max_batch_rows, facts.max_batch_size)
    allowed = tuple(rows for rows in options.allowed_rows if rows <= most)
    if options.allowed_rows and not allowed:
        raise ModelLoadError(
            f"none of allowed_rows {list(options.allowed_rows)} is within the max_batch_size "
            f"{facts.max_batch_size} that the model has on Triton"
        )
    preferred = options.preferred_rows or facts.preferred_rows
    two_delays = facts.delay_s > 0 or (wanted is Batching.AUTO and facts.dynamic_batching)
    parameters = options.group_parameters
    return dataclasses.replace(
        options,
        group_parameters=(EVERY_PARAMETER,) if parameters is None else parameters,
        max_batch_rows=allowed[-1] if allowed else most,
        allowed_rows=allowed,
        preferred_rows=tuple(rows for rows in preferred if rows <= most),
        max_delay_s=0.0 if two_delays else options.max_delay_s,
    )


def differences(one: ModelSignature, other: ModelSignature) -> str:
    """Return what differs between two signatures, in a few words; empty when they are equal."""
    for kind in ("inputs", "outputs"):
        ours = {spec.name: spec for spec in getattr(one, kind)}
        theirs = {spec.name: spec for spec in getattr(other, kind)}
        if ours.keys() != theirs.keys():
            return f"{kind} {sorted(ours)} and {sorted(theirs)}"
        for name, spec in ours.items():
            if spec != theirs[name]:
                return f"{kind[:-1]} '{name}': {_shown(spec)} and {_shown(theirs[name])}"
    return "decoupled or not" if one.decoupled is not other.decoupled else ""


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype.value} {list(spec.shape)}{' optional' if spec.optional else ''}"


def _spec(tensor: Any, *, batched: bool, optional: bool = False) -> TensorSpec:
    datatype = _DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise ModelLoadError(
            f"tensor '{tensor.name}' has the datatype '{tensor.datatype[:40]}' on Triton, which is none of "
            f"{', '.join(_DATATYPES)}"
        )
    shape = tuple(max(-1, size) for size in tensor.shape)
    if batched and shape[:1] != (-1,):
        raise ModelLoadError(
            f"tensor '{tensor.name}' has the shape {list(shape)} on Triton, without the batch axis that its "
            "max_batch_size gives it"
        )
    return TensorSpec(tensor.name, datatype, shape, 0 if batched else None, optional)


def _instances(config: Any) -> int:
    """Return how many instances an endpoint has: of a group on GPUs, so many on each of those named."""
    counts: list[int] = [group.count * max(1, len(group.gpus)) for group in config.instance_group]
    return max(1, sum(counts))
