"""A model that follows an alias in a real S3 bucket: the steps of somebody who deploys by uploading."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from skl2onnx import to_onnx  # type: ignore[import-untyped]  # it has no types
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.acceptance.process import serving, until
from tests.servers.seaweed import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.process import RunningGateway
    from tests.servers.seaweed import Seaweed

FEATURES, CLASSES = load_iris(return_X_y=True)
FEATURES = FEATURES.astype(np.float32)


def trained(regularisation: float) -> tuple[bytes, Any]:
    """Return a classifier as ONNX, and as scikit-learn has it."""
    model = LogisticRegression(C=regularisation, max_iter=2000).fit(FEATURES, CLASSES)
    return to_onnx(model, FEATURES[:1], options={"zipmap": False}).SerializeToString(), model


def get(gateway: RunningGateway, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://{gateway.http}{path}", None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def asked(gateway: RunningGateway, rows: int = 5) -> tuple[str, list[float]]:
    """Return which version answered, and its probabilities."""
    data = {"name": "X", "datatype": "FP32", "shape": [rows, 4], "data": FEATURES[:rows].ravel().tolist()}
    body = {"inputs": [data], "outputs": [{"name": "probabilities"}]}
    answer = get(gateway, "/v2/models/iris/infer", body)
    return answer["model_version"], answer["outputs"][0]["data"]


def index(gateway: RunningGateway) -> dict[str, tuple[str, str]]:
    rows = get(gateway, "/v2/repository/index", {})
    return {row.get("version", ""): (row["state"], row.get("reason", "")) for row in rows}


@pytest.mark.parametrize("on_missing", ["keep", "unload"])
def test_upload_move_delete(s3: Seaweed, tmp_path: Path, on_missing: str) -> None:
    """A version serves once an alias names it, another when it moves; without it the policy decides."""
    bucket, prefix = s3.bucket(BUCKET), f"bucket-{on_missing}"
    (tmp_path / "secret").write_text(s3.secret_access_key)
    (first, first_model), (second, second_model) = trained(1.0), trained(0.01)
    bucket.put(f"{prefix}/iris/1.4.2/model.onnx", first)
    bucket.put(f"{prefix}/iris/aliases/champion", b"1.4.2\n")
    store = {
        "url": f"s3://{BUCKET}/{prefix}",
        "endpoint": s3.endpoint,
        "region": "us-east-1",
        "allow_http": True,
        "credentials": {"access_key_id": {"env": "IRIS_KEY"}, "secret_access_key": {"file": "secret"}},
    }
    looks = {"poll_interval_s": 0.2, "start_timeout_s": 60.0}
    config = {
        "registries": {"bucket": {"object_store": store, "on_missing": on_missing, **looks}},
        "cache": {"directory": "cache"},
        "models": [{"name": "iris", "source": f"s3://{BUCKET}/{prefix}/iris@champion"}],
    }
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("IRIS_KEY", s3.access_key_id)
        with serving(tmp_path / "log", "--config", tmp_path / "gateway.yaml") as gateway:
            number, probabilities = asked(gateway)
            assert number == "1000004000002"
            expected = first_model.predict_proba(FEATURES[:5]).ravel()
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
            config_parameters = get(gateway, "/v2/models/iris/config")["parameters"]
            assert config_parameters["registry_version"]["string_value"] == "1.4.2"

            bucket.put(f"{prefix}/iris/1.10.0/model.onnx", second)
            bucket.put(f"{prefix}/iris/aliases/champion", b"1.10.0")
            until(lambda: asked(gateway)[0] == "1000010000000")
            expected = second_model.predict_proba(FEATURES[:5]).ravel()
            np.testing.assert_allclose(asked(gateway)[1], expected, atol=1e-5)

            bucket.delete(f"{prefix}/iris/aliases/champion")
            if on_missing == "keep":
                until(lambda: "no alias 'champion'" in index(gateway)["1000010000000"][1])
                assert asked(gateway)[0] == "1000010000000"
            else:
                until(lambda: index(gateway)["1000010000000"][0] == "UNAVAILABLE")
    assert s3.secret_access_key not in (tmp_path / "log").read_text()
