"""How one model is served: the effective settings, whatever file, flag or default they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import Device

MIB: Final = 1 << 20

EVERY_PARAMETER: Final = "*"
"""Stands in `group_parameters` for all that a request brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PadRule:
    """Padding of one variable axis of an input, so that unequal requests can share a batch.

    Attributes:
        input: input name.
        axis: axis in the full shape, batch axis included; never the batch axis.
        buckets: sizes to pad up to, ascending; a longer tensor is refused. Empty: pad to the longest of
            the batch, and requests of any size share a batch.
        value: the padding value.
    """

    input: str
    axis: int
    buckets: tuple[int, ...] = ()
    value: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRule:
    """Cutting padding back off an output.

    The output's axis is cut to `ceil(size * unpadded / padded)`, where `size` is what the model returned
    and unpadded / padded are the sizes of the input axis named.

    Attributes:
        output: output name.
        axis: axis in the full shape, batch axis included.
        input: input whose padding decides.
        input_axis: the padded axis of that input.
    """

    output: str
    axis: int
    input: str
    input_axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingOptions:
    """Dynamic batching of one model.

    Attributes:
        enabled: False runs each request alone (rows of one request stay together).
        max_batch_rows: most rows in one run; throughput stops growing somewhere, latency does not.
        max_batch_bytes: most input bytes in one run (a single larger request still runs alone).
        max_delay_s: how long the oldest request may wait for company while an instance is free. 0 takes
            what is there, which is best for closed-loop clients.
        preferred_rows: sizes worth sending before the delay is over, ascending.
        allowed_rows: the only sizes the model may see, ascending; batches are padded up with zero rows.
            The last one bounds `max_batch_rows`.
        pad: padding rules for variable axes.
        cut: how outputs of padded inputs are cut back.
        split_large: a request with more rows than `max_batch_rows` is run in parts and joined, instead
            of refused.
        group_parameters: request parameters that change results; only requests equal in them share a batch,
            which hands them to the model. None: those that the backend settles on, `EVERY_PARAMETER` or none.
        max_queue_rows: rows waiting beyond which requests are refused.
        max_queue_bytes: received bytes waiting beyond which requests are refused.
        max_queue_age_s: refuse new requests while the oldest has waited longer than this; None: no limit.
        priority_levels: number of levels; requests ask for 1 (highest) to this. 0 ignores priorities.
        default_priority: level of a request that asks for none; 0 means the middle one.
        priority_ageing_s: a request that has waited this long counts as one level higher.
        default_timeout_s: time in queue allowed to requests that bring no deadline; None: unbounded.
        allow_timeout_override: whether a client's deadline may be later than `default_timeout_s`; an earlier
            one is always obeyed.
        bisect_failures: find the poison request of a failed batch by running halves.
        bisect_budget: share of compute over the last minute that bisection may add.
    """

    enabled: bool = True
    max_batch_rows: int = 64
    max_batch_bytes: int = 256 * MIB
    max_delay_s: float = 0.0
    preferred_rows: tuple[int, ...] = ()
    allowed_rows: tuple[int, ...] = ()
    pad: tuple[PadRule, ...] = ()
    cut: tuple[CutRule, ...] = ()
    split_large: bool = False
    group_parameters: tuple[str, ...] | None = None
    max_queue_rows: int = 4096
    max_queue_bytes: int = 512 * MIB
    max_queue_age_s: float | None = None
    priority_levels: int = 0
    default_priority: int = 0
    priority_ageing_s: float = 1.0
    default_timeout_s: float | None = None
    allow_timeout_override: bool = True
    bisect_failures: bool = True
    bisect_budget: float = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroup:
    """Instances of a model on one device.

    Attributes:
        device: where; None lets the backend choose (first accelerator it can use, else cpu).
        count: how many batches may run at once there; 0 lets the backend choose.
    """

    device: Device | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPolicy:
    """Which of the versions present are served: explicit numbers, the latest n, or all.

    Attributes:
        latest: highest n numbers; ignored when `specific` or `all` is set.
        specific: exactly these.
        all: every one.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()
    all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Runs made before a version is READY.

    Attributes:
        enabled: False skips warm-up (the first request then pays).
        rows: batch sizes to run; empty: the allowed sizes, else powers of two up to the most rows.
        repeat: runs of each size.
        shapes: sizes for variable axes, input -> full shape; where absent, buckets or 1 (8 for images' sides
            is never guessed: a model that fails on generated input says so and is served).
        data: input -> `zero`, `random`, or a file in the model's `warmup` directory.
        required: a failing warm-up fails the load; always so for declared data, not for generated.
    """

    enabled: bool = True
    rows: tuple[int, ...] = ()
    repeat: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that decides how one model is served; equal specs serve alike.

    Attributes:
        name: public name.
        backend: backend name, `onnxruntime`.
        required: whether the server is ready only with this model.
        lazy: loaded on first use, and unloaded again when its memory is needed; never waited for.
        versions: which versions are served.
        batching: dynamic batching.
        instances: where it runs; empty: one group chosen by the backend.
        warm_up: runs before READY.
        batch_axes: input or output -> its batch axis, None for "no batch axis"; overrides what the file says.
        backend_options: options of the backend, checked by it (threads, providers, graph level, ...).
        labels: output -> class labels in index order, for classification.
        max_batch_size: what ModelConfig reports: `batching.max_batch_rows`, or 0 for a model whose batch
            axis is not implicit (then config dims include every axis).
        declared_config: the model's own `config.pbtxt` as serialised ModelConfig, empty when it has none.
        allow_breaking: whether a version of a registry may serve although requests that are valid for the
            version before it are not, or mean something else, for it.
    """

    name: str
    backend: str = "onnxruntime"
    required: bool = True
    lazy: bool = False
    versions: VersionPolicy = VersionPolicy()
    batching: BatchingOptions = BatchingOptions()
    instances: tuple[InstanceGroup, ...] = ()
    warm_up: WarmUp = WarmUp()
    batch_axes: Mapping[str, int | None] = field(default_factory=dict)
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_batch_size: int | None = None
    declared_config: bytes = b""
    allow_breaking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a backend needs to load one version on one device.

    Attributes:
        spec: the model's settings.
        device: where, None lets the backend choose.
        instances: batches that may run at once there; 0 lets the backend choose.
        number: the version's, for a backend that tells versions apart by it; 0: not known.
    """

    spec: ModelSpec
    device: Device | None = None
    instances: int = 0
    number: int = 0
