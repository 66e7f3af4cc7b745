"""Which registry a model's source is of, and what is built for it."""

from pathlib import Path

import pytest

from gateway.config.schema import GatewayConfig
from gateway.core.errors import ConfigError
from gateway.wiring_registries import TRACKING_URI, cache_directory, memory_options, placed

REGISTRIES = {
    "all": {"object_store": {"url": "s3://models"}},
    "prod": {"object_store": {"url": "s3://models/prod", "region": "eu-west-1"}},
    "disk": {"directory": {"path": "/srv/models"}},
    "mlflow": {"mlflow": {"tracking_uri": "http://127.0.0.1:5000"}},
}


def place(source: str, registry: str | None = None, **registries: object) -> tuple[str, str, str]:
    """Return the name of the registry, the store and the model of a source."""
    config = GatewayConfig.model_validate(
        {
            "registries": registries or REGISTRIES,
            "models": [{"name": "m", "source": source, "registry": registry}],
        }
    )
    where, _, reference = placed(config, config.models[0])
    return where.name, where.store, reference.model


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("s3://models/fraud@champion", ("all", "s3://models", "fraud")),
        ("s3://models/prod/fraud", ("prod", "s3://models/prod", "fraud")),
        ("s3://models/prod/eu/fraud", ("prod", "s3://models/prod/eu", "fraud")),
        ("s3://models/production/fraud", ("all", "s3://models/production", "fraud")),
        ("s3://other/fraud", ("s3://other", "s3://other", "fraud")),
        ("/srv/models/fraud@1.x", ("disk", "file:///srv/models", "fraud")),
        ("/srv/others/fraud", ("file:///srv/others", "file:///srv/others", "fraud")),
        ("mlflow://fraud@champion", ("mlflow", "", "fraud")),
    ],
)
def test_the_nearest_registry_holds_a_source(source: str, expected: tuple[str, str, str]) -> None:
    """By the longest place that the source lies in, at whole parts of the path; none: the environment's."""
    assert place(source) == expected


def test_a_registry_that_is_named_goes_before() -> None:
    """Even where another is nearer."""
    assert place("s3://models/prod/fraud", "all")[0] == "all"


def test_a_registry_that_cannot_hold_the_source_is_refused() -> None:
    """The message names both."""
    with pytest.raises(
        ConfigError, match=r"model 'm': registry 'disk' does not hold source 's3://models/fraud'"
    ):
        place("s3://models/fraud", "disk")


def test_two_registries_alike_must_be_told_apart() -> None:
    """The message says how."""
    one = {"mlflow": {"tracking_uri": "http://127.0.0.1:5000"}}
    with pytest.raises(ConfigError, match=r"fits registries \['a', 'b'\]: name one with 'registry'"):
        place("mlflow://fraud", a=one, b=one)


def test_mlflow_is_found_as_its_own_tools_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its variable; without it the message says what to write."""
    monkeypatch.setenv(TRACKING_URI, "http://127.0.0.1:5000")
    assert place("mlflow://fraud", x=REGISTRIES["disk"])[0] == "mlflow"
    monkeypatch.delenv(TRACKING_URI)
    with pytest.raises(ConfigError, match="needs the address of an MLflow server: set MLFLOW_TRACKING_URI"):
        place("mlflow://fraud", x=REGISTRIES["disk"])


def test_a_wrong_source_names_its_model() -> None:
    """Before what is wrong with it."""
    with pytest.raises(ConfigError, match=r"model 'm': source .*'mlfow'.*did you mean 'mlflow"):
        place("mlfow://fraud")


def test_the_cache_lies_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG base directory specification has it; the file's own directory goes before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory(GatewayConfig().cache) == tmp_path / "model-gateway"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory(GatewayConfig().cache) == Path.home() / ".cache" / "model-gateway"
    own = GatewayConfig.model_validate({"cache": {"directory": tmp_path / "own"}})
    assert cache_directory(own.cache) == tmp_path / "own"


def test_memory_limits_are_bytes() -> None:
    """`auto` is part of what there is."""
    config = GatewayConfig.model_validate({"memory": {"limits": {"cuda:1": "2GiB", "cpu": "auto"}}})
    limits = memory_options(config).limits
    assert limits["cuda:1"] == 2 << 30
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert 0 < limits["cpu"] <= int(total.split()[1]) * 1024
