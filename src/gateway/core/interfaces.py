"""The seams: small protocols that the parts are joined by. Each has a contract test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from gateway.core.errors import GatewayError
    from gateway.core.events import CompletedBatch
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.pending import Pending
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import (
        Artifact,
        Batch,
        BatchResult,
        Device,
        InferRequest,
        InferResponse,
        ModelSignature,
        VersionId,
        VersionStatus,
    )


class InferenceService(Protocol):
    """Takes requests. Front ends call it; layers, router and batcher implement it."""

    def submit(self, request: InferRequest) -> Pending:
        """Admit a request. Synchronous; never waits; completion comes after this has returned.

        Raises:
            GatewayError: refused, from local state alone (full, unknown model, not ready, invalid).
        """

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer with any number of responses, in order; the last has `final` set.

        A model that is not decoupled gives one. Closing the iterator cancels the request.

        Raises:
            GatewayError: from the first or any later step of the iteration.
        """


Layer: TypeAlias = "Callable[[InferenceService], InferenceService]"


class LoadedModel(Protocol):
    """A model version ready to run on one device.

    Attributes:
        signature: what it takes and gives.
        device: where it runs.
        memory_bytes: what it holds here, measured or estimated.
        overlaps: its runs leave the event loop a processor of its own.
    """

    signature: ModelSignature
    device: Device
    memory_bytes: int
    overlaps: bool

    @property
    def instances(self) -> int:
        """How many `infer` calls may be under way at once, at least 1; of a remote model it may change."""

    @property
    def remote(self) -> bool:
        """Whether it runs in another server, which is told the deadlines and traces of requests."""

    async def infer(self, batch: Batch) -> BatchResult:
        """Run one batch off the event loop.

        Cancelling the caller does not stop a native run; the arrays of `batch` stay in use until it has
        returned.

        Raises:
            BackendError: the run failed, perhaps because of one of its rows.
            BackendUnavailable: the backend as a whole failed; no row is to blame.
        """

    def let_run(self, most_s: float) -> None:
        """Block the calling thread until a run that is under way has ended, for at most so many seconds.

        For a model that does not overlap; others return at once.
        """

    def stream(self, batch: Batch) -> AsyncIterator[BatchResult]:
        """Run one request of a decoupled model; a plain model gives its one result.

        Raises:
            BackendError: as `infer`.
        """

    async def aclose(self) -> None:
        """Free everything, off the event loop. Called once, after the last `infer` has returned."""


@runtime_checkable
class SettledModel(Protocol):
    """A LoadedModel whose server says how it is to be fed, and what it is.

    Attributes:
        platform: what ModelMetadata reports, in place of the backend's.
    """

    platform: str

    def settled(self, spec: ModelSpec) -> ModelSpec:
        """Return `spec` as far as the server allows it: batches no larger than it takes, say.

        Raises:
            ModelLoadError: the two contradict each other.
        """


class Backend(Protocol):
    """Loads model versions."""

    name: str
    platform: str
    """What ModelMetadata reports, `onnxruntime_onnx` for example."""

    async def load(self, artifact: Artifact, options: LoadOptions) -> LoadedModel:
        """Load one version on one device without stalling the event loop; no warm-up.

        Raises:
            ModelLoadError: with the failing step and the reason.
        """


class BatchObserver(Protocol):
    """Told of every batch at completion, on the event loop, after its members were answered.

    Neither method suspends, blocks or raises.
    """

    def on_batch(self, batch: CompletedBatch) -> None:
        """Take note of one finished (or failed) batch."""

    def on_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        """Take note of a request that never formed a batch: refused, expired or cancelled in queue."""


class PredictionSink(Protocol):
    """Takes prediction logs at batch completion; neither method suspends or blocks."""

    def offer_nowait(self, batch: CompletedBatch) -> bool:
        """Offer a batch; False when it was dropped (and counted)."""

    def offer_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        """Record a request that never formed a batch."""


class ServedVersion(Protocol):
    """What the protocol's methods may ask about one version that is READY.

    Attributes:
        id: the version.
        spec: how it is served.
        signature: what it takes and gives.
        platform: as its backend reports it.
        statistics: live counters.
        devices: where it runs, with the instances on each.
        label: its name in the registry it comes from, `1.4.2`; empty for a version of a local repository.
    """

    id: VersionId
    label: str
    spec: ModelSpec
    signature: ModelSignature
    platform: str
    statistics: VersionStatistics
    devices: Sequence[tuple[Device, int]]

    @property
    def memory(self) -> Sequence[tuple[Device, int]]:
        """Bytes it holds on each device, measured or estimated; without devices that nothing is known of."""


class Lease(Protocol):
    """Keeps one version loaded while it is held. Release exactly once; a second release is an error."""

    version: ServedVersion

    def submit(self, request: InferRequest) -> Pending:
        """Hand a request to this version's batcher; as `InferenceService.submit`."""

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """As `InferenceService.stream`."""

    def release(self) -> None:
        """Give the version back; it unloads when retired and no lease is left."""


class ModelCatalog(Protocol):
    """What is served now. Every method reads local state only and never waits."""

    def lease(self, model: str, version: str = "") -> Lease:
        """Take a lease on a READY version; the highest READY number when `version` is empty.

        Raises:
            NotFound: no such model or version is known.
            NotReady: known, not READY.
            InvalidRequest: `version` is not a positive integer.
        """

    def get(self, model: str, version: str = "") -> ServedVersion:
        """Look at a READY version without a lease; raises as `lease`."""

    def ready_versions(self, model: str) -> Sequence[int]:
        """Return the READY numbers of a model, ascending.

        Raises:
            NotFound: the model is not known.
        """

    def served(self) -> Sequence[ServedVersion]:
        """Return every READY version, by name and number."""

    def index(self) -> Sequence[VersionStatus]:
        """Return every known version in any state; a model without one appears with number 0."""

    def is_ready(self) -> bool:
        """Whether every required model is READY and the server is not draining."""

    def is_model_ready(self, model: str, version: str = "") -> bool:
        """Whether that version (or any, when empty) is READY.

        Raises:
            NotFound: no such model is known.
        """


class RepositoryControl(Protocol):
    """Loading and unloading on a client's wish, where the repository mode allows it."""

    async def load(self, model: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model; returns when it is READY. What served before goes on until then.

        Args:
            model: name in the repository.
            config: JSON ModelConfig that replaces the model's own, or empty.
            files: path -> bytes that replace the model's files; needs `config`.

        Raises:
            Unavailable: the repository mode does not allow it.
            ModelLoadError: with the reason; the old version goes on serving. Its cause is a
                BackendUnavailable or OSError where that, not the model, is why.
            NotFound: no such model in the repository.
        """

    async def unload(self, model: str) -> None:
        """Unload every version of a model; returns when no request uses it.

        Raises:
            Unavailable: the repository mode does not allow it.
            NotFound: no such model is known.
        """


class WantedVersion(Protocol):
    """One version a source wants served."""

    id: VersionId
    artifact: Artifact
    spec: ModelSpec


class ModelSource(Protocol):
    """Says which versions it wants served. Keeps no state: each snapshot is the complete set."""

    name: str

    async def snapshot(self) -> Sequence[WantedVersion]:
        """Return the complete set now; leaving a version out withdraws the claim on it.

        Raises:
            ConfigError: the source could not be read; the last set stays in force.
        """

    def watch(self) -> AsyncIterator[Sequence[WantedVersion]]:
        """Give a snapshot whenever the set may have changed."""


class VersionBatcher(Protocol):
    """The batcher of one model version on one device."""

    @property
    def queued_rows(self) -> int:
        """Rows waiting now."""

    @property
    def queued_requests(self) -> int:
        """Requests waiting now."""

    @property
    def running_rows(self) -> int:
        """Rows the backend is running now."""

    def submit(self, request: InferRequest) -> Pending:
        """As `InferenceService.submit`; the request has been checked against the signature."""

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """As `InferenceService.stream`, likewise."""

    async def aclose(self) -> None:
        """Stop. Called when no lease is left, so nothing waits; whatever still does fails with Draining."""


BatcherFactory: TypeAlias = "Callable[[VersionId, LoadedModel, ModelSpec, VersionStatistics], VersionBatcher]"


class LifecycleObserver(Protocol):
    """Told of every change of a version's state, on the event loop; never suspends, blocks or raises."""

    def on_transition(self, status: VersionStatus) -> None:
        """Take note that a version has entered `status.state`."""

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take note that loading and warming took `seconds` in total."""


@runtime_checkable
class FetchObserver(Protocol):
    """A LifecycleObserver that wants to know as well how far the files of versions are."""

    def on_progress(self, status: VersionStatus) -> None:
        """Take note of `done_bytes` and `total_bytes`, some times a second; as a LifecycleObserver."""
