"""kill -9 of a real process that writes: what it said is done is there, and nothing is half done."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.state import AuditChain, JournalStore
from gateway.state.verification import verify

ROOT = Path(__file__).parents[2]
KILLS = 20


def killed_writer(directory: Path, after: int) -> dict[str, int]:
    """Kill a process when it has told of so many writes; return the last it told of, by kind."""
    command = [sys.executable, "-m", "tests.state.writing", str(directory)]
    told: dict[str, int] = {"document": 0, "record": 0}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            kind, number = process.stdout.readline().split()
            told[kind] = int(number)
        process.kill()
        # What it had told of before it was dead counts as well.
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                kind, number = line.split()
                told[kind] = int(number)
    return told


@pytest.mark.slow
async def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Over 20 lives revisions and records only go on, each at most one ahead of what was told."""
    moments = random.Random(5)
    revision, seq = 0, 0
    for _ in range(KILLS):
        told = killed_writer(tmp_path, moments.randint(1, 40))
        async with JournalStore(tmp_path) as store, AuditChain(tmp_path / "audit") as chain:
            document = await store.read("a")
            assert document is not None
            assert document.value == {"next": document.revision}
            assert max(told["document"], revision + 1) <= document.revision <= told["document"] + 1
            mended = chain.head.seq > seq and chain.tail(1)[0].entry.what == "recovered"
            newest = chain.head.seq - mended
            assert max(told["record"], seq) <= newest <= max(told["record"], seq) + 1
            revision, seq = document.revision, chain.head.seq
        found = verify(tmp_path / "audit")
        assert found.fault is None
        assert found.head.seq == seq
