"""Broken rollout files while what is in force is read; loadtests.fuzz_rollouts writes more of them."""

import pytest

from loadtests.fuzz_rollouts import fuzz_rollout_files

FILES = 400


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute of a free core
async def test_the_last_good_version_stays_whatever_is_written() -> None:
    """Torn, half-written, binary, huge, deep, misspelt: refused with file and line, and nothing is mixed."""
    report = await fuzz_rollout_files(FILES)
    assert report.files == FILES
    assert report.refused > FILES // 2
    assert report.reads > FILES
