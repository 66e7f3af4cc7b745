"""docs/triton.md and the README, word for word: configurations in front of real servers, real clients.

Only addresses and paths are other ones, and a registry is asked more often than by default.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.acceptance import zoo
from tests.acceptance.process import COMMAND, ROOT, RunningGateway, serving, until
from tests.registry.mlflow_publishing import Publisher
from tests.servers.mlflow import mlflow_server
from tests.triton import models
from tests.triton.server import TritonServer, triton
from tests.triton.zoo import digits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "triton.md").read_text()
README: Final = (ROOT / "README.md").read_text()
ADDRESSES: Final = ("10.0.0.1:8001", "10.0.0.2:8001")
ASKED: Final = 300
"""Requests of which a share of 5 % gets some, but for one chance in five millions."""


def section(page: str, heading: str) -> str:
    """Return what is between a heading and the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section '{heading}'"
    return found[1]


def block(page: str, heading: str, kind: str = "yaml") -> str:
    """Return the only code block of a section."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", section(page, heading), re.MULTILINE | re.DOTALL)
    return str(found)


def here(text: str, *servers: TritonServer) -> str:
    """Put these servers in the place of the page's."""
    for address, server in zip(ADDRESSES, servers, strict=True):
        assert address in text
        text = text.replace(address, server.grpc)
    return text


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, TritonServer]]:
    """Two servers that have `mnist` in versions 1 and 2, and `pair`."""
    repository = models.write(
        tmp_path_factory.mktemp("page"),
        {"mnist": digits(more=(models.dynamic(),)), "pair": models.of_onnx({1: zoo.pair()})},
    )
    with triton(repository) as one, triton(repository) as two:
        yield one, two


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(3).integers(0, 17, (2, 64)).astype(np.float32)


def curl(url: str, body: object = None) -> Any:
    """Return what curl gets."""
    data = [] if body is None else ["--data", json.dumps(body)]
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", *data, url], capture_output=True, check=True
    )
    return json.loads(done.stdout)


def gateway(gateway: RunningGateway, *arguments: str) -> str:
    """Return what a command of ours prints about a running gateway."""
    admin = f"http://127.0.0.1:{gateway.ready['admin_port']}"
    done = subprocess.run(
        [COMMAND, *arguments], env={"GATEWAY_ADMIN_URL": admin}, capture_output=True, text=True, check=True
    )
    return done.stdout


def asked(address: str, model: str, pixels: Any) -> tuple[Any, str]:
    """Return what tritonclient gets for these pixels, and which version answered."""
    with tritonclient.grpc.InferenceServerClient(address) as client:
        sent = tritonclient.grpc.InferInput("pixels", pixels.shape, "FP32")
        sent.set_data_from_numpy(pixels)
        answer = client.infer(model, [sent])
    return answer.as_numpy("probabilities"), answer.get_response().model_version


def assert_everything_is_served(running: RunningGateway, servers: tuple[TritonServer, ...], x: Any) -> None:
    """Each model under its own name, by curl and tritonclient, with Triton's versions and answers."""
    for protocol in ("grpc", "http"):
        module = getattr(tritonclient, protocol)
        with module.InferenceServerClient(getattr(running, protocol)) as client:
            assert client.is_server_ready()
            assert client.is_model_ready("mnist", "1")
    expected, version = asked(servers[0].grpc, "mnist", x)
    found = asked(running.grpc, "mnist", x)
    np.testing.assert_array_equal(found[0], expected)
    assert found[1] == version == "2"
    about = curl(f"http://{running.http}/v2/models/mnist")
    assert (about["versions"], about["platform"]) == (["1", "2"], "python")
    values = [{"name": name, "datatype": "FP32", "shape": [1, 2], "data": [3, 4]} for name in ("a", "b")]
    answer = curl(f"http://{running.http}/v2/models/pair/infer", {"inputs": values})
    assert [output["data"] for output in answer["outputs"]] == [[6, 8], [0, 0]]


def test_in_three_lines(servers: tuple[TritonServer, TritonServer], tmp_path: Path, pixels: Any) -> None:
    """The commands as they stand, and what the page says that one sees then."""
    install, *write, serve = block(PAGE, "In three lines", "sh").splitlines()
    assert install.startswith("pip install '.[triton]'")
    assert serve == "gateway serve --config gateway.yaml"
    subprocess.run(["bash", "-ec", here("\n".join(write), *servers)], cwd=tmp_path, check=True)
    with serving(tmp_path / "log", "--config", tmp_path / "gateway.yaml") as running:
        assert_everything_is_served(running, servers, pixels)
        assert "`gateway models show NAME`" in PAGE
        shown = gateway(running, "models", "show", "mnist")
        for server in servers:
            assert re.search(rf"{server.grpc} +healthy +1, 2 ", shown), shown
        assert "`GET /fleets`" in PAGE
        (fleet,) = curl(f"http://127.0.0.1:{running.ready['admin_port']}/fleets")["fleets"]
        assert fleet["fleet"] == "fleet-a"
        assert {endpoint["address"] for endpoint in fleet["endpoints"]} == {s.grpc for s in servers}


def test_the_readme_says_the_same() -> None:
    """What its block configures is what the page's writes."""
    assert block(README, "I already run Triton") in block(PAGE, "In three lines", "sh")


def test_a_models_own_entry(servers: tuple[TritonServer, TritonServer], tmp_path: Path, pixels: Any) -> None:
    """Clients call it by another name, and one in twenty is answered by version 2."""
    config = tmp_path / "gateway.yaml"
    config.write_text(here(block(PAGE, "A model's own entry"), *servers))
    with serving(tmp_path / "log", "--config", config) as running:
        with tritonclient.grpc.InferenceServerClient(running.grpc) as client:
            assert client.is_model_ready("digits", "2")
            assert [model.name for model in client.get_model_repository_index().models] == ["digits"] * 2
            sent = tritonclient.grpc.InferInput("pixels", pixels.shape, "FP32")
            sent.set_data_from_numpy(pixels)
            answers = [client.infer("digits", [sent]).get_response() for _ in range(ASKED)]
        counts = [sum(a.model_version == version for a in answers) for version in ("1", "2")]
        assert sum(counts) == ASKED
        assert 0 < counts[1] < ASKED // 5
        assert {answer.model_name for answer in answers} == {"digits"}


@pytest.mark.slow
def test_versions_from_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias of MLflow drives two servers in explicit mode, through the directory that they share."""
    shared = tmp_path / "shared"
    made = models.of_onnx({1: zoo.scaled(1.0)})
    (shared / "fraud").mkdir(parents=True)
    (shared / "fraud" / "config.pbtxt").write_text(
        made.config()
    )  # these servers cannot run ONNX by themselves
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with (
        mlflow_server() as mlflow,
        triton(shared, mode="explicit") as one,
        triton(shared, mode="explicit") as two,
    ):
        publisher = Publisher(mlflow)

        def champion(factor: float) -> None:
            files = {name: (made_files / name).read_bytes() for name in ("model.py", "faults.py")}
            files["model.onnx"] = zoo.scaled(factor).SerializeToString()
            version = publisher.version("fraud", files)
            publisher.client.set_registered_model_alias("fraud", "champion", version)

        made_files = tmp_path / "files" / "1"
        made.write_version(tmp_path / "files", 1)
        champion(1.0)
        text = block(PAGE, "Versions from a registry")
        assert "/mnt/models" in text
        looks = "poll_interval_s: 0.2, start_timeout_s: 60"
        often = f"registries:\n  mlflow: {{mlflow: {{tracking_uri: '{mlflow.uri}'}}, {looks}}}\n"
        config = tmp_path / "gateway.yaml"
        config.write_text(here(text, one, two).replace("/mnt/models", str(shared)) + often)
        with serving(tmp_path / "log", "--config", config) as running:
            url = f"http://{running.http}/v2/models/fraud"
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [3, 4]}]}
            assert curl(f"{url}/infer", body)["outputs"][0]["data"] == [3, 4]
            champion(2.0)
            until(lambda: bool(curl(url).get("versions") == ["2"]))
            assert curl(f"{url}/infer", body)["outputs"][0]["data"] == [6, 8]
            for server in (one, two):
                assert server.says("/v2/models/fraud/versions/2/ready")
        assert "`fraud/.7.sha256`" in PAGE
        assert (shared / "fraud" / ".2.sha256").exists()
