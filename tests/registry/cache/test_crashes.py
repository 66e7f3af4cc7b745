"""kill -9 at every step: what comes after is right, and nothing unverified was ever handed out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [("fetch", 50), ("without-ranges", 45), ("replace-damaged", 60), ("same-content", 50), ("collect", 10)],
)
def test_killed_at_every_step(scenario: str, at_least: int, tmp_path: Path) -> None:
    """A process killed at any step leaves what the next one can use or clear away."""
    command = [sys.executable, "-m", "tests.registry.cache.crashing", scenario, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    result = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert result.get("faults") == [], done.stderr
    assert result["steps"] >= at_least
