"""Breaks rules of the code one by one, and looks whether the tests named for them notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[1]
TIMEOUT_S: Final = 120
"""For the tests of one mutant; one that makes them hang is found as well."""


@dataclass(frozen=True)
class Mutant:
    """A rule, and the same broken.

    Attributes:
        rule: the invariant and what is broken.
        file: module, relative to the package that is tried.
        old: what stands there, exactly once.
        new: what stands there instead.
        tests: files that have to fail, relative to the folder that is tried.
    """

    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def survivors(mutants: Sequence[Mutant], package: str, tests: str, words: Sequence[str]) -> int:
    """Try every mutant whose rule contains one of the words, all without words; return how many survived.

    Args:
        mutants: the list.
        package: folder of the modules, below `src/gateway`; "" for that itself.
        tests: folder of the tests, below `tests`; likewise.
        words: of rules.
    """
    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for part in ("src", "tests", "loadtests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for mutant in mutants:
            if words and not any(word in mutant.rule for word in words):
                continue
            outcome = _tried(mutant, tree, Path("src", "gateway", package), Path("tests", tests))
            count += outcome != "found"
            sys.stdout.write(f"{outcome:8} {mutant.rule} ({mutant.file})\n")
            sys.stdout.flush()
    return count


def _tried(mutant: Mutant, tree: Path, package: Path, tests: Path) -> str:
    """Return `found`, `SURVIVED`, `STALE` (the rule is written otherwise now) or `BROKEN` (no test ran)."""
    path = tree / package / mutant.file
    sound = path.read_text()
    if sound.count(mutant.old) != 1:
        return "STALE"
    path.write_text(sound.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "20"]
    files = [str(tests / name) for name in mutant.tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    try:
        done = subprocess.run(
            [*command, *files], cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "found"
    finally:
        path.write_text(sound)
    # A test that hangs is ended together with its process by the time limit of one test.
    return {0: "SURVIVED", 1: "found"}.get(done.returncode, "BROKEN")
