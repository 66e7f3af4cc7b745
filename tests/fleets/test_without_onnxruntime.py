"""A gateway in front of Triton alone, installed without ONNX Runtime."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gateway.backends.local import MissingBackend
from gateway.core.errors import ModelLoadError
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.types import Artifact
from tests.backends.graphs import identity, save
from tests.backends.triton.fake import FakeTriton, model

if TYPE_CHECKING:
    from pathlib import Path

_GATEWAY = "import sys; sys.modules['onnxruntime'] = None; from gateway.cli import main; main()"
_PORTS = [word for name in ("http", "grpc", "metrics", "admin") for word in (f"--{name}-port", "0")]


async def started(config: Path) -> tuple[dict[str, Any], str]:
    """Return what `gateway serve` prints when its start is over, and its log, having ended it by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _GATEWAY, "serve", "--config", str(config), "--ready-json", *_PORTS),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
        process.terminate()
        log = await process.stderr.read()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return json.loads(line), log.decode()


async def test_models_on_fleets_are_served_and_others_fail_in_words(tmp_path: Path) -> None:
    """`gateway serve` starts; a model that would run in its process says what to install."""
    save(tmp_path / "models" / "local" / "1", identity())
    async with FakeTriton({"m": model(1)}) as fake:
        config = tmp_path / "gateway.yaml"
        config.write_text(
            f"triton: [{{name: f, endpoints: ['{fake.address}'], serve: [m]}}]\n"
            f"repository: {{path: {tmp_path / 'models'}}}\n"
        )
        ready, log = await started(config)
    states = {f"{row['name']}/{row['version']}": row["state"] for row in ready["models"]}
    assert states == {"m/1": "READY", "local/1": "FAILED"}
    assert "model 'local': model.onnx needs ONNX Runtime, which is not installed" in log
    assert "Traceback" not in log


def test_the_command_line_does_not_need_it(tmp_path: Path) -> None:
    """A configuration is checked as with it."""
    config = tmp_path / "gateway.yaml"
    config.write_text("triton: [{name: f, endpoints: ['127.0.0.1:1'], serve: [m]}]\n")
    command = [sys.executable, "-c", _GATEWAY, "validate", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_what_stands_in_its_place_refuses(tmp_path: Path) -> None:
    """By the model's name, with what to install."""
    artifact = Artifact(tmp_path, tmp_path / "model.onnx", "d")
    with pytest.raises(ModelLoadError, match=r"'fraud': model\.onnx needs .* pip install"):
        await MissingBackend().load(artifact, LoadOptions(spec=ModelSpec(name="fraud")))
