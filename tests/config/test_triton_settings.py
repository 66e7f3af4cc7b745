"""The section `triton`, and models that run on its fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config.schema import GatewayConfig, check_config, load_config
from gateway.config.triton_settings import ready_share
from gateway.config.yaml_file import parse_yaml
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FLEET = "triton: [{name: a, endpoints: ['h:8001']}]\n"
TWO = "triton: [{name: a, endpoints: ['h:8001']}, {name: b, dns: 'triton.svc:8001'}]\n"


def config(text: str) -> GatewayConfig:
    return check_config(parse_yaml(text.encode(), "f.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("triton: [{name: a}]", "f.yaml:1: triton.0: give exactly one of endpoints, dns, file"),
        ("triton: [{name: a, endpoints: ['h:1'], dns: 'h:1'}]", "give exactly one of endpoints, dns, file"),
        ("triton:\n  - name: a\n    endpoints: [h]", "f.yaml:3: triton.0.endpoints.0: expected host:port"),
        ("triton: [{name: a, endpoints: ['h:0']}]", "expected host:port"),
        ("triton: [{name: a, endpoints: ['http://h:1']}]", "expected host:port"),
        ("triton: [{name: a, endpoints: ['h:1', 'h:1']}]", "named twice: ['h:1']"),
        (
            "triton:\n  - name: a\n    endpoints: ['h:1']\n    sreve: all",
            "f.yaml:4: triton.0.sreve: unknown key; did",
        ),
        (
            "triton: [{name: a, endpoints: ['h:1'], serve: al}]",
            "expected 'all' or a list of models, got 'al'",
        ),
        ("triton: [{name: a, endpoints: ['h:1'], min_ready: 0}]", "a share of them such as '50%', got 0"),
        ("triton: [{name: a, endpoints: ['h:1'], min_ready: 101%}]", "such as '50%', got '101%'"),
        (
            "triton: [{name: a, endpoints: ['h:1'], tls: {cert_file: x}}]",
            "cert_file and key_file go together",
        ),
        ("triton: [{name: a, endpoints: ['h:1'], concurrency: {min: 20}}]", "expected min <= initial <= max"),
        (TWO.replace("name: b", "name: a"), "fleets of triton named twice: ['a']"),
        (TWO.replace("}", ", serve: all}"), "fleets ['a', 'b'] both serve all"),
        (TWO.replace("}", ", serve: [m]}"), "models listed twice under serve: ['m']"),
        ("models: [{name: m, backend: triton}]", "model 'm': no fleet '' under triton, there is none"),
        (
            FLEET + "models: [{name: m, triton: {fleet: b}}]",
            "model 'm': no fleet 'b' under triton, there are ['a']",
        ),
        (TWO + "models: [{name: m, triton: {}}]", "model 'm': name its fleet, one of ['a', 'b']"),
        (FLEET + "models: [{name: m, triton: {}, path: x}]", "has no path"),
        (FLEET + "models: [{name: m, triton: {}, backend: onnxruntime}]", "triton needs backend 'triton'"),
        (
            FLEET + "models: [{name: m, triton: {}, onnxruntime: {a: 1}}]",
            "onnxruntime says nothing of a model",
        ),
        (
            FLEET + "models: [{name: m, triton: {}, source: 's3://b/m'}]",
            "fleet 'a' needs a repository for it",
        ),
    ],
)
def test_a_wrong_section_is_refused_with_its_place(text: str, expected: str) -> None:
    """Each complaint names what is wrong, and its line where it has one."""
    with pytest.raises(ConfigError) as caught:
        config(text)
    assert expected in str(caught.value)


def test_three_lines_are_enough() -> None:
    """Whoever runs Triton names its endpoints, and that is all."""
    (fleet,) = config("triton:\n- {name: a, endpoints: ['10.0.0.1:8001']}\n").triton
    assert fleet.endpoints == ("10.0.0.1:8001",)
    assert config("triton: [{name: a, endpoints: ['[::1]:8001'], serve: all}]").triton[0].serve == "all"


def test_a_model_needs_no_fleet_of_its_own_name_where_there_is_one() -> None:
    """Neither the fleet nor the name there is repeated; and `triton` says which backend."""
    parsed = config(
        FLEET + "models: [{name: m, triton: {batching: gateway, min_ready: 50%}}, {name: n, backend: triton}]"
    )
    m, n = parsed.models
    assert m.on_fleet is not None
    assert m.on_fleet.options("m", parsed.triton[0]) == {
        "fleet": "a",
        "model": "m",
        "batching": "gateway",
        "min_ready": 0.5,
        "shared_memory": "auto",
    }
    assert n.on_fleet is not None
    assert n.on_fleet.options("n", parsed.triton[0])["batching"] == "auto"


def test_all_endpoints_are_a_share_below_one() -> None:
    """A share of 1 would be read as one endpoint; 100 % is all of any number."""
    share = ready_share("100%")
    assert share < 1
    assert [-(-share * count // 1) for count in (1, 3, 1000)] == [1, 3, 1000]


def test_paths_are_taken_from_the_files_directory(tmp_path: Path) -> None:
    """Endpoint files, certificates and the shared repository lie beside the configuration."""
    file = tmp_path / "gateway.yaml"
    file.write_text("triton: [{name: a, file: endpoints.txt, repository: models, tls: {ca_file: ca.pem}}]")
    (fleet,) = load_config(file).triton
    assert (fleet.file, fleet.repository) == (tmp_path / "endpoints.txt", tmp_path / "models")
    assert fleet.tls is not None
    assert fleet.tls.ca_file == tmp_path / "ca.pem"
