"""The script that generates the protobuf modules: in step, and able to tell when they are not."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/generate_protos.py"
PROTOS = ROOT / "protos"
GENERATED = ROOT / "src/gateway/_proto"


def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return generate("--check", *arguments)


def test_generated_code_is_in_step() -> None:
    """The committed modules are what the .proto files give."""
    done = check()

    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """Return copies of the folder of .proto files and of the generated files, in step."""
    protos, output = tmp_path / "protos", tmp_path / "output"
    shutil.copytree(PROTOS, protos)
    shutil.copytree(GENERATED, output, ignore=shutil.ignore_patterns("__pycache__"))
    return protos, output


def test_check_tells_what_is_out_of_step(copies: tuple[Path, Path]) -> None:
    """A changed, a new and a removed .proto file each fail the check, by name."""
    protos, output = copies
    (protos / "health.proto").write_text(
        (protos / "health.proto").read_text().replace("SERVING = 1", "SERVING = 9")
    )
    (protos / "added.proto").write_text('syntax = "proto3"; package added; message Added {}')
    (protos / "reflection_v1.proto").unlink()

    done = check("--protos", protos, "--output", output)

    assert done.returncode == 1
    assert re.findall(r"^(\w+\.pyi?): (\w+)", done.stderr, re.MULTILINE) == [
        ("added_pb2.py", "missing"),
        ("added_pb2.pyi", "missing"),
        ("reflection_v1_pb2.py", "left"),
        ("reflection_v1_pb2.pyi", "left"),
        ("health_pb2.py", "differs"),
    ]
    assert not (output / "added_pb2.py").exists()


def test_generating_brings_the_files_in_step(copies: tuple[Path, Path]) -> None:
    """Without --check the files are written and left-over ones removed, but nothing else in the folder."""
    protos, output = copies
    (protos / "reflection_v1.proto").unlink()
    (output / "health_pb2.py").write_text("")

    done = generate("--protos", protos, "--output", output)

    assert done.returncode == 0, done.stderr
    assert check("--protos", protos, "--output", output).returncode == 0
    assert not (output / "reflection_v1_pb2.py").exists()
    assert (output / "health_pb2.py").read_text() == (GENERATED / "health_pb2.py").read_text()
    assert (output / "pool.py").exists()


@pytest.mark.parametrize("content", [pytest.param("message {", id="broken"), pytest.param(None, id="none")])
def test_what_cannot_be_generated_is_told(tmp_path: Path, content: str | None) -> None:
    """A .proto file that protoc refuses, or a folder without any, is an error of its own kind."""
    if content is not None:
        (tmp_path / "broken.proto").write_text(content)

    done = check("--protos", tmp_path)

    assert done.returncode == 2
    assert ("broken.proto" if content else "no .proto files") in done.stderr


def test_unknown_form_of_generated_code_is_refused() -> None:
    """Code that a newer protoc writes otherwise is refused, not committed half rewritten."""
    script = runpy.run_path(str(SCRIPT))

    with pytest.raises(script["GenerationError"], match=r"health_pb2\.py: .* occurs 0 times"):
        script["rewrite"]("health_pb2.py", "DESCRIPTOR = pool.AddSerializedFile(b'')\n")
