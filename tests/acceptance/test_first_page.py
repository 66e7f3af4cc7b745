"""What a newcomer copies: the snippets that `gateway serve` prints, and examples/classify.py."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from tests.acceptance.process import ROOT, RunningGateway

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {"digits": 10, "filetype": 214}


def printed(gateway: RunningGateway, model: str) -> tuple[str, str]:
    """Return the curl line and the Python snippet that the gateway printed for a model."""
    _, _, rest = gateway.log.read_text().partition(f"\n{model}, version")
    curl, python = rest.split("\n\n")[:2]
    return curl.split("\n", 1)[1], python.strip()


def in_a_shell(text: str, directory: Path) -> str:
    """Run text as somebody would who pasted it into a terminal, in an empty directory."""
    done = subprocess.run(
        ["bash"], input=text + "\n", cwd=directory, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def direct(model: str) -> list[float]:
    """Return what ONNX Runtime makes of the input that the snippets send."""
    path = max((ROOT / "models" / model).glob("*/model.onnx"))
    session = onnxruntime.InferenceSession(path)
    array = np.full((1, 64), 0.5, np.float32) if model == "digits" else np.zeros((1, 2048), np.int32)
    scores: list[float] = session.run(None, {session.get_inputs()[0].name: array})[0].ravel().tolist()
    return scores


def assert_scores(scores: list[float], model: str) -> None:
    """The scores are the model's; filetype's vary by up to 6e-4 with the number of threads and rows."""
    expected = direct(model)
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert np.argmax(scores) == np.argmax(expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("model", CLASSES)
def test_the_curl_line_as_printed(demo: RunningGateway, model: str, tmp_path: Path) -> None:
    """Word for word in a shell: the JSON answer with the model's scores, and a line break."""
    curl, _ = printed(demo, model)
    assert "\n" not in curl
    out = in_a_shell(curl, tmp_path)
    assert out.endswith("\n")
    (output,) = ast.literal_eval(out)["outputs"]
    assert output["shape"] == [1, CLASSES[model]]
    assert_scores(output["data"], model)


@pytest.mark.parametrize("model", CLASSES)
def test_the_python_snippet_as_printed(demo: RunningGateway, model: str, tmp_path: Path) -> None:
    """Word for word into a file, run by an interpreter with its standard library alone."""
    _, python = printed(demo, model)
    (tmp_path / "snippet.py").write_text(python)
    out = in_a_shell(f"{sys.base_prefix}/bin/python3 -I snippet.py", tmp_path)
    (output,) = ast.literal_eval(out)
    assert_scores(output["data"], model)


FILES = {
    "page.html": b"\n\n  <!DOCTYPE html>\n<html><head><title>t</title></head><body><p>hi</p></body></html>\n",
    "table.csv": "".join(f"{i},name{i},{i * i}.5\n" for i in range(2000)).encode(),
    "empty": b"",
    "few": b"abcdefg",
}


def test_classify_tells_files_apart(demo: RunningGateway, tmp_path: Path) -> None:
    """Several files in one call: label and score of each, in order."""
    paths = []
    for name, content in FILES.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    paths.append(ROOT / "examples" / "classify.py")
    script = ROOT / "examples" / "classify.py"
    command: list[str | Path] = [sys.executable, script, "--url", f"http://{demo.http}", *paths]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = dict(line.rsplit(": ", 1) for line in out.splitlines())
    labels = [found[str(path)].split()[0] for path in paths]
    assert labels == ["html", "csv", "empty", "txt", "python"]
    assert all(0 < float(answer.split()[1]) <= 1 for answer in found.values())
