"""docs/registries.md, word for word: MLflow as a real server, training by its own library, a real gateway."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.process import ROOT, serving
from tests.servers.mlflow import ENVIRONMENT, mlflow_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTION = re.compile(r"^## With MLflow, step by step\n(.*?)^## ", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def steps() -> Iterator[tuple[str, str]]:
    """Yield the commands of the page's steps, and what the page says that they print."""
    section = SECTION.search((ROOT / "docs" / "registries.md").read_text())
    assert section is not None
    for step in STEP.finditer(section[1]):
        yield step[1], step[2] or ""


def run(commands: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-e"],
        input=commands,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_steps_with_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prints what the page says; only ports, and where MLflow is installed, are other ones."""
    install, *train, serve, ask, retrain, forget = steps()
    assert "pip install" in install[0]
    assert "mlflow server" in install[0]
    assert len(train) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "build").mkdir()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with mlflow_server() as mlflow:

        def here(commands: str) -> str:
            commands = commands.replace("build/mlflow/bin/python", f"{ENVIRONMENT}/bin/python")
            commands = commands.replace("register_iris.py ", f"register_iris.py --tracking-uri {mlflow.uri} ")
            return commands.replace("http://127.0.0.1:5000", mlflow.uri)

        def does(step: tuple[str, str], http: str = "") -> None:
            printed = run(here(step[0]).replace("localhost:8000", http), tmp_path)
            assert step[1].strip()
            assert step[1].strip() in printed

        does(train[0])
        start, wait = serve[0].strip().splitlines()
        assert "gateway serve --config configs/registry.yaml" in start
        assert wait.startswith("until curl")
        config = tmp_path / "registry.yaml"
        config.write_text(here((ROOT / "configs" / "registry.yaml").read_text()))
        with serving(tmp_path / "log", "--config", config) as gateway:
            run(wait.replace("localhost:8000", gateway.http), tmp_path)
            does(ask, gateway.http)
            does(retrain, gateway.http)
            does(forget, gateway.http)
            index = run(f"curl --silent -X POST {gateway.http}/v2/repository/index", tmp_path)
        states = {row["version"]: (row["state"], row.get("reason", "")) for row in json.loads(index)}
        assert states["2"][0] == "READY"
        assert "has no alias 'champion'" in states["2"][1]


def test_the_page_shows_the_configuration_as_it_is() -> None:
    """Without the lines for editors."""
    lines = (ROOT / "configs" / "registry.yaml").read_text().splitlines()
    shown = "\n".join(line for line in lines if not line.startswith("#"))
    assert f"```yaml\n{shown}\n```" in (ROOT / "docs" / "registries.md").read_text()
