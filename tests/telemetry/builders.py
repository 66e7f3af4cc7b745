"""Requests, batches and a catalog for the telemetry tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.errors import GatewayError, NotFound
from gateway.core.events import BatchMember, CloseReason, CompletedBatch
from gateway.core.interfaces import Lease
from gateway.core.options import ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import (
    CPU,
    Device,
    InferRequest,
    ModelSignature,
    VersionId,
    VersionState,
    VersionStatus,
)
from gateway.telemetry.metrics import GatewayMetrics, render_families
from gateway.testing import identity_signature, infer_request

DIGITS = VersionId("digits", 1, "a")


def request(model: str = "digits", **fields: Any) -> InferRequest:
    return infer_request(np.zeros((1, 1), np.float32), model=model, **fields)


def batch(
    requests: Sequence[InferRequest],
    *,
    version: VersionId = DIGITS,
    started_s: float = 1000.0,
    error: GatewayError | None = None,
    bisection: bool = False,
) -> CompletedBatch:
    """A batch of one row per request, each 2 ms in queue; 1, 4 and 2 ms of compute."""
    members = [BatchMember(r, row, 1, queue_ns=2_000_000) for row, r in enumerate(requests)]
    return CompletedBatch(
        version,
        CPU,
        members,
        rows=len(members),
        padded_rows=len(members) + 1,
        inputs=None,
        outputs=None,
        close_reason=CloseReason.FULL,
        started_s=started_s,
        compute_input_ns=1_000_000,
        compute_infer_ns=4_000_000,
        compute_output_ns=2_000_000,
        pad_elements=3,
        elements=12,
        error=error,
        bisection=bisection,
    )


def status(state: VersionState, version: VersionId = DIGITS, **fields: Any) -> VersionStatus:
    return VersionStatus(id=version, state=state, **fields)


@dataclass
class Served:
    id: VersionId = DIGITS
    spec: ModelSpec = field(default_factory=lambda: ModelSpec(name="digits"))
    signature: ModelSignature = field(default_factory=identity_signature)
    platform: str = "fake_platform"
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    devices: Sequence[tuple[Device, int]] = ()
    memory: Sequence[tuple[Device, int]] = ()
    label: str = ""


@dataclass
class Catalog:
    """A ModelCatalog of fixed contents."""

    versions: Sequence[Served] = ()
    statuses: Sequence[VersionStatus] = ()
    ready: bool = True

    def lease(self, model: str, version: str = "") -> Lease:
        raise NotFound(f"{model} {version}")

    def get(self, model: str, version: str = "") -> Served:
        raise NotFound(f"{model} {version}")

    def ready_versions(self, model: str) -> Sequence[int]:
        return [v.id.number for v in self.versions if v.id.model == model]

    def served(self) -> Sequence[Served]:
        return self.versions

    def index(self) -> Sequence[VersionStatus]:
        return self.statuses

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, model: str, version: str = "") -> bool:
        return bool(self.ready_versions(model))


class Samples:
    """The samples of a rendered page, by name and labels."""

    def __init__(self, page: bytes) -> None:
        self.families = list(text_string_to_metric_families(page.decode()))
        samples = [s for family in self.families for s in family.samples]
        self.by_key = {(_name(s.name), frozenset(s.labels.items())): s.value for s in samples}
        assert len(self.by_key) == len(samples), "a page may not hold the same series twice"

    def value(self, name: str, **labels: str) -> float | None:
        return self.by_key.get((name, frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self.by_key}

    def labels(self, name: str) -> Iterable[dict[str, str]]:
        return [dict(labels) for sample, labels in self.by_key if sample == name]


def _name(sample: str) -> str:
    """The parser adds `_total` to every counter; Triton's have none in the page."""
    return sample.removesuffix("_total") if sample.startswith("nv_") else sample


def text_page(metrics: GatewayMetrics) -> bytes:
    """Return the text page, written on the test's own thread."""
    return render_families(list(metrics.registry.collect()), "").body


def samples(metrics: GatewayMetrics) -> Samples:
    return Samples(text_page(metrics))
