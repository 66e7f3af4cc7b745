"""Fetching buffers little of what it fetches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is known on Linux alone")
def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """64 MB fetched, hashed and obtained again take less than 32 MB of memory at their peak."""
    command = [sys.executable, "-m", "tests.registry.cache.memory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 <= int(done.stdout) < 32 << 20
