"""The configuration schema."""

from pathlib import Path

import pytest

from gateway.config.schema import GatewayConfig, check_config, load_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ConfigError
from gateway.core.options import BatchingOptions, InstanceGroup, ModelSpec, PadRule, VersionPolicy
from gateway.core.types import Device

LOW_LEVELS = "{name: m, path: x, batching: {priority_levels: 2}}"


def config(text: str) -> GatewayConfig:
    return check_config(parse_yaml(text.encode(), "f.yaml"))


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return str(caught.value)


def model_spec(text: str, base: ModelSpec | None = None) -> ModelSpec:
    return (
        config(f"models:\n- {{name: m, path: m.onnx, {text}}}").models[0].apply(base or ModelSpec(name="m"))
    )


def test_an_empty_section_gives_the_documented_defaults() -> None:
    """Loopback and Triton's ports unless told otherwise."""
    server = config("server: {}").server
    assert server.host == "127.0.0.1"
    assert server.ports.model_dump() == {"http": 8000, "grpc": 8001, "metrics": 8002, "admin": 8003}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server:\n  hots: x", "f.yaml:2: server.hots: unknown key; did you mean 'host'?"),
        ("server:\n  ports:\n    http: 99999", "f.yaml:3: server.ports.http: "),
        (
            "models:\n- name: a\n  path: x\n  batching:\n    max_batch_row: 1",
            "did you mean 'max_batch_rows'?",
        ),
        ("models:\n- name: a/b\n  path: x", "f.yaml:2: models.0.name: "),
        ("models:\n- name: a", "f.yaml:1: file: models ['a'] have no path"),
        ("models:\n- {name: a, path: x}\n- {name: a, path: y}", "models named twice: ['a']"),
        ("defaults: {versions: {latest: 1, all: true}}", "exactly one of latest, specific, all"),
        ("defaults: {batching: {allowed_rows: [4, 2]}}", "allowed_rows must ascend"),
        ("defaults: {batching: {priority_levels: 2, default_priority: 3}}", "beyond priority_levels 2"),
        ("defaults: {instances: [{device: tpu}]}", "defaults.instances.0.device: "),
        ("defaults: {batching: {pad: [{input: x, axis: 1, buckets: [8, 4]}]}}", "buckets must ascend"),
        ("defaults: {batch_axes: {x: -1}}", "defaults.batch_axes.x"),
        (
            "defaults: {batching: {priority_levels: 5, default_priority: 5}}\nmodels: [" + LOW_LEVELS + "]",
            "model 'm': default_priority 5 is beyond priority_levels 2",
        ),
    ],
)
def test_mistakes_are_named_with_file_line_and_key(text: str, expected: str) -> None:
    """Every complaint says where, what and, for a misspelt key, what was meant."""
    assert expected in complaint(text)


def test_all_mistakes_are_reported_at_once() -> None:
    """One run of validate shows everything that is wrong."""
    assert len(complaint("server:\n  hots: x\n  ports: {http: -1}\nmodel: []").splitlines()) == 3


def test_only_what_the_file_sets_changes_a_spec() -> None:
    """Settings from elsewhere (config.pbtxt, defaults) survive unless the file names the same field."""
    base = ModelSpec(name="m", batching=BatchingOptions(max_batch_rows=8, max_delay_s=0.5))
    assert model_spec("batching: {max_delay_s: 0.1}", base).batching == BatchingOptions(
        max_batch_rows=8, max_delay_s=0.1
    )
    assert model_spec("required: false", base).batching == base.batching


def test_every_kind_of_model_setting_reaches_the_spec() -> None:
    """Sizes with units, rules, devices, versions, axes and backend options arrive as core values."""
    spec = model_spec(
        "versions: {specific: [1, 3]}, instances: [{device: 'cuda:1', count: 2}], batch_axes: {sr: null},"
        " onnxruntime: {intra_op_threads: 1}, warm_up: {rows: [1, 2]},"
        " batching: {max_queue_bytes: 2MiB, allowed_rows: [2, 4], pad: [{input: x, axis: 1, buckets: [8]}]}"
    )
    assert spec.versions == VersionPolicy(specific=(1, 3))
    assert spec.instances[0].device == Device("cuda", 1)
    assert spec.batch_axes == {"sr": None}
    assert spec.backend_options == {"intra_op_threads": 1}
    assert spec.warm_up.rows == (1, 2)
    assert spec.batching.max_queue_bytes == 2 << 20
    assert spec.batching.max_batch_rows == 4
    assert spec.batching.pad == (PadRule(input="x", axis=1, buckets=(8,)),)


def test_a_default_priority_may_rest_on_the_levels_of_the_defaults() -> None:
    """A section is not refused for what another section completes."""
    config(
        "defaults: {batching: {priority_levels: 5}}\n"
        "models: [{name: m, path: x, batching: {default_priority: 2}}]"
    )


@pytest.mark.parametrize(
    ("text", "attribute"), [("instances: []", "instances"), ("versions: null", "versions")]
)
def test_an_empty_setting_undoes_what_was_said_before(text: str, attribute: str) -> None:
    """A model's entry can go back to the gateway's own default."""
    base = ModelSpec(name="m", instances=(InstanceGroup(count=2),), versions=VersionPolicy(all=True))
    assert getattr(model_spec(text, base), attribute) == getattr(ModelSpec(name="m"), attribute)


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    """A configuration means the same wherever the gateway is started."""
    file = tmp_path / "gateway.yaml"
    file.write_text("repository: {path: models}\nmodels: [{name: m, path: /abs/m.onnx}]")
    loaded = load_config(file)
    assert loaded.repository is not None
    assert loaded.repository.path == tmp_path / "models"
    assert loaded.models[0].path == Path("/abs/m.onnx")


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
