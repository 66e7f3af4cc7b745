"""A gateway as a process of its own, with a prediction log: requests in, rows out, and its accounts."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.schema import load_config
from gateway.core.errors import ConfigError
from gateway.prediction_logging import policies_of
from gateway.predlog.join_keys import Source
from gateway.predlog.policy import OutlierRule, Rule, SegmentRule, TensorRule
from loadtests.noninterference_models import STABLE, repository_of
from loadtests.soak_models import OFFSET
from tests.acceptance.process import RunningGateway, serving, until

if TYPE_CHECKING:
    from pathlib import Path

SECRET_TEXT = "hush-hush"


def ask(gateway: RunningGateway, request_id: str, value: float, **headers: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
    body = json.dumps({"id": request_id, "inputs": [tensor]}).encode()
    url = f"http://{gateway.http}/v2/models/{OFFSET}/infer"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        assert json.load(answer)["id"] == request_id


def test_what_a_gateway_serves_is_in_its_log(tmp_path: Path) -> None:
    """Rows of a real gateway reach their sink by its end, and its metrics tell what became of them."""
    parquet = pytest.importorskip("pyarrow.parquet")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        json.dumps(
            {
                "repository": {"path": str(repository_of(tmp_path, STABLE))},
                "prediction_log": {
                    "producer": "here",
                    "defaults": {"segments": {"country": "header:X-Country"}},
                    "sinks": {"parquet": {"directory": "out", "max_wait": "1s"}},
                },
            }
        )
    )
    with serving(tmp_path / "log", "--config", str(config)) as gateway:
        for number in range(5):
            ask(gateway, f"r{number}", float(number), **{"X-Country": "de", "Authorization": SECRET_TEXT})
        framed = 'gateway_prediction_log_rows_total{outcome="framed"}'
        until(lambda: gateway.counter(framed) == 5)
        produced = f'gateway_prediction_log_produced_rows_total{{arm="",model="{OFFSET}",version="1"}}'
        assert gateway.counter(produced) == 5
        assert gateway.counter("gateway_prediction_log_waiting_rows") == 0
    files = sorted((tmp_path / "out").rglob("*.parquet"))
    rows: list[dict[str, Any]] = [row for file in files for row in parquet.read_table(file).to_pylist()]
    assert len(rows) == 5
    assert not any(SECRET_TEXT.encode() in file.read_bytes() for file in files)


def complaints(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("section", "line", "complaint"),
    [
        ("{defaults: {key: head:x}}", 1, "header:NAME"),
        ("{defaults: {inputs: {a: keeep}}}", 1, "'keep'"),
        ("{defaults: {inputs: {a: {rule: bucket}}}}", 1, "edges"),
        ("{defaults: {inputs: {a: {rule: bucket, edges: [2, 1]}}}}", 1, "ascend"),
        ("{defaults: {inputs: {a: truncate}}}", 1, "length"),
        ("{defaults: {inputs: {a: hmac}}}", 1, "secret"),
        ("{defaults: {subject: header:x}}", 1, "secret"),
        ("{sample: 1}", 1, "unknown key"),
    ],
)
def test_a_wrong_section_is_refused(tmp_path: Path, section: str, line: int, complaint: str) -> None:
    """What is wrong is said with file and line."""
    found = complaints(tmp_path, f"prediction_log: {section}\n")
    assert found.startswith(f"{tmp_path / 'gateway.yaml'}:{line}:")
    assert complaint in found


def test_an_entry_without_a_section_is_refused(tmp_path: Path) -> None:
    """Whoever wrote it thinks that something is logged."""
    text = "models: [{name: m, path: m.onnx, prediction_log: {sample_ratio: 0.5}}]\n"
    assert "no such section" in complaints(tmp_path, text)


def test_policies_are_those_of_the_file(tmp_path: Path) -> None:
    """An entry's settings take the place of the defaults, one by one."""
    (tmp_path / "key").write_text("pepper\n")
    path = tmp_path / "gateway.yaml"
    path.write_text("""
prediction_log:
  secret: {file: key}
  defaults:
    sample_ratio: 0.5
    key: parameter:customer
    subject: header:X-User
    outputs: {y: drop}
    outliers: {x: {above: 4}}
models:
  - name: m
    path: m.onnx
    prediction_log:
      sample_ratio: 0.25
      inputs:
        id: hmac
        age: {rule: bucket, edges: [18, 65]}
      segments: {country: {source: header:X-Country, values: [de, fr]}}
""")
    config = load_config(path)
    assert config.prediction_log is not None
    policies = policies_of(config.prediction_log, {m.name: m.prediction_log for m in config.models})
    own, other = policies.of("m"), policies.of("n")
    assert (own.sampling.ratio, other.sampling.ratio) == (0.25, 0.5)
    assert own.sampling.key == Source("parameter", "customer")
    assert own.sampling.subject == Source("header", "x-user")
    assert own.sampling.secret == b"pepper"
    assert own.inputs == {"id": TensorRule(Rule.HMAC), "age": TensorRule(Rule.BUCKET, edges=(18.0, 65.0))}
    assert own.outputs == other.outputs == {"y": TensorRule(Rule.DROP)}
    assert own.segments == (SegmentRule("country", Source("header", "x-country"), ("de", "fr")),)
    assert own.outliers == (OutlierRule("x", high=4.0),)
    assert other.inputs == {}
