"""Every property of the tests, tried with many times the examples of `make test`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests.soak_table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE: Final = 5.0
"""Of what each property says; `make test` tries half of it."""

_ROOT: Final = Path(__file__).resolve().parent.parent
_LAST_CHARACTERS: Final = 4000


def properties(fraction: float) -> Iterator[Row]:
    """Run all tests that Hypothesis makes the examples of."""
    share = SHARE * fraction
    # A test's own time limit is for its few examples.
    command = ["-m", "pytest", "-q", "-m", "hypothesis", f"--examples={share}", "--timeout=0", "-n", "2"]
    done = subprocess.run([sys.executable, *command], cwd=_ROOT, capture_output=True, text=True, check=False)
    said = done.stdout[-_LAST_CHARACTERS:]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error)", said)}
    bad = sum(counts.values()) - counts.get("passed", 0)
    yield Row(
        "properties",
        f"{share:g} times their examples",
        f"{counts.get('passed', 0)} hold",
        f"{bad} do not",
        "0",
        ok=done.returncode == 0,
        why=[said],
    )
