"""What the configuration becomes for the parts."""

from pathlib import Path

from gateway import wiring
from gateway.config.schema import check_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.options import ModelSpec
from gateway.protocol.status import StatusProfile

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
