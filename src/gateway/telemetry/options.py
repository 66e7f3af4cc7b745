"""What an operator chooses about logs and traces, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

LogFormat: TypeAlias = Literal["auto", "json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Structured logs.

    Attributes:
        format: `auto` is `console` on a terminal and `json` otherwise.
        level: least level written at start; clients may change it through the protocol's log settings.
        access: one line per request. About 20 us of the event loop each: leave it off at high rates.
        max_queued_records: records waiting to be written; more are dropped and counted, so that a log
            reader that stalls never stalls the server.
    """

    format: LogFormat = "auto"
    level: LogLevel = "info"
    access: bool = False
    max_queued_records: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """OpenTelemetry traces over OTLP/HTTP.

    Attributes:
        endpoint: the collector's URL, path included (`http://127.0.0.1:4318/v1/traces`); None: no traces.
        sample_ratio: share, 0 to 1, of requests without a trace context that are traced. A caller's
            sampled flag is followed both ways whatever this says.
        service_name: resource attribute `service.name`.
        service_version: resource attribute `service.version`.
        max_queued_spans: spans waiting for export; more are dropped by the SDK.
        export_interval_s: longest wait before a partial batch of spans is exported.
        export_timeout_s: time one export may take; also bounds the flush at shutdown.
    """

    endpoint: str | None = None
    sample_ratio: float = 0.0
    service_name: str = "model-gateway"
    service_version: str = ""
    max_queued_spans: int = 2048
    export_interval_s: float = 5.0
    export_timeout_s: float = 10.0
