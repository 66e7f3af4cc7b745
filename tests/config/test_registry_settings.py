"""The sections about registries, the cache and memory."""

from pathlib import Path

import pytest

from gateway.config.registry_settings import SecretSettings
from gateway.config.schema import GatewayConfig, check_config, load_config
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ConfigError
from gateway.core.options import ModelSpec

SECRET = "not-for-messages"


def config(text: str) -> GatewayConfig:
    return check_config(parse_yaml(text.encode(), "f.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registries: {a: {}}", "give exactly one of object_store, directory, mlflow"),
        (
            "registries: {a: {directory: {path: x}, mlflow: {tracking_uri: 'http://h'}}}",
            "give exactly one of object_store, directory, mlflow",
        ),
        ("registries:\n  'a b': {directory: {path: x}}", "f.yaml:2: registries.a b"),
        (
            "registries:\n  a:\n    directory: {path: x}\n    pol_interval_s: 1",
            "f.yaml:4: registries.a.pol_interval_s: unknown key; did you mean 'poll_interval_s'?",
        ),
        (
            "registries:\n  a:\n    object_store:\n      url: s3://b\n      endpont: x",
            "f.yaml:5: registries.a.object_store.endpont: unknown key; did you mean 'endpoint'?",
        ),
        (
            "registries: {a: {object_store: {url: 's3://b', credentials: {x: {env: A, file: b}}}}}",
            "give exactly one of env, file",
        ),
        ("registries: {a: {directory: {path: x}, on_missing: delete}}", "'keep' or 'unload'"),
        ("memory: {limits: {tpu: 1GiB}}", "'tpu' is no device: expected cpu, cuda or cuda:N"),
        ("memory: {limits: {'cpu:1': 1GiB}}", "'cpu:1' is no device"),
        ("memory: {limits: {cuda: auto}}", "limit 'auto' is known for cpu alone"),
        ("models: [{name: m, path: x, source: 's3://b/m'}]", "give either path or source"),
        ("models: [{name: m, path: x, registry: a}]", "registry needs a source"),
        (
            "registries: {b: {directory: {path: x}}}\nmodels: [{name: m, source: 'x/m', registry: a}]",
            "model 'm': no registry 'a' under registries, there are ['b']",
        ),
        ("models: [{name: m, source: 's3://b/m', digest: abc}]", "models.0.digest"),
        ("models: [{name: m}]", "have no path and no source"),
    ],
)
def test_a_wrong_section_is_refused_with_its_place(text: str, expected: str) -> None:
    """Each complaint names what is wrong, and its line where it has one."""
    with pytest.raises(ConfigError) as caught:
        config(text)
    assert expected in str(caught.value)


def test_paths_are_taken_from_the_files_directory(tmp_path: Path) -> None:
    """Also inside mappings, and a source that is a path; a source that is a URL stays as it is."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        """
        registries:
          here: {directory: {path: models}, signatures: {policy: warn, public_key: key.pem}}
          bucket: {object_store: {url: 's3://b', credentials: {access_key_id: {file: id}}}}
        models:
          - {name: a, source: 'models/a@champion'}
          - {name: b, source: 's3://b/b'}
        """
    )
    loaded = load_config(file)
    here, bucket = loaded.registries["here"], loaded.registries["bucket"]
    assert here.directory is not None
    assert here.directory.path == tmp_path / "models"
    assert here.signatures.public_key == tmp_path / "key.pem"
    assert bucket.object_store is not None
    assert bucket.object_store.credentials["access_key_id"].file == tmp_path / "id"
    assert [model.source for model in loaded.models] == [f"{tmp_path}/models/a@champion", "s3://b/b"]


def test_lazy_and_allow_breaking_reach_the_spec() -> None:
    """An entry goes before the defaults."""
    loaded = config("defaults: {lazy: true}\nmodels: [{name: m, path: x, lazy: false, allow_breaking: true}]")
    spec = loaded.models[0].apply(loaded.defaults.apply(ModelSpec(name="m")))
    assert (spec.lazy, spec.allow_breaking) == (False, True)
    assert loaded.defaults.apply(ModelSpec(name="m")).lazy


def test_a_secret_is_read_from_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a variable, or a file without the blanks that editors leave."""
    monkeypatch.setenv("A_SECRET", SECRET)
    assert SecretSettings(env="A_SECRET").read() == SECRET
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert SecretSettings(file=tmp_path / "secret").read() == SECRET


def test_a_secret_that_is_not_there_is_said_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message tells where it was looked for."""
    monkeypatch.delenv("A_SECRET", raising=False)
    with pytest.raises(ConfigError, match="environment variable A_SECRET is not set"):
        SecretSettings(env="A_SECRET").read()
    with pytest.raises(ConfigError, match="cannot be read"):
        SecretSettings(file=tmp_path / "none").read()
    (tmp_path / "blank").write_text(" \n")
    with pytest.raises(ConfigError, match="is not set"):
        SecretSettings(file=tmp_path / "blank").read()
