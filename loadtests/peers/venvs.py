"""Makes a peer's virtual environment and installs its pinned packages there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import PeerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_INSTALL_S: Final = 900
_STAMP: Final = "installed.txt"
_REASON_LINES: Final = 3


def install(venv: Path, packages: Sequence[str]) -> None:
    """Make `venv` of this Python and install `packages`; nothing if it was made with exactly those.

    An installation that failed or was interrupted leaves no stamp, so the next one starts afresh.

    Raises:
        PeerUnavailable: pip failed or took more than 15 minutes; the message holds pip's last lines.
    """
    if is_installed(venv, packages):
        return
    shutil.rmtree(venv, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *packages])
    (venv / _STAMP).write_text(_stamp(packages))


def is_installed(venv: Path, packages: Sequence[str]) -> bool:
    """Return whether `install` would do nothing."""
    stamp = venv / _STAMP
    return stamp.exists() and stamp.read_text() == _stamp(packages)


def _stamp(packages: Sequence[str]) -> str:
    return "\n".join((sys.version, *packages))


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what ties a Python program to this project."""
    ours = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_INSTALL_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise PeerUnavailable(f"{' '.join(command)} took more than {_INSTALL_S} s") from exc
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line and not line.startswith("WARNING")]
        raise PeerUnavailable(f"{' '.join(command)} failed: {' | '.join(said[-_REASON_LINES:])}")
