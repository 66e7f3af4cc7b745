"""Which build of the package is tested: the one asked for, here and in the processes that tests start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.batching import batcher
from gateway.commands.version import is_compiled


def test_the_package_under_test_is_the_build_asked_for(pytestconfig: pytest.Config) -> None:
    """With `--compiled` the request path comes from extension modules; `is_compiled` tells in any case."""
    found = batcher.__file__.endswith((".so", ".pyd"))
    assert is_compiled() is found
    assert found or not pytestconfig.getoption("--compiled")


@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sys.executable).with_name("gateway")), "version"],
        [sys.executable, "-m", "gateway", "version"],
    ],
    ids=["gateway", "python -m gateway"],
)
def test_the_command_that_tests_start_is_of_the_same_build(command: list[str], tmp_path: Path) -> None:
    """From any folder, and it says so."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("(compiled)" if is_compiled() else "(pure Python)")
