"""The `models:` and `defaults:` sections: how each model is served, and their effect on a ModelSpec."""

from __future__ import annotations

import dataclasses
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    ByteSize,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from gateway.config.prediction_log import ModelLogSettings  # noqa: TC001 - pydantic reads it
from gateway.config.rollout_assignment import AssignSettings
from gateway.config.rollout_checks import share_complaints
from gateway.config.rollout_schema import split_spec
from gateway.config.rollout_values import PositivePercent, Share, VersionText  # noqa: TC001 - likewise
from gateway.config.section import Seconds, Section
from gateway.config.triton_settings import TritonModelSettings
from gateway.core.options import (
    BatchingOptions,
    CutRule,
    InstanceGroup,
    ModelSpec,
    PadRule,
    VersionPolicy,
    WarmUp,
)
from gateway.core.types import Device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.rollout import SplitSpec


class PadSettings(Section):
    """Pad one variable axis of an input so that unequal requests can share a batch."""

    input: str
    """Input name."""
    axis: PositiveInt
    """Axis in the full shape, the batch axis (0) included."""
    buckets: tuple[PositiveInt, ...] = ()
    """Sizes to pad up to, ascending; a longer tensor is refused. Empty: pad to the longest of the batch."""
    value: float = 0.0
    """The padding value."""

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        return check_ascending("buckets", buckets)


def check_ascending(name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return `sizes` if they ascend without repeats; a ValueError names them otherwise."""
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"{name} must ascend without repeats, got {list(sizes)}")
    return sizes


class CutSettings(Section):
    """Cut the padding back off an output, in proportion to the padding of an input axis."""

    output: str
    """Output name."""
    axis: PositiveInt
    """Axis of the output, the batch axis included."""
    input: str
    """The padded input."""
    input_axis: PositiveInt
    """The padded axis of that input."""


class BatchingSettings(Section):
    """Dynamic batching of one model."""

    enabled: bool = True
    """False runs each request alone."""
    max_batch_rows: PositiveInt = 64
    """Most rows in one run, at most the last of `allowed_rows`. A `max_batch_size` in the model's own
    config.pbtxt bounds it: a default above that gives way, a model's entry above it is refused."""
    max_batch_bytes: ByteSize = Field(ByteSize(256 << 20), gt=0)
    """Most input bytes in one run; a single larger request still runs, alone."""
    max_delay_s: Seconds = 0.0
    """How long the oldest request may wait for company while an instance is free. 0 takes what is there."""
    preferred_rows: tuple[PositiveInt, ...] = ()
    """Sizes worth sending before the delay is over, ascending."""
    allowed_rows: tuple[PositiveInt, ...] = ()
    """The only sizes the model may see, ascending; batches are padded up with zero rows."""
    pad: tuple[PadSettings, ...] = ()
    """Padding of variable axes."""
    cut: tuple[CutSettings, ...] = ()
    """How outputs of padded inputs are cut back."""
    split_large: bool = False
    """Run a request of more than `max_batch_rows` rows in parts instead of refusing it."""
    group_parameters: tuple[str, ...] | None = None
    """Request parameters that change results: only requests equal in them share a batch, and the model gets
    them.

    `["*"]` is every parameter. By default every one for a model on Triton, which may read any, and none for
    one that runs here."""
    max_queue_rows: PositiveInt = 4096
    """Rows waiting beyond which requests are refused at once."""
    max_queue_bytes: ByteSize = Field(ByteSize(512 << 20), gt=0)
    """Bytes waiting beyond which requests are refused at once."""
    max_queue_age_s: Seconds | None = None
    """Refuse new requests while the oldest has waited longer than this."""
    priority_levels: int = Field(0, ge=0, le=1000)
    """Number of priority levels, 1 the highest; 0 ignores priorities."""
    default_priority: int = Field(0, ge=0)
    """Level of a request that asks for none; 0 is the middle one. Without priority levels it does nothing."""
    priority_ageing_s: Annotated[float, Field(gt=0)] = 1.0
    """A request that has waited this long counts as one level higher, so that none starves."""
    default_timeout_s: Seconds | None = None
    """Time in queue allowed to requests that bring no deadline."""
    allow_timeout_override: bool = True
    """Whether a client's deadline may be later than `default_timeout_s`; an earlier one is always obeyed."""
    bisect_failures: bool = True
    """Find the poison request of a failed batch by running halves, so that it fails alone."""
    bisect_budget: float = Field(0.10, ge=0, le=1)
    """Share of compute over the last minute that this may add."""

    @model_validator(mode="after")
    def _check(self) -> BatchingSettings:
        check_ascending("preferred_rows", self.preferred_rows)
        check_ascending("allowed_rows", self.allowed_rows)
        # Levels that another section gives are looked at when the sections are merged.
        if "priority_levels" in self.model_fields_set and self.default_priority > self.priority_levels:
            raise ValueError(
                f"default_priority {self.default_priority} is beyond priority_levels {self.priority_levels}"
            )
        return self

    def apply(self, options: BatchingOptions) -> BatchingOptions:
        """Return `options` with the fields the file set."""
        changes = self.given()
        for size in ("max_batch_bytes", "max_queue_bytes"):
            if size in changes:
                changes[size] = int(changes[size])
        if self.allowed_rows and "max_batch_rows" not in changes:
            changes["max_batch_rows"] = self.allowed_rows[-1]
        if "pad" in changes:
            changes["pad"] = tuple(PadRule(**rule.model_dump()) for rule in self.pad)
        if "cut" in changes:
            changes["cut"] = tuple(CutRule(**rule.model_dump()) for rule in self.cut)
        return dataclasses.replace(options, **changes)


class InstanceSettings(Section):
    """Instances of the model on one device."""

    device: str | None = Field(None, pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`; unset: the first accelerator that works, else cpu."""
    count: int = Field(0, ge=0)
    """Batches that may run at once there; 0 lets the backend choose."""

    def group(self) -> InstanceGroup:
        """Return the group."""
        if self.device is None:
            return InstanceGroup(count=self.count)
        kind, _, ordinal = self.device.partition(":")
        return InstanceGroup(device=Device(kind, int(ordinal or 0)), count=self.count)


class VersionSettings(Section):
    """Which versions are served; exactly one of the three."""

    latest: PositiveInt | None = None
    """The highest so many numbers."""
    specific: tuple[PositiveInt, ...] | None = None
    """Exactly these."""
    all: Literal[True] | None = None
    """Every one."""

    @model_validator(mode="after")
    def _one(self) -> VersionSettings:
        if len([v for v in (self.latest, self.specific, self.all) if v is not None]) != 1:
            raise ValueError("give exactly one of latest, specific, all")
        return self

    def policy(self) -> VersionPolicy:
        """Return the policy."""
        return VersionPolicy(latest=self.latest or 1, specific=self.specific or (), all=self.all is not None)


class WarmUpSettings(Section):
    """Runs made before a version is ready."""

    enabled: bool = True
    """False skips warm-up."""
    rows: tuple[PositiveInt, ...] = ()
    """Batch sizes to run; empty: the allowed sizes, else powers of two up to the most rows."""
    repeat: PositiveInt = 1
    """Runs of each size."""
    shapes: dict[str, tuple[PositiveInt, ...]] = Field(default_factory=dict)
    """Input -> full shape, for variable axes."""
    data: dict[str, str] = Field(default_factory=dict)
    """Input -> `zero`, `random`, or a file in the model's `warmup` directory."""
    required: bool = False
    """Whether a failing warm-up fails the load; declared data always does."""


class ModelSettings(Section):
    """How models are served; under `defaults:` for all, under `models:` for one."""

    required: bool = True
    """Whether the server is ready only with this model."""
    lazy: bool = False
    """Loaded on first use, and unloaded again when its memory is needed; the server's readiness does not wait
    for it."""
    allow_breaking: bool = False
    """Whether a version from a registry may serve although requests that are valid for the one before it are
    not for it, or mean something else."""
    versions: VersionSettings | None = None
    """Which versions are served; the latest one if not given."""
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    """Dynamic batching."""
    instances: tuple[InstanceSettings, ...] = ()
    """Where it runs; empty: the backend chooses, whatever the defaults or its config.pbtxt say."""
    warm_up: WarmUpSettings = Field(default_factory=WarmUpSettings)
    """Runs before it is ready."""
    batch_axes: dict[str, NonNegativeInt | None] = Field(default_factory=dict)
    """Input or output -> its batch axis, null for none; overrides what the model file says."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Output -> file of class labels, one per line, in the model's directory."""
    onnxruntime: dict[str, Any] = Field(default_factory=dict)
    """Options of the ONNX Runtime backend: providers, intra_op_threads, graph_optimization_level, ..."""

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """Return `spec` with what the file set; labels are read by the source, relative to the model."""
        given = self.given()
        changes: dict[str, Any] = {}
        changes |= {name: given[name] for name in ("required", "lazy", "allow_breaking") if name in given}
        if "versions" in given:
            changes["versions"] = self.versions.policy() if self.versions else VersionPolicy()
        if "batching" in given:
            changes["batching"] = self.batching.apply(spec.batching)
        if "instances" in given:
            changes["instances"] = tuple(i.group() for i in self.instances)
        if "warm_up" in given:
            changes["warm_up"] = _warm_up(spec.warm_up, self.warm_up.given())
        if self.batch_axes:
            changes["batch_axes"] = {**spec.batch_axes, **self.batch_axes}
        if self.onnxruntime:
            changes["backend_options"] = {**spec.backend_options, **self.onnxruntime}
        return dataclasses.replace(spec, **changes)


def _warm_up(warm_up: WarmUp, changes: Mapping[str, Any]) -> WarmUp:
    return dataclasses.replace(warm_up, **changes)


class NamedModelSettings(ModelSettings):
    """One model of the `models:` list."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")
    """Public name."""
    path: Path | None = None
    """An .onnx file, or a directory of numbered versions; relative to the configuration file. Without it and
    without `source`: the model of this name in the repository."""
    source: str | None = None
    """A model of a registry: `mlflow://NAME@ALIAS`, `mlflow://NAME/VERSION`, `s3://bucket/prefix/NAME`
    (likewise gs, az, https), or a directory. After an `@` an alias, a version, `1.x`, `latest` or `all`;
    without it `versions` decides."""
    registry: str | None = None
    """Which of `registries` the source is of, where several would do."""
    backend: Literal["onnxruntime", "triton"] | None = None
    """What runs it: ONNX Runtime in this process, or a fleet of Triton servers. Unset: `triton` where the
    entry has a `triton`, else as the model's config.pbtxt says, else `onnxruntime`."""
    triton: TritonModelSettings | None = None
    """Which fleet and which of its models; without a `source` the versions are those that are READY there."""
    digest: str | None = Field(None, pattern=r"^(sha256:)?[0-9a-f]{64}$")
    """Content digest that the source's files must have, as `gateway models show` tells it."""
    split: dict[VersionText, Share] = Field(default_factory=dict, max_length=64)
    """Version -> per cent of the requests that name none, 100 in all: `{1: 90, 2: 10}`. Unset: the version
    that serves gets them."""
    shadow: dict[VersionText, PositivePercent] = Field(default_factory=dict, max_length=8)
    """Version -> share of the requests mirrored to it, whose answers nobody sees: `{3: 20%}`."""
    assign: AssignSettings | None = None
    """Who gets which version of `split`; unset: by the request's id, which is not sticky."""
    prediction_log: ModelLogSettings | None = None
    """What is logged of its predictions, where that is not as in `prediction_log.defaults`."""

    @model_validator(mode="after")
    def _one_place(self) -> NamedModelSettings:
        if self.path is not None and self.source is not None:
            raise ValueError("give either path or source")
        if self.source is None and (extra := [n for n in ("registry", "digest") if getattr(self, n)]):
            raise ValueError(f"{extra[0]} needs a source")
        if self.triton is not None and self.backend == "onnxruntime":
            raise ValueError("triton needs backend 'triton'")
        if self.on_fleet is not None:
            self._check_remote()
        return self

    @property
    def on_fleet(self) -> TritonModelSettings | None:
        """Where on a fleet it runs; None for a model of this process."""
        if self.triton is None and self.backend == "triton":
            return TritonModelSettings()
        return self.triton

    def _check_remote(self) -> None:
        """Refuse what only a model of this process can have."""
        if self.path is not None:
            raise ValueError(
                "a model of backend 'triton' has no path: its versions are those of its fleet, or of a source"
            )
        for name in ("onnxruntime", "instances", "batch_axes", "labels"):
            if getattr(self, name):
                raise ValueError(f"{name} says nothing of a model of backend 'triton'")

    @model_validator(mode="after")
    def _shares(self) -> NamedModelSettings:
        if self.assign is not None and not self.split:
            raise ValueError("assign needs a split")
        for at, text in share_complaints(self.split, self.shadow, ()):
            raise ValueError(f"{'.'.join(map(str, at))}: {text}")
        return self

    def split_spec(self) -> SplitSpec | None:
        """Return how requests are split among versions and mirrored; None where the entry says nothing."""
        if not self.split and not self.shadow:
            return None
        return split_spec(self.name, self.split, self.shadow, self.assign or AssignSettings())
