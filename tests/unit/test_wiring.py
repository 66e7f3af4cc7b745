"""What the configuration becomes for the parts."""

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize

from gateway import wiring
from gateway.config.schema import LimitSettings, check_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ModelLoadError
from gateway.core.options import ModelSpec
from gateway.protocol.limits import ProtocolLimits
from gateway.protocol.status import StatusProfile
from gateway.transport.options import GrpcServerOptions, HttpLimits

TEXT = b"""
server:
  host: 0.0.0.0
  ports: {http: 1, grpc: 2, metrics: 3, admin: 4}
  overload_status: triton
  limits: {max_body_bytes: 1MiB, max_json_depth: 7}
  admission: {max_inflight_requests: 5, max_deadline_s: 2}
  http:
    compression_min_bytes: null
    cors: {allow_origins: ['https://app.example']}
    tls: {cert_file: c.pem, key_file: k.pem}
defaults:
  onnxruntime: {intra_op_threads: 1}
  batching: {max_batch_rows: 4, max_delay_s: 0.5}
  labels: {y: common.txt}
models:
- {name: m, path: m.onnx, batching: {max_batch_rows: 8}, labels: {z: own.txt}}
repository: {path: repo}
"""
CONFIG = check_config(parse_yaml(TEXT, "f.yaml"))


def test_every_listener_gets_its_address_and_only_inference_gets_cors() -> None:
    """Administration never follows the public host."""
    http, grpc = wiring.http_options(CONFIG.server), wiring.grpc_options(CONFIG.server)
    metrics, admin = wiring.metrics_options(CONFIG.server), wiring.admin_options(CONFIG.server)
    assert [(o.host, o.port) for o in (http, grpc, metrics, admin)] == [
        ("0.0.0.0", 1),
        ("0.0.0.0", 2),
        ("0.0.0.0", 3),
        ("127.0.0.1", 4),
    ]
    assert http.cors is not None
    assert http.cors.origins == ("https://app.example",)
    assert admin.cors is None
    assert http.tls is not None
    assert http.tls.certificate == Path("c.pem")
    assert http.compression_min_bytes is None


def test_one_size_limit_holds_for_both_protocols() -> None:
    """The body limit bounds HTTP as sent and inflated, gRPC messages, and the codecs."""
    assert wiring.http_options(CONFIG.server).limits.max_body_bytes == 1 << 20
    assert wiring.http_options(CONFIG.server).limits.max_decompressed_bytes == 1 << 20
    assert wiring.grpc_options(CONFIG.server).max_receive_bytes == 1 << 20
    limits = wiring.protocol_limits(CONFIG.server)
    assert (limits.max_body_bytes, limits.max_json_depth) == (1 << 20, 7)


def test_statuses_and_admission_follow_the_file() -> None:
    """Triton's codes for overload when asked for, and the server-wide bounds."""
    assert wiring.status_profile(CONFIG.server) is StatusProfile.TRITON
    stack = wiring.stack_options(CONFIG.server)
    assert stack.admission.max_inflight_requests == 5
    assert stack.max_deadline_s == 2


def test_a_models_entry_goes_before_the_defaults_and_both_before_the_models_own_file() -> None:
    """Only what a layer names replaces what the layer below says."""
    options = wiring.source_options(CONFIG)
    own = options.adjust(ModelSpec(name="m", backend_options={"graph_optimization_level": "basic"}))
    assert (own.batching.max_batch_rows, own.batching.max_delay_s) == (8, 0.5)
    assert own.backend_options == {"graph_optimization_level": "basic", "intra_op_threads": 1}
    assert options.adjust(ModelSpec(name="other")).batching.max_batch_rows == 4
    assert options.label_files("m") == {"y": "common.txt", "z": "own.txt"}


def test_models_with_a_path_and_the_repository_are_two_sources() -> None:
    """Each claims its own versions."""
    sources = wiring.model_sources(CONFIG, wiring.source_options(CONFIG))
    assert [s.name for s in sources] == ["models", "repository"]


EVERY_LIMIT = b"""
server:
  limits:
    max_body_bytes: 7MiB
    max_decompression_ratio: 7
    max_json_depth: 7
    max_tensor_elements: 7
    max_bytes_elements: 7
    max_rank: 7
    max_inputs: 7
    max_outputs: 7
    max_parameters: 7
    max_name_bytes: 7
    max_parameter_bytes: 7
  http:
    max_connections: 7
    max_headers: 7
    max_header_bytes: 7
    max_url_bytes: 7
    max_body_chunks: 7
    max_buffered_bytes: 7
    max_pipelined: 7
    header_timeout_s: 7
    body_timeout_s: 7
    min_body_rate: 7
    send_timeout_s: 7
    linger_s: 7
    keep_alive_timeout_s: 7
  grpc:
    max_connections: 7
    max_concurrent_rpcs: 7
    max_concurrent_streams: 7
    max_send_bytes: 7
    max_metadata_bytes: 7
    keepalive_time_s: 7
    keepalive_timeout_s: 7
    min_ping_interval_s: 7
    max_connection_idle_s: 7
    max_connection_age_s: 7
    max_connection_age_grace_s: 7
    http2:
      connection_window_bytes: 70000
      stream_window_bytes: 70000
      max_frame_bytes: 70000
      max_header_block_bytes: 7
      max_continuations: 7
      max_buffered_bytes: 7
      max_unsent_bytes: 7
      max_resets: 7
      max_control_frames: 7
      abuse_interval_s: 7
      preface_timeout_s: 7
      header_timeout_s: 7
      body_timeout_s: 7
      min_body_rate: 7
      send_timeout_s: 7
      linger_s: 7
      memo_bytes_per_connection: 7
      memo_bytes: 7
"""


def unchanged(options: Any) -> list[str]:
    """Return the fields that still have their default."""
    return [f.name for f in dataclasses.fields(options) if getattr(options, f.name) == f.default]


def test_every_limit_has_a_key() -> None:
    """No bound on what a client may cost is out of an operator's reach."""
    server = check_config(parse_yaml(EVERY_LIMIT, "f.yaml")).server
    assert unchanged(wiring.http_options(server).limits) == []
    assert unchanged(wiring.protocol_limits(server)) == []
    assert unchanged(wiring.grpc_options(server).http2) == []
    assert set(unchanged(wiring.grpc_options(server))) <= {
        "host",
        "port",
        "accept_compression",
        "response_compression",
        "tls",
    }


def test_administration_takes_small_bodies_alone() -> None:
    """Whatever inference takes; and never more than inference does."""
    assert wiring.admin_options(CONFIG.server).limits.max_body_bytes == wiring.MAX_ADMIN_BODY_BYTES
    small = CONFIG.server.model_copy(update={"limits": LimitSettings(max_body_bytes=ByteSize(1000))})
    assert wiring.admin_options(small).limits.max_body_bytes == 1000


@pytest.mark.parametrize("options", [wiring.metrics_options, wiring.admin_options])
def test_metrics_and_administration_share_the_limits_of_inference(options: Any) -> None:
    """A limit protects the process whichever port a client finds."""
    server = check_config(parse_yaml(EVERY_LIMIT, "f.yaml")).server
    inference = wiring.http_options(server)
    shared = options(server).limits
    assert dataclasses.replace(shared, max_body_bytes=inference.limits.max_body_bytes) == inference.limits
    assert options(server).keep_alive_s == inference.keep_alive_s == 7


def test_defaults_of_the_file_are_those_of_the_parts() -> None:
    """A limit means the same whether the file leaves it out or the part is made without it."""
    server = check_config(parse_yaml(b"server: {}", "f.yaml")).server
    assert wiring.http_options(server).limits == HttpLimits()
    assert wiring.grpc_options(server) == GrpcServerOptions()
    assert wiring.protocol_limits(server) == ProtocolLimits()


def test_a_models_entry_may_not_lift_what_its_file_declares() -> None:
    """Such a model fails to load with the reason, and the defaults give way in silence."""
    adjust = wiring.source_options(CONFIG).adjust
    with pytest.raises(ModelLoadError, match="max_batch_size 2"):
        adjust(ModelSpec(name="m", max_batch_size=2))
    assert adjust(ModelSpec(name="other", max_batch_size=2)).batching.max_batch_rows == 2


def test_settling_and_polling_follow_the_file() -> None:
    """How long files must be at rest is the operator's choice."""
    config = check_config(parse_yaml(b"repository: {path: r, settle_s: 3, poll_interval_s: 4}", "f.yaml"))
    options = wiring.source_options(config)
    assert (options.settle_s, options.poll_interval_s) == (3, 4)


def test_traces_name_the_release() -> None:
    """The resource's service.version is the installed distribution's."""
    assert wiring.tracing_options(CONFIG).service_version == metadata.version("model-gateway") != ""


def test_models_that_the_file_names_are_required_unless_it_says_otherwise() -> None:
    """All of them, with an explicit repository those loaded at start; entries and defaults may say no."""

    def required(text: bytes) -> set[str]:
        return set(wiring.required_models(check_config(parse_yaml(text, "f.yaml"))))

    models = b"models: [{name: a, path: a.onnx}, {name: b, required: false, path: b.onnx}]\n"
    assert required(models) == {"a"}
    assert required(b"defaults: {required: false}\n" + models) == set()
    explicit = b"repository: {path: repo, mode: explicit, load_at_start: [%s]}\n"
    assert required(models + explicit % b"") == set()
    assert required(models + explicit % b"c, b") == {"c"}
    assert required(models + explicit % b"'*'") == {"a"}


def test_failed_loads_are_tried_again_by_themselves_unless_clients_load() -> None:
    """A client that loads is told of the failure and asks again itself."""
    explicit = check_config(parse_yaml(b"repository: {path: repo, mode: explicit}", "f.yaml"))
    assert wiring.retry_pauses_s(CONFIG)
    assert wiring.retry_pauses_s(explicit) == ()


async def test_model_with_a_path_of_its_own_is_not_taken_from_the_repository(tmp_path: Path) -> None:
    """The repository's versions of that name are left out, so that two models are never mixed under it."""
    for model in ("a", "b"):
        (tmp_path / model / "1").mkdir(parents=True)
    text = f"models: [{{name: a, path: {tmp_path / 'b'}}}]\nrepository: {{path: {tmp_path}}}"
    config = check_config(parse_yaml(text.encode(), "f.yaml"))
    sources = wiring.model_sources(config, wiring.source_options(config))
    assert [await s.models() for s in sources] == [["a"], ["b"]]
