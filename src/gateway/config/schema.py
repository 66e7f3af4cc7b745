"""The configuration file's schema, and reading a file into it with complaints that name file and line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.config.complaints import complaints
from gateway.config.merging import merged
from gateway.config.model_settings import ModelSettings, NamedModelSettings
from gateway.config.prediction_log import PredictionLogSettings  # noqa: TC001 - pydantic reads it
from gateway.config.registry_settings import CacheSettings, MemorySettings, RegistrySettings
from gateway.config.rollout_settings import RolloutSettings
from gateway.config.section import PositiveSeconds, Seconds, Section
from gateway.config.triton_settings import FleetSettings, check_fleets, fleet_of
from gateway.config.yaml_file import read_yaml
from gateway.core.errors import ConfigError, ModelLoadError
from gateway.core.options import ModelSpec

if TYPE_CHECKING:
    from gateway.config.yaml_file import YamlFile

MIB = 1 << 20


class PortSettings(Section):
    """TCP ports; 0 picks a free one."""

    http: int = Field(8000, ge=0, le=65535)
    """Inference over HTTP."""
    grpc: int = Field(8001, ge=0, le=65535)
    """Inference over gRPC."""
    metrics: int = Field(8002, ge=0, le=65535)
    """Prometheus metrics."""
    admin: int = Field(8003, ge=0, le=65535)
    """Administration."""


class TlsSettings(Section):
    """Transport security of one listener; paths relative to the configuration file."""

    cert_file: Path
    """Certificate chain, PEM."""
    key_file: Path
    """Private key, PEM."""
    client_ca_file: Path | None = None
    """CA that must have signed client certificates; unset: clients need none."""


class CorsSettings(Section):
    """Cross-origin requests of web applications; off while no origin is listed."""

    allow_origins: tuple[str, ...] = ()
    """Origins allowed, `https://app.example`; `*` allows all."""
    allow_headers: tuple[str, ...] = (
        "Content-Type",
        "Content-Encoding",
        "Inference-Header-Content-Length",
        "X-Request-Timeout-Ms",
        "X-Server-Timing",
        "traceparent",
        "tracestate",
    )
    """Request headers a page may send."""
    max_age_s: int = Field(600, ge=0)
    """How long a browser may keep the answer."""


class HttpSettings(Section):
    """The HTTP listener for inference; the metrics and administration listeners share its limits."""

    tls: TlsSettings | None = None
    """Serve HTTPS."""
    cors: CorsSettings = Field(default_factory=CorsSettings)
    """Cross-origin requests."""
    max_connections: PositiveInt = 2048
    """Connections beyond this are answered 503 and closed; stay below the process's file limit."""
    max_headers: PositiveInt = 100
    """Header lines of one request."""
    max_header_bytes: ByteSize = Field(ByteSize(32 << 10), gt=0)
    """Header names and values together."""
    max_url_bytes: ByteSize = Field(ByteSize(8 << 10), gt=0)
    """Path and query of one request."""
    max_body_chunks: PositiveInt = 65_536
    """Chunks of one chunked body."""
    max_buffered_bytes: ByteSize = Field(ByteSize(1024 * MIB), gt=0)
    """Bodies held by all requests together; 503 beyond. The listeners count apart."""
    max_pipelined: PositiveInt = 64
    """Requests that one connection may send ahead of their answers; it is closed beyond."""
    keep_alive_timeout_s: PositiveInt = 75
    """An idle connection is closed after so many whole seconds; keep it above any proxy's in front."""
    header_timeout_s: PositiveSeconds = 10.0
    """Time for a request's headers."""
    body_timeout_s: PositiveSeconds = 30.0
    """Time a body may take beyond what `min_body_rate` allows it."""
    min_body_rate: ByteSize = Field(ByteSize(8 << 10), gt=0)
    """Bytes per second that an upload must keep up."""
    send_timeout_s: PositiveSeconds = 60.0
    """Time in which a client must have read something of its answer, whose memory it holds meanwhile."""
    linger_s: Seconds = 2.0
    """Time for which the rest of a refused upload is read and dropped, so that its client sees the answer."""
    compression_min_bytes: ByteSize | None = ByteSize(1024)
    """Smallest JSON response that is compressed for clients that accept it; null never compresses."""
    compress_tensors: bool = False
    """Compress binary tensor responses too; costs far more CPU than it saves on a fast network."""


class Http2Settings(Section):
    """What one client of the native gRPC transport may cost; `grpcio` has limits of its own instead."""

    connection_window_bytes: ByteSize = Field(ByteSize(64 * MIB), ge=65_535, lt=1 << 31)
    """Request bytes that one connection may have sent and nobody has used yet."""
    stream_window_bytes: ByteSize = Field(ByteSize(64 * MIB), ge=65_535, lt=1 << 31)
    """The same for one call."""
    max_frame_bytes: ByteSize = Field(ByteSize(16 << 10), ge=16_384, lt=1 << 24)
    """Largest HTTP/2 frame taken."""
    max_header_block_bytes: ByteSize = Field(ByteSize(64 << 10), gt=0)
    """One header block as sent, in all its frames."""
    max_continuations: PositiveInt = 256
    """CONTINUATION frames of one header block."""
    max_buffered_bytes: ByteSize = Field(ByteSize(1024 * MIB), gt=0)
    """Bytes of messages that have not arrived whole or are not read yet, of all calls together;
    RESOURCE_EXHAUSTED beyond."""
    max_unsent_bytes: ByteSize = Field(ByteSize(64 * MIB), gt=0)
    """Response bytes waiting for one connection to read them; the call is reset beyond. One response of any
    size is always taken."""
    max_resets: PositiveInt = 1000
    """Calls that one connection may break off, or have broken off by its own mistakes, per
    `abuse_interval_s`; the connection is closed beyond."""
    max_control_frames: PositiveInt = 10_000
    """Frames without use (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA) that one connection may send
    per `abuse_interval_s`, beyond four for each call and each DATA frame it is sent."""
    abuse_interval_s: PositiveSeconds = 10.0
    """Time for which the two count."""
    preface_timeout_s: PositiveSeconds = 10.0
    """Time in which a connection must have said that it speaks HTTP/2."""
    header_timeout_s: PositiveSeconds = 10.0
    """Time for a header block, or any frame but DATA, to arrive."""
    body_timeout_s: PositiveSeconds = 30.0
    """Time a request message may take beyond what `min_body_rate` allows it."""
    min_body_rate: ByteSize = Field(ByteSize(8 << 10), gt=0)
    """Bytes per second that an upload must keep up."""
    send_timeout_s: PositiveSeconds = 60.0
    """Time in which a client must have read something of its answer, whose memory it holds meanwhile."""
    linger_s: Seconds = 2.0
    """Time for which the input of a connection that broke a rule is dropped, so that its client sees why."""
    memo_bytes_per_connection: ByteSize = ByteSize(16 << 10)
    """Header blocks remembered for one connection, to be recognised again."""
    memo_bytes: ByteSize = ByteSize(32 * MIB)
    """Header blocks remembered for all connections together."""


class GrpcSettings(Section):
    """The gRPC listener."""

    transport: Literal["native", "grpcio"] = "native"
    """What speaks gRPC: `native`, the gateway's own HTTP/2, which costs a small fraction of the CPU time, or
    `grpcio`, gRPC's C library."""
    http2: Http2Settings = Field(default_factory=Http2Settings)
    """Limits of the transport `native`."""
    tls: TlsSettings | None = None
    """Serve gRPC over TLS."""
    max_connections: PositiveInt | None = None
    """Connections beyond this are closed at once; unset: no limit. With `grpcio` leave it unset: that library
    was seen not to take new connections again after some had ended. With `native` stay below the process's
    file limit."""
    max_concurrent_rpcs: PositiveInt = 4096
    """Calls and streams open at once on the whole server; RESOURCE_EXHAUSTED beyond. `native` also counts
    calls whose client has gone while their work goes on, and bounds messages that are still coming in by
    `http2.max_buffered_bytes`. With `grpcio` no limit in bytes counts these (it offers none): together they
    may hold `limits.max_body_bytes` for each of these calls, so before clients that are not trusted choose
    both so that the product fits the memory."""
    max_concurrent_streams: PositiveInt = 128
    """Calls open at once on one connection; further ones wait in the client."""
    max_send_bytes: ByteSize | None = Field(None, gt=0)
    """Largest response message; unset: the protocol's 2 GiB."""
    max_metadata_bytes: ByteSize = Field(ByteSize(16 << 10), gt=0)
    """Request metadata."""
    accept_compression: bool = True
    """Whether compressed requests are taken; inflating stops at `limits.max_body_bytes`."""
    response_compression: Literal["none", "deflate", "gzip"] = "none"
    """How responses are compressed for clients that accept it."""
    keepalive_time_s: PositiveSeconds = 7200.0
    """Idle time after which the server pings."""
    keepalive_timeout_s: PositiveSeconds = 20.0
    """Time a client has to answer a ping."""
    min_ping_interval_s: PositiveSeconds = 10.0
    """A client that pings more often while nothing is sent to it is cut off."""
    max_connection_idle_s: PositiveSeconds | None = None
    """Connections without calls are closed after this; unset: never."""
    max_connection_age_s: PositiveSeconds | None = None
    """Connections are closed politely after this, so that clients spread again; unset: never."""
    max_connection_age_grace_s: PositiveSeconds | None = None
    """Time that calls then have to finish; unset: any. With the age it also ends uploads that never end."""
    max_stream_inflight: PositiveInt = 256
    """Requests of one ModelStreamInfer stream that may be under way."""


class LimitSettings(Section):
    """What one request may be; beyond it a clear error, before memory is taken."""

    max_body_bytes: ByteSize = Field(ByteSize(64 * MIB), gt=0)
    """HTTP body, and gRPC message, as received and after decompression."""
    max_decompression_ratio: PositiveInt = 250
    """Decompressed bytes per compressed byte, beyond the first MiB."""
    max_json_depth: int = Field(100, ge=3, le=1000)
    """Nesting of JSON."""
    max_tensor_elements: PositiveInt = 1 << 27
    """Elements of one tensor."""
    max_bytes_elements: PositiveInt = 1 << 20
    """Elements of one BYTES tensor: each becomes an object, many times the size of a short text."""
    max_rank: int = Field(32, ge=1, le=64)
    """Axes of one tensor; NumPy has room for 64."""
    max_inputs: PositiveInt = 256
    """Inputs of one request."""
    max_outputs: PositiveInt = 256
    """Outputs one request may ask for."""
    max_parameters: PositiveInt = 128
    """Parameters of a request, an input or an output."""
    max_name_bytes: ByteSize = Field(ByteSize(1024), gt=0)
    """A name, a version, a request id or a parameter's key."""
    max_parameter_bytes: ByteSize = Field(ByteSize(64 << 10), gt=0)
    """Text of one parameter."""


class AdmissionSettings(Section):
    """What the whole server may have under way."""

    max_inflight_requests: PositiveInt = 16_384
    """Requests admitted and not answered."""
    max_inflight_bytes: ByteSize = Field(ByteSize(2048 * MIB), gt=0)
    """Received bytes that they keep in memory."""
    max_deadline_s: Seconds | None = None
    """Longest time in queue that a client may ask for; unset: any."""


class ShutdownSettings(Section):
    """What SIGTERM does."""

    lame_duck_s: Seconds = 0.0
    """Health says NOT_SERVING, work is still taken: time for load balancers to notice."""
    grace_s: Seconds = 30.0
    """Time for accepted work to finish after that."""


class ServerSettings(Section):
    """Listeners, limits and shutdown."""

    host: str = "127.0.0.1"
    """Address that HTTP, gRPC and metrics bind; `0.0.0.0` opens every interface."""
    admin_host: str = "127.0.0.1"
    """Address that administration binds: opening `host` opens nothing that can change the server."""
    ports: PortSettings = Field(default_factory=PortSettings)
    """TCP ports."""
    http: HttpSettings = Field(default_factory=HttpSettings)
    """HTTP."""
    grpc: GrpcSettings = Field(default_factory=GrpcSettings)
    """gRPC."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    """Size limits of a request."""
    admission: AdmissionSettings = Field(default_factory=AdmissionSettings)
    """Limits over all requests."""
    shutdown: ShutdownSettings = Field(default_factory=ShutdownSettings)
    """Shutdown."""
    load_concurrency: PositiveInt = 2
    """Versions loading or warming at once; where one keeps a device busy, more of them finish no sooner."""
    overload_status: Literal["standard", "triton"] = "standard"
    """`standard`: queue full is RESOURCE_EXHAUSTED / 429, expired is DEADLINE_EXCEEDED / 504. `triton`: both
    are UNAVAILABLE / 503."""


class RepositorySettings(Section):
    """A model repository in Triton's layout: `name/1/model.onnx`, `config.pbtxt` optional."""

    path: Path
    """Its directory, relative to the configuration file."""
    mode: Literal["none", "explicit", "poll"] = "none"
    """`none`: everything at start. `explicit`: what clients load. `poll`: follows changes."""
    load_at_start: tuple[str, ...] = ()
    """In mode `explicit`, models to load at start; `*` is all."""
    poll_interval_s: PositiveSeconds = 15.0
    """In mode `poll`, looks at the directory at least this often; changes are noticed sooner by inotify."""
    settle_s: PositiveSeconds = 0.5
    """A version is taken once its files have been at rest so long; longer than any pause in writing them."""

    @model_validator(mode="after")
    def _explicit_start(self) -> RepositorySettings:
        if self.load_at_start and self.mode != "explicit":
            raise ValueError(f"load_at_start needs mode 'explicit'; mode '{self.mode}' loads everything")
        return self


class LogSettings(Section):
    """Structured logs on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON otherwise."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level written."""
    access: bool = False
    """One line per request; never payloads."""


class TracingSettings(Section):
    """OpenTelemetry traces over OTLP/HTTP (extra `otlp`); off without an endpoint."""

    endpoint: str | None = None
    """Collector, `http://127.0.0.1:4318/v1/traces`."""
    sample_ratio: float = Field(0.0, ge=0, le=1)
    """Share of requests traced that bring no trace context; callers' sampled flag is honoured."""
    service_name: str = "model-gateway"
    """Resource attribute service.name."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            url = urlsplit(endpoint)  # its ValueErrors are complaints as well, those of `port` too
            if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0:
                raise ValueError(f"expected a URL such as http://127.0.0.1:4318/v1/traces, got '{endpoint}'")
        return endpoint


class TelemetrySettings(Section):
    """Logs and traces."""

    log: LogSettings = Field(default_factory=LogSettings)
    """Logs."""
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    """Traces."""


class GatewayConfig(Section):
    """The whole file."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    """Listeners, limits and shutdown."""
    repository: RepositorySettings | None = None
    """A repository of models."""
    registries: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")], RegistrySettings] = Field(
        default_factory=dict
    )
    """Registries that models name as their `source`, under names of your own."""
    cache: CacheSettings = Field(default_factory=CacheSettings)
    """Files fetched from registries."""
    triton: tuple[FleetSettings, ...] = ()
    """Fleets of Triton servers."""
    memory: MemorySettings = Field(default_factory=MemorySettings)
    """What models may hold."""
    defaults: ModelSettings = Field(default_factory=ModelSettings)
    """How models are served unless their own entry says otherwise."""
    models: tuple[NamedModelSettings, ...] = ()
    """Models by name."""
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings)
    """Canary and shadow rollouts from files."""
    prediction_log: PredictionLogSettings | None = None
    """Every prediction logged to a monitor or a store; off without this section."""
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    """Logs and traces."""

    @model_validator(mode="after")
    def _check(self) -> GatewayConfig:
        names = [m.name for m in self.models]
        if repeated := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"models named twice: {sorted(repeated)}")
        loose = [m.name for m in self.models if not (m.path or m.source or m.on_fleet)]
        if self.repository is None and loose:
            raise ValueError(
                f"models {loose} have no path and no source, and there is no repository to find them in"
            )
        for model in self.models:
            if model.registry is not None and model.registry not in self.registries:
                known = f"there are {sorted(self.registries)}" if self.registries else "there is none"
                raise ValueError(
                    f"model '{model.name}': no registry '{model.registry}' under registries, {known}"
                )
            _check_merged(self.defaults, model)
        self._check_fleets()
        if self.prediction_log is not None:
            self.prediction_log.check_entries({m.name: m.prediction_log for m in self.models})
        elif logged := [m.name for m in self.models if m.prediction_log is not None]:
            raise ValueError(f"models {logged} have a prediction_log, and there is no such section")
        return self

    def _check_fleets(self) -> None:
        check_fleets(self.triton)
        for model in self.models:
            if (settings := model.on_fleet) is None:
                continue
            fleet = fleet_of(model.name, settings, self.triton)
            if model.source is not None and fleet.repository is None:
                raise ValueError(
                    f"model '{model.name}' has a source: fleet '{fleet.name}' needs a repository for it"
                )


def _check_merged(defaults: ModelSettings, model: NamedModelSettings) -> None:
    """Refuse what no config.pbtxt could put right: fields that the configuration sets win over its."""
    try:
        merged(ModelSpec(name=model.name), defaults, model)
    except ModelLoadError as error:
        raise ValueError(f"model '{model.name}': {error}") from error


def load_config(path: Path) -> GatewayConfig:
    """Read and check a configuration file; relative paths in it become relative to its directory.

    Raises:
        ConfigError: every complaint, one per line, as `file:line: key: what is wrong`.
    """
    return anchored(check_config(read_yaml(path)), path.parent)


def check_config(file: YamlFile) -> GatewayConfig:
    """Check parsed YAML; raises as `load_config`."""
    try:
        return GatewayConfig.model_validate(file.data)
    except ValidationError as exc:
        raise ConfigError("\n".join(complaints(exc, file, GatewayConfig))) from exc


SectionT = TypeVar("SectionT", bound=Section)


def anchored(config: SectionT, directory: Path) -> SectionT:
    """Return `config` with every relative path that the file has taken from `directory`."""
    found: SectionT = _anchor_section(config, directory)
    return found


def _anchor_section(section: Any, directory: Path) -> Any:
    if isinstance(section, Path):
        return directory / section
    if isinstance(section, tuple):
        return tuple(_anchor_section(item, directory) for item in section)
    if isinstance(section, dict):
        return {key: _anchor_section(item, directory) for key, item in section.items()}
    if not isinstance(section, BaseModel):
        return section
    changes: dict[str, Any] = {
        name: _anchor_section(getattr(section, name), directory) for name in section.model_fields_set
    }
    if isinstance(section, NamedModelSettings) and section.source and ":" not in section.source:
        changes["source"] = str(directory / section.source)
    return section.model_copy(update=changes)
