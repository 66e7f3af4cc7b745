"""What the protocol's methods work on, in one record that the composition root fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.api.decoding import DecodePool
from gateway.api.readiness import ReadinessNotifier
from gateway.api.server_metadata import ServerMetadata, installed_metadata
from gateway.api.settings import InMemoryLogSettings, InMemoryTraceSettings
from gateway.core.clock import Clock, LoopClock
from gateway.protocol.limits import ProtocolLimits
from gateway.protocol.status import StatusProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.cold import ColdStarts
    from gateway.api.readiness import ReadinessFeed
    from gateway.api.settings import LogSettings, TraceSettings
    from gateway.core.interfaces import InferenceService, ModelCatalog, RepositoryControl
    from gateway.core.types import InferRequest


def _unheard(_request: InferRequest, _error: Exception) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """Parts behind the protocol's methods.

    Attributes:
        service: takes the requests; the top of the request stack.
        catalog: what is served.
        repository: loads and unloads on a client's wish.
        readiness: says when readiness may have changed, and that the server is going.
        clock: monotonic time, the same that transports stamp arrivals with.
        metadata: name, version, extensions.
        trace_settings: tracing's settings.
        log_settings: logging's settings.
        limits: what the codecs refuse.
        profile: which codes overload and expiry are answered with.
        refused: told of each infer request that is refused before the service sees it: as much of the
            request as is known (never its inputs), and the error.
        decode_pool: decodes large bodies; whoever makes the context closes it.
        cold_starts: where requests wait for models that are loaded on first use; None: nowhere.
        max_stream_inflight: requests of one ModelStreamInfer stream that may be unanswered at once, 1 or
            more; beyond it the stream is not read, so that the client feels it. More helps only clients
            that fill batches through one stream.
    """

    service: InferenceService
    catalog: ModelCatalog
    repository: RepositoryControl
    readiness: ReadinessFeed = field(default_factory=ReadinessNotifier)
    clock: Clock = field(default_factory=LoopClock)
    metadata: ServerMetadata = field(default_factory=installed_metadata)
    trace_settings: TraceSettings = field(default_factory=InMemoryTraceSettings)
    log_settings: LogSettings = field(default_factory=InMemoryLogSettings)
    limits: ProtocolLimits = field(default_factory=ProtocolLimits)
    profile: StatusProfile = StatusProfile.DEFAULT
    refused: Callable[[InferRequest, Exception], None] = _unheard
    decode_pool: DecodePool = field(default_factory=DecodePool)
    cold_starts: ColdStarts | None = None
    max_stream_inflight: int = 256
