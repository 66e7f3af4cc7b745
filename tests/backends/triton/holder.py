"""Processes that hold shared memory as a gateway does, until they are killed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parents[3]


@contextmanager
def holding(script: str, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Sequence[str]]]:
    """Run a script in a process of its own; give it and the words of its first line. Leaving kills it."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()
        finally:
            process.kill()
