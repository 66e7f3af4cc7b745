"""A catalogue with fixed contents, for what the serve command prints."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.errors import NotFound
from gateway.core.interfaces import Lease
from gateway.core.options import ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import (
    CPU,
    Datatype,
    Device,
    ModelSignature,
    TensorSpec,
    VersionId,
    VersionState,
    VersionStatus,
)

PIXELS = TensorSpec("pixels", Datatype.FP32, (-1, 4))
SIGNATURE = ModelSignature((PIXELS,), (TensorSpec("y", Datatype.FP32, (-1, 2)),))


@dataclass
class FixedVersion:
    """A `ServedVersion`."""

    id: VersionId
    signature: ModelSignature = SIGNATURE
    spec: ModelSpec = field(default_factory=lambda: ModelSpec(name="m"))
    platform: str = "onnxruntime_onnx"
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    devices: Sequence[tuple[Device, int]] = ((CPU, 1),)
    memory: Sequence[tuple[Device, int]] = ()
    label: str = ""


def status(
    model: str, number: int, state: VersionState = VersionState.READY, reason: str = ""
) -> VersionStatus:
    """Return a row of the index."""
    return VersionStatus(id=VersionId(model, number, f"{model}{number}"), state=state, reason=reason)


@dataclass
class FixedCatalog:
    """A `ModelCatalog` whose READY rows are served with one signature; ready unless a row has failed."""

    rows: Sequence[VersionStatus] = ()
    signature: ModelSignature = SIGNATURE

    def lease(self, model: str, version: str = "") -> Lease:
        raise NotFound(model + version)

    def get(self, model: str, version: str = "") -> FixedVersion:
        raise NotFound(model + version)

    def ready_versions(self, model: str) -> Sequence[int]:
        return sorted(v.id.number for v in self.served() if v.id.model == model)

    def served(self) -> Sequence[FixedVersion]:
        ready = [s.id for s in self.rows if s.state is VersionState.READY]
        return [FixedVersion(id_, self.signature, ModelSpec(name=id_.model)) for id_ in ready]

    def index(self) -> Sequence[VersionStatus]:
        return self.rows

    def is_ready(self) -> bool:
        return all(s.state is VersionState.READY for s in self.rows)

    def is_model_ready(self, model: str, version: str = "") -> bool:
        return bool(self.ready_versions(model))
