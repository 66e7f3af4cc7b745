"""Fuzzes the native gRPC transport for a time: its core guided by coverage, generated, and beside grpcio.

Runs what tests/transport/grpc_wire has, in processes of its own, so that whatever ends or hangs is they.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ATHERIS: Final = "atheris==3.0.0"
"""The last version with wheels for Python 3.11."""
ROOT: Final = Path(__file__).resolve().parent.parent
INSTALLED: Final = ROOT / "build" / "fuzz" / str(sys.implementation.cache_tag)
TESTS: Final = Path("tests", "transport", "grpc_wire")

_HANG_S: Final = 60  # an input takes milliseconds; a busy machine makes them seconds
_MOST_RSS_MIB: Final = 1024
_ROUND_S: Final = 60.0
_SLOW_S: Final = 900.0  # beyond the time asked for, on a busy machine
_LAST_CHARACTERS: Final = 4000
_MIB: Final = 1 << 20


class NoFuzzer(Exception):
    """atheris cannot be installed here; the message says why."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What a fuzzer did.

    Attributes:
        count: inputs tried, in words.
        problem: what failed, in words; empty if nothing did.
        grown_bytes: growth of the process that ran all of them, between the first inputs and its peak.
    """

    count: str
    problem: str
    grown_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """A Hypothesis test of this time and age.

    Attributes:
        file: of tests/transport/grpc_wire.
        variable: of the environment, that says how many examples.
        per_second: examples that an ordinary machine tries.
    """

    file: str
    variable: str
    per_second: float


CORE: Final = Generated("test_core_fuzz.py", "GATEWAY_FUZZ_EXAMPLES", 25.0)
DIFFERENTIAL: Final = Generated("test_differential.py", "GATEWAY_EXCHANGES", 20.0)


def install() -> None:
    """Put atheris where only the fuzzer sees it: it is for Linux and few versions of Python.

    Raises:
        NoFuzzer: pip failed.
    """
    if (INSTALLED / "atheris").is_dir():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--only-binary", ":all:", "--no-deps", "--target", str(INSTALLED), ATHERIS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoFuzzer(f"{ATHERIS}: {done.stderr.strip()[-500:]}")


def guided(seconds: float, folder: Path) -> Fuzzed:
    """Let atheris look for inputs that reach new code, in one process.

    Args:
        seconds: for how long, at least one.
        folder: for its corpus; an input that failed goes to build/fuzz.

    Raises:
        NoFuzzer: it cannot be installed.
    """
    install()
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    options = {
        "max_total_time": max(1, round(seconds)),
        "timeout": _HANG_S,
        "rss_limit_mb": _MOST_RSS_MIB,
        "max_len": 4096,
        "print_final_stats": 1,
        "artifact_prefix": f"{INSTALLED.parent}/failed-",  # stays
    }
    arguments = [str(corpus), *(f"-{name}={value}" for name, value in options.items())]
    path = os.pathsep.join(filter(None, (str(INSTALLED), os.environ.get("PYTHONPATH"))))
    code, said = _run(["-m", "loadtests.soak_atheris", *arguments], {"PYTHONPATH": path}, seconds)
    return read_libfuzzer(said, code)


def read_libfuzzer(said: str, code: int) -> Fuzzed:
    """Return what libFuzzer's output says; a run that never began is a problem, too."""
    last = said[-_LAST_CHARACTERS:]
    runs, peak = (re.search(rf"stat::{name}: +(\d+)", said) for name in _STATS)
    begun = re.search(r"INITED .*rss: (\d+)Mb", said)
    if code or not (runs and peak and begun):
        return Fuzzed("", f"exit code {code}: {last}")
    covered = re.findall(r"cov: (\d+)", said)
    count = f"{int(runs[1]):,} inputs, {covered[-1]} edges"
    return Fuzzed(count, "", (int(peak[1]) - int(begun[1])) * _MIB)


_STATS: Final = ("number_of_executed_units", "peak_rss_mb")


def generated(what: Generated, seconds: float) -> Fuzzed:
    """Run a Hypothesis test again and again, each time with other examples, until the time is over."""
    end_s = time.monotonic() + seconds
    tried = 0
    while not tried or time.monotonic() < end_s:
        round_s = min(_ROUND_S, max(end_s - time.monotonic(), 1.0))
        examples = max(1, round(what.per_second * round_s))
        # A test's own time limit is for its few examples.
        command = ["-m", "pytest", "-q", "-x", "--timeout=0", "--show-capture=no", str(TESTS / what.file)]
        code, said = _run(command, {what.variable: str(examples)}, round_s)
        if code:
            return Fuzzed(f"{tried:,} examples", said[-_LAST_CHARACTERS:])
        tried += examples
    return Fuzzed(f"{tried:,} examples", "")


def _run(arguments: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run Python in the repository's root; one that hangs is ended."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds + _SLOW_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        said = exc.stdout.decode(errors="replace") if isinstance(exc.stdout, bytes) else str(exc.stdout)
        return 1, f"{said}\nended after {exc.timeout:.0f} s"
    return done.returncode, done.stdout
