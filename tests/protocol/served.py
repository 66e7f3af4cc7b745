"""A served version made of plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.options import ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import CPU, Datatype, Device, ModelSignature, TensorSpec, VersionId

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNATURE = ModelSignature(
    inputs=(
        TensorSpec("x", Datatype.FP32, (-1, 3)),
        TensorSpec("words", Datatype.BYTES, (-1, -1), optional=True),
    ),
    outputs=(TensorSpec("scores", Datatype.FP32, (-1, 4)), TensorSpec("best", Datatype.INT64, (-1,))),
)


@dataclass
class Served:
    id: VersionId = field(default=VersionId("m", 3, "d"))
    spec: ModelSpec = field(default_factory=lambda: ModelSpec(name="m"))
    signature: ModelSignature = SIGNATURE
    platform: str = "onnxruntime_onnx"
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    devices: Sequence[tuple[Device, int]] = ((CPU, 2),)
    memory: Sequence[tuple[Device, int]] = ()
    label: str = ""
