"""docs/rollouts.md, word for word: a good version is promoted, bad ones are withdrawn; no user has an error.

Only ports, the pace of the sender and, in the copied file, the times and counts that a step waits for are
other ones: with those of the page it would take ten minutes.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from loadtests.soak_rollouts_scene import until
from tests.acceptance.process import ROOT, RunningGateway, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "rollouts.md").read_text()
TRY_IT: Final = PAGE[PAGE.index("## Try it") : PAGE.index("## The file")]
BLOCK: Final = re.compile(r"^```console\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
RATE: Final = 250
SHORTER: Final = {
    r"min_bake: \d+s": "min_bake: 1s",
    r"min_requests: \d+": "min_requests: 150",
    r"min_pairs: \d+": "min_pairs: 250",
    r"skip_first: \d+s": "skip_first: 500ms",
}
"""For the copied file: what is waited for, and nothing of what is judged."""


@contextmanager
def left_running(directory: Path, command: str) -> Iterator[Callable[[], str]]:
    """Keep a command running in a terminal of its own, and end it by Ctrl-C; gives what it printed."""
    output = directory / f"{len(command)}.out"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            # Where tests run in the background of a shell, Ctrl-C is ignored by what they start.
            ["env", "--default-signal=INT", "bash", "-c", f"exec {command}"],
            cwd=directory,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield output.read_text
            assert process.poll() is None, output.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


class Reader:
    """A newcomer who types what the page says, in a copy of the repository."""

    def __init__(self, directory: Path, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._gateway = gateway
        for name, port in (("", "http"), ("ADMIN_", "admin"), ("METRICS_", "metrics")):
            url = f"http://127.0.0.1:{gateway.ready[f'{port}_port']}"
            monkeypatch.setenv(f"GATEWAY_{name}URL", url)

    def types(self, commands: str, code: int = 0) -> str:
        """Run commands of the page, as they stand; return what they print."""
        done = subprocess.run(
            ["bash", "-e"],
            input=commands,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == code, f"{commands}\n{done.stdout}"
        return done.stdout

    def leaves_running(self, command: str) -> AbstractContextManager[Callable[[], str]]:
        """Keep a command running in a terminal of its own, and end it by Ctrl-C; gives what it printed."""
        return left_running(self.directory, command)

    def sees(self, path: str = "/digits") -> dict[str, Any]:
        """Return what administration shows."""
        url = f"http://127.0.0.1:{self._gateway.ready['admin_port']}/rollouts{path}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            shown: dict[str, Any] = json.load(answer)
            return shown

    def is_told(self, phase: str) -> bool:
        """Whether the rollout has come so far; False before there is any."""
        found = self.sees("")["rollouts"]
        return bool(found) and found[0]["phase"] == phase


def copied(directory: Path) -> None:
    """Make what a fresh clone has of the page's files, but with less to wait for."""
    shutil.copytree(ROOT / "models" / "digits", directory / "models" / "digits")
    shutil.rmtree(directory / "models" / "digits" / "3", ignore_errors=True)
    shutil.copytree(ROOT / "configs", directory / "configs")
    shutil.copytree(ROOT / "examples", directory / "examples")
    (directory / ".venv").symlink_to(sys.prefix)
    file = directory / "configs" / "rollouts" / "digits.yaml"
    text = file.read_text()
    for pattern, shorter in SHORTER.items():
        text, times = re.subn(pattern, shorter, text)
        assert times, f"{pattern} is not in the file any more"
    file.write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shadow, 10 %, 50 %, promoted; then three bad versions, each withdrawn by the gate that is meant."""
    serve, send, look, worsen, audit = BLOCK.findall(TRY_IT)
    copied(tmp_path)
    prepare, make = serve.splitlines()
    assert make == "make run CONFIG=configs/demo-rollouts.yaml"
    config = tmp_path / "configs" / "demo-rollouts.yaml"
    subprocess.run(["bash", "-ec", prepare], cwd=tmp_path, check=True)
    with serving(tmp_path / "log", "--config", config) as gateway:
        reader = Reader(tmp_path, gateway, monkeypatch)
        paced = f"{send.strip()} --address {gateway.http} --rate {RATE}"
        with reader.leaves_running(paced) as sent:
            until(lambda: "no rollout, version 1: " in sent())
            promotes(reader, look)
            assert "canary, version 2: " in sent()
            assert "stable, version 1: " in sent()
            withdraws(reader, worsen)
            assert "canary, version 3: " in sent()
            reader.types(".venv/bin/gateway rollout status digits")
            assert "sound; head" in reader.types(audit)
            reader.types("rm run/rollouts/digits.yaml")
            until(lambda: not reader.sees("")["rollouts"] or reader.is_told("idle"))
            before = sent().count("no rollout, version 1: ")
            until(lambda: sent().count("no rollout, version 1: ") > before)
    assert "error" not in sent()


def promotes(reader: Reader, look: str) -> None:
    """Begin the rollout of version 2, and watch it through its four steps."""
    *commands, watch = look.strip().splitlines()
    planned = reader.types("\n".join(commands))
    assert "a new rollout starts" in planned
    until(lambda: reader.is_told("baking"))
    with reader.leaves_running(watch) as watched:
        until(lambda: reader.is_told("rollback_window"))
    # On record: by the time one looks, the shadow step and its counts may be over.
    state = reader.directory / "run" / "rollout-state" / "documents" / "documents.journal"
    assert re.search(r'"agreement.disagree":\{"bad":[1-9]', state.read_text())
    assert re.match(r"digits  [a-z ]+  step [34]/4 ", watched()), watched()
    moves = [(move["to"], move["step"]) for move in reader.sees()["history"]]
    served = [move for move in moves if move[0] in {"baking", "holding", "promoting", "rollback_window"}]
    assert sorted({step for _, step in served}) == [0, 1, 2, 3]
    assert "aborting" not in dict(moves)


def withdraws(reader: Reader, worsen: str) -> None:
    """Try version 3, bad in each way; the one that fails comes first, as on the page."""
    told = reader.types(worsen, code=1)
    assert re.search(r"was withdrawn: safety\.(errors|fallbacks): ", told), told
    retry = ".venv/bin/gateway rollout retry digits"
    assert retry.removeprefix(".venv/bin/") in TRY_IT
    make, _, wait = worsen.strip().splitlines()
    for how, why, steps in (("disagrees", "agreement.disagree", {0}), ("slow", "latency.exceed", {1, 2})):
        told = reader.types(f"{make.replace('errors', how)}\n{retry}\n{wait}", code=1)
        assert f"was withdrawn: {why}: " in told, told
        found = reader.sees()
        assert found["phase"] == "aborted"
        assert found["step"]["index"] in steps
