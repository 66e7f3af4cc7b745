"""docs/drift.md, word for word: healthy, then drift named within two windows, told, and a canary withdrawn.

Only ports are other ones, and nobody waits for longer than it takes. The demo's windows are of one minute of
the wall clock, so this takes minutes, nearly all of them asleep.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.acceptance.process import ROOT, serving
from tests.acceptance.test_rollouts_page import BLOCK, Reader, left_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "drift.md").read_text()
TRY_IT: Final = PAGE[PAGE.index("## Try it") : PAGE.index("## How it works")]
PATIENCE_S: Final = 240
"""Two windows, the one under way, and a slow machine; it bounds hangs alone."""


class Monitor:
    """The monitor as its API shows it.

    Attributes:
        url: of its pages.
    """

    def __init__(self, log: Path) -> None:
        announced = re.compile(r"^Monitor: (\S+)", re.MULTILINE)
        until(lambda: announced.search(log.read_text()) is not None)
        self.url = announced.findall(log.read_text())[0]

    def get(self, path: str) -> Any:
        """Return an answer of the API."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def standing(self) -> dict[str, str]:
        """Return subject -> summary of alarms of drift that stand."""
        alarms = self.get("/v1/alarms")["alarms"]
        return {a["subject"]: a["summary"] for a in alarms if a["kind"] == "drift" and a["cleared_s"] is None}

    def has_all(self) -> bool:
        """Whether every row that the gateway produced has come; the last ones may be under way."""
        (model,) = self.get("/v1/models")["models"]
        return bool(model["coverage"]["applied"] == model["coverage"]["produced"])

    def healthy_windows(self) -> int:
        """Return how many windows were compared, none of whose tests found anything."""
        scores = self.get("/v1/models/car_loan/scores?window=1m")["scores"]
        ends = {score["end_s"] for score in scores if score["finding"] == "ok"}
        return len(ends - {score["end_s"] for score in scores if score["finding"] == "drift"})


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds."""
    hopeless_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < hopeless_s, "it never came to hold"
        time.sleep(0.25)


def copied(directory: Path) -> None:
    """Make what a fresh clone has of the page's files; the pages are on a free port."""
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, directory / name)
    shutil.copytree(ROOT / "models" / "car_loan", directory / "models" / "car_loan")
    shutil.copytree(ROOT / "build" / "car_loan", directory / "build" / "car_loan")
    (directory / ".venv").symlink_to(sys.prefix)
    substitute(directory / "configs" / "monitor-demo.yaml", "pages:\n", "pages:\n  port: 0\n")


def substitute(file: Path, text: str, other: str) -> None:
    """Replace some text in a copied file."""
    found = file.read_text()
    assert text in found, f"{text} is not in {file.name} any more"
    file.write_text(found.replace(text, other))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No alarm while nothing changed; then `car_value` is named and told, and version 2 is withdrawn."""
    serve, send, listen, look, drift, try_canary, export = BLOCK.findall(TRY_IT)
    prepare, make = serve.splitlines()
    assert (prepare, make) == (
        "mkdir -p run/drift-rollouts",
        "make run CONFIG=configs/demo-drift.yaml",
    )
    copied(tmp_path)
    subprocess.run(["bash", "-ec", prepare], cwd=tmp_path, check=True)
    with left_running(tmp_path, f"{listen.strip()} --port 0") as printed:
        until(lambda: "waiting for alerts on " in printed())
        substitute(
            tmp_path / "configs" / "monitor-demo.yaml", "http://127.0.0.1:8099/", printed().split()[-1]
        )
        walk(tmp_path, monkeypatch, printed, (send, look, drift, try_canary, export))


def walk(
    directory: Path, monkeypatch: pytest.MonkeyPatch, printed: Callable[[], str], blocks: tuple[str, ...]
) -> None:
    """Do what the page says once everything is in its place."""
    send, look, drift, try_canary, export = blocks
    configs, log = directory / "configs", directory / "log"
    watched = ("--with-monitor", configs / "monitor-demo.yaml")
    with serving(log, "--config", configs / "demo-drift.yaml", *watched) as gateway:
        monitor = Monitor(log)
        reader = Reader(directory, gateway, monkeypatch)
        monkeypatch.setenv("GATEWAY_MONITOR_URL", monitor.url)
        here = f" --address {gateway.http} --monitor {monitor.url}"
        with reader.leaves_running(send.strip() + here) as sent:
            until(lambda: bool(monitor.get("/v1/models")["models"]) and monitor.healthy_windows() >= 1)
            assert not monitor.standing()
            assert json.loads(
                reader.types(look.splitlines()[0].replace("http://127.0.0.1:8010", monitor.url))
            )
        assert "error" not in sent()
        with reader.leaves_running(drift.strip() + here) as sent:
            until(lambda: "car_value" in monitor.standing())
            assert "in 2 of 3 windows of 1m" in monitor.standing()["car_value"]
            until(lambda: "raised: page: car_loan version 1: car_value drifted" in printed())
            withdraws(reader, try_canary, monitor)
        assert "error" not in sent()
        until(monitor.has_all)
        assert "car_loan.html: " in reader.types(export)
        report = (reader.directory / "run" / "car_loan.html").read_bytes()
        assert b"car_value" in report
        assert len(report) < 2_000_000


def withdraws(reader: Reader, try_canary: str, monitor: Monitor) -> None:
    """Try version 2, which the gate that asks the monitor refuses."""
    substitute(
        reader.directory / "configs" / "rollouts" / "car_loan.yaml", "http://127.0.0.1:8010", monitor.url
    )
    told = reader.types(try_canary, code=1)
    assert "was withdrawn: drift.external: " in told, told
