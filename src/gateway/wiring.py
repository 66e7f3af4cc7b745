"""Translates the configuration into the options that the parts take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.api.server_metadata import installed_metadata
from gateway.config.merging import merged
from gateway.core.options import ModelSpec
from gateway.layers.admission import AdmissionLimits
from gateway.layers.stack import StackOptions
from gateway.models.repository import EVERY_MODEL
from gateway.models.retrying import RETRY_PAUSES_S
from gateway.protocol.limits import ProtocolLimits
from gateway.protocol.status import StatusProfile
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from gateway.telemetry.options import LogOptions, TracingOptions
from gateway.transport.options import (
    CorsOptions,
    GrpcServerOptions,
    Http2Limits,
    HttpLimits,
    HttpServerOptions,
    TlsOptions,
)
from gateway.wiring_triton import remote_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.schema import GatewayConfig, Http2Settings, ServerSettings, TlsSettings

MAX_ADMIN_BODY_BYTES: Final = 1 << 20
"""Administration takes no tensors; what it takes, a webhook say, comes from anybody who reaches the port."""


def http_options(server: ServerSettings) -> HttpServerOptions:
    """Return the options of the inference listener."""
    http = server.http
    minimum = http.compression_min_bytes
    cors = http.cors
    return HttpServerOptions(
        host=server.host,
        port=server.ports.http,
        limits=_http_limits(server),
        keep_alive_s=http.keep_alive_timeout_s,
        compression_min_bytes=None if minimum is None else int(minimum),
        compress_octet_stream=http.compress_tensors,
        cors=CorsOptions(origins=cors.allow_origins, headers=cors.allow_headers, max_age_s=cors.max_age_s)
        if cors.allow_origins
        else None,
        tls=_tls(http.tls),
    )


def metrics_options(server: ServerSettings) -> HttpServerOptions:
    """Return the options of the metrics listener."""
    return _internal_options(server, server.host, server.ports.metrics)


def admin_options(server: ServerSettings) -> HttpServerOptions:
    """Return the options of the administration listener."""
    options = _internal_options(server, server.admin_host, server.ports.admin)
    most = min(options.limits.max_body_bytes, MAX_ADMIN_BODY_BYTES)
    return replace(options, limits=replace(options.limits, max_body_bytes=most))


def _internal_options(server: ServerSettings, host: str, port: int) -> HttpServerOptions:
    """Return the options of a listener that takes no inference: the same limits, no CORS."""
    return HttpServerOptions(
        host=host,
        port=port,
        limits=_http_limits(server),
        keep_alive_s=server.http.keep_alive_timeout_s,
        tls=_tls(server.http.tls),
    )


def grpc_options(server: ServerSettings) -> GrpcServerOptions:
    """Return the options of the gRPC listener."""
    grpc = server.grpc
    return GrpcServerOptions(
        host=server.host,
        port=server.ports.grpc,
        max_receive_bytes=int(server.limits.max_body_bytes),
        max_send_bytes=-1 if grpc.max_send_bytes is None else int(grpc.max_send_bytes),
        accept_compression=grpc.accept_compression,
        response_compression=grpc.response_compression,
        max_metadata_bytes=int(grpc.max_metadata_bytes),
        max_connections=grpc.max_connections,
        max_concurrent_rpcs=grpc.max_concurrent_rpcs,
        max_concurrent_streams=grpc.max_concurrent_streams,
        keepalive_time_s=grpc.keepalive_time_s,
        keepalive_timeout_s=grpc.keepalive_timeout_s,
        min_ping_interval_s=grpc.min_ping_interval_s,
        max_connection_idle_s=grpc.max_connection_idle_s,
        max_connection_age_s=grpc.max_connection_age_s,
        max_connection_age_grace_s=grpc.max_connection_age_grace_s,
        http2=_http2_limits(grpc.http2),
        tls=_tls(grpc.tls),
    )


def _http2_limits(http2: Http2Settings) -> Http2Limits:
    return Http2Limits(
        connection_window_bytes=int(http2.connection_window_bytes),
        stream_window_bytes=int(http2.stream_window_bytes),
        max_frame_bytes=int(http2.max_frame_bytes),
        max_header_block_bytes=int(http2.max_header_block_bytes),
        max_continuations=http2.max_continuations,
        max_buffered_bytes=int(http2.max_buffered_bytes),
        max_unsent_bytes=int(http2.max_unsent_bytes),
        max_resets=http2.max_resets,
        max_control_frames=http2.max_control_frames,
        abuse_interval_s=http2.abuse_interval_s,
        preface_timeout_s=http2.preface_timeout_s,
        header_timeout_s=http2.header_timeout_s,
        body_timeout_s=http2.body_timeout_s,
        min_body_rate=float(http2.min_body_rate),
        send_timeout_s=http2.send_timeout_s,
        linger_s=http2.linger_s,
        memo_bytes_per_connection=int(http2.memo_bytes_per_connection),
        memo_bytes=int(http2.memo_bytes),
    )


def _http_limits(server: ServerSettings) -> HttpLimits:
    http, limits = server.http, server.limits
    return HttpLimits(
        max_body_bytes=int(limits.max_body_bytes),
        max_decompressed_bytes=int(limits.max_body_bytes),
        max_ratio=float(limits.max_decompression_ratio),
        max_chunks=http.max_body_chunks,
        max_buffered_bytes=int(http.max_buffered_bytes),
        max_headers=http.max_headers,
        max_header_bytes=int(http.max_header_bytes),
        max_url_bytes=int(http.max_url_bytes),
        max_pipelined=http.max_pipelined,
        max_connections=http.max_connections,
        header_timeout_s=http.header_timeout_s,
        body_timeout_s=http.body_timeout_s,
        min_body_rate=float(http.min_body_rate),
        send_timeout_s=http.send_timeout_s,
        linger_s=http.linger_s,
    )


def _tls(tls: TlsSettings | None) -> TlsOptions | None:
    if tls is None:
        return None
    return TlsOptions(certificate=tls.cert_file, key=tls.key_file, client_ca=tls.client_ca_file)


def protocol_limits(server: ServerSettings) -> ProtocolLimits:
    """Return what the codecs refuse."""
    limits = server.limits
    return ProtocolLimits(
        max_body_bytes=int(limits.max_body_bytes),
        max_json_depth=limits.max_json_depth,
        max_tensor_elements=limits.max_tensor_elements,
        max_bytes_elements=limits.max_bytes_elements,
        max_rank=limits.max_rank,
        max_inputs=limits.max_inputs,
        max_outputs=limits.max_outputs,
        max_parameters=limits.max_parameters,
        max_name_bytes=int(limits.max_name_bytes),
        max_parameter_bytes=int(limits.max_parameter_bytes),
    )


def status_profile(server: ServerSettings) -> StatusProfile:
    """Return how overload and expiry are answered."""
    return StatusProfile.TRITON if server.overload_status == "triton" else StatusProfile.DEFAULT


def stack_options(server: ServerSettings) -> StackOptions:
    """Return what the request layers are told."""
    admission = server.admission
    limits = AdmissionLimits(
        max_inflight_requests=admission.max_inflight_requests,
        max_inflight_bytes=int(admission.max_inflight_bytes),
    )
    return StackOptions(admission=limits, max_deadline_s=admission.max_deadline_s)


def log_options(config: GatewayConfig) -> LogOptions:
    """Return how logs are written."""
    log = config.telemetry.log
    return LogOptions(format=log.format, level=log.level, access=log.access)


def tracing_options(config: GatewayConfig) -> TracingOptions:
    """Return where traces go, told as this release's.

    Raises:
        importlib.metadata.PackageNotFoundError: the package runs from files that were never installed.
    """
    tracing = config.telemetry.tracing
    return TracingOptions(
        endpoint=tracing.endpoint,
        sample_ratio=tracing.sample_ratio,
        service_name=tracing.service_name,
        service_version=installed_metadata().version,
    )


def source_options(config: GatewayConfig) -> SourceOptions:
    """Return how sources describe a model: its own entry wins over the defaults, they over config.pbtxt.

    `adjust` raises ModelLoadError where they contradict each other (see `merged`).
    """
    settings = {model.name: model for model in config.models}

    def adjust(spec: ModelSpec) -> ModelSpec:
        own = settings.get(spec.name)
        return remote_spec(config, merged(spec, config.defaults, own), own)

    def label_files(model: str) -> Mapping[str, str]:
        own = settings.get(model)
        return {**config.defaults.labels, **(own.labels if own else {})}

    options = SourceOptions(adjust=adjust, label_files=label_files)
    if (repository := config.repository) is None:
        return options
    return replace(options, poll_interval_s=repository.poll_interval_s, settle_s=repository.settle_s)


def required_models(config: GatewayConfig) -> frozenset[str]:
    """Return the models that the file names and the server must have; on demand they are not required."""
    repository = config.repository
    names = {model.name for model in config.models}
    if repository is not None and repository.mode == "explicit":
        start = set(repository.load_at_start)
        followed = {model.name for model in config.models if model.source or model.on_fleet}
        names = (start | names if EVERY_MODEL in start else start | followed) - {EVERY_MODEL}
    names |= {name for fleet in config.triton for name in fleet.listed}
    adjust = source_options(config).adjust
    return frozenset(name for name in names if _is_required(adjust(bare_spec(name))))


def _is_required(spec: ModelSpec) -> bool:
    return spec.required and not spec.lazy


def bare_spec(name: str) -> ModelSpec:
    """Return the spec of a model of which nothing but its name is known."""
    return ModelSpec(name=name)


def retry_pauses_s(config: GatewayConfig) -> tuple[float, ...]:
    """Return when failed loads are tried again: not where clients load, for they are told and ask again."""
    explicit = config.repository is not None and config.repository.mode == "explicit"
    return () if explicit else RETRY_PAUSES_S


def model_sources(config: GatewayConfig, options: SourceOptions) -> list[FileSystemSource]:
    """Return the sources of models, those with a path of their own before the repository's."""
    paths = {model.name: model.path for model in config.models if model.path is not None}
    sources = [FileSystemSource("models", models=paths, options=options)] if paths else []
    elsewhere = {*paths, *(model.name for model in config.models if model.source or model.on_fleet)}
    if config.repository is not None:
        repository = config.repository.path
        sources.append(FileSystemSource("repository", repository, options=options, exclude=elsewhere))
    return sources
