"""`gateway monitor`: what it does with files, with a running monitor, and without its extra."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.commands.failure import CommandFailed
from gateway.commands.monitor_export import ExportOptions, export
from tests.acceptance.process import COMMAND
from tests.monitor import car_loans
from tests.monitor.watching import ROWS, START_S, watched

if TYPE_CHECKING:
    from pathlib import Path


def gateway(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [COMMAND, "monitor", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_complaints_name_file_and_line(tmp_path: Path) -> None:
    """Of every section, those of other packages among them."""
    file = tmp_path / "monitor.yaml"
    file.write_text(
        "data: state\ndetection:\n  windows: {5m: 299}\nalerts:\n  webhoks: []\npages:\n  host: 0.0.0.0\n"
    )
    done = gateway("validate", file)
    assert done.returncode == 1
    assert f"{file}:3: detection.windows: window 5m must be whole minutes" in done.stderr
    assert f"{file}:5: alerts.webhoks: unknown key; did you mean 'webhooks'?" in done.stderr
    assert f"{file}:6: pages: pages on 0.0.0.0 need a token" in done.stderr


def test_the_files_that_we_ship_are_valid() -> None:
    """`configs/monitor*.yaml`."""
    for file in sorted((car_loans.ROOT / "configs").glob("monitor*.yaml")):
        done = gateway("validate", file)
        assert (done.returncode, done.stderr) == (0, ""), file


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    """Not a traceback."""
    file = tmp_path / "monitor.yaml"
    file.write_text("data: state\n")
    program = (
        "import sys; sys.modules['datasketches'] = None; sys.argv[1:] = ['monitor', 'serve', '--config', "
        f"{str(file)!r}]; from gateway.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'model-gateway[monitor]'" in done.stderr
    assert "Traceback" not in done.stderr


async def test_labels_reports_and_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of labels is posted once though twice; a report is one small file; a subject's rows are gone."""
    monkeypatch.setenv("SUBJECTS", "a key that gateways have as well")
    async with watched(tmp_path, subject_key={"env": "SUBJECTS"}) as run:
        monkeypatch.setenv("GATEWAY_MONITOR_URL", run.monitor.pages_url)
        view_hash = run.monitor._hash_subject
        assert view_hash is not None
        rows = await run.minute(0, 10_000)
        await run.minute(10_000, 20_000, subject=view_hash("anna"))
        file = tmp_path / "truth.csv"
        truth = car_loans.repaid()
        lines = [f"row-{row},{truth[row]}" for row in sorted(set(rows.tolist()))]
        file.write_text("\n".join(["id,repaid", *lines]))
        mapped = ("--model", "car_loan", "--column", "key=id", "--column", "label=repaid")
        first = await asyncio.to_thread(gateway, "labels", file, *mapped)
        again = await asyncio.to_thread(gateway, "labels", file, *mapped)
        assert first.stdout == f"{len(lines)} joined, 0 waiting, 0 unchanged, 0 refused\n", first.stderr
        assert again.stdout == f"0 joined, 0 waiting, {len(lines)} unchanged, 0 refused\n"
        report = tmp_path / "report.json"
        told = await asyncio.to_thread(gateway, "export", "car_loan", "--out", report)
        assert told.returncode == 0, told.stderr
        assert json.loads(report.read_bytes())["model"]["model"] == "car_loan"
        kept = tmp_path / "reports"
        kept.mkdir()
        old, others = "car_loan-20200101T000000Z.json", {"car_loan-notes.json", "b-20200101T000000Z.json"}
        for name in (old, *others):
            (kept / name).write_text("{}")
        told = await asyncio.to_thread(gateway, "export", "car_loan", "--out", kept, "--keep", "30")
        assert told.returncode == 0, told.stderr
        (fresh,) = {path.name for path in kept.iterdir()} - others
        assert re.fullmatch(r"car_loan-\d{8}T\d{6}Z\.html", fresh)
        wrong = await asyncio.to_thread(gateway, "export", "nobody", "--out", report)
        assert (wrong.returncode, "nobody" in wrong.stderr) == (1, True)
        erased = await asyncio.to_thread(gateway, "erase", "anna")
        assert erased.stdout == f"{ROWS} records erased\n", erased.stderr


def reports_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.json"))


async def test_reports_are_kept_for_their_time_and_no_longer(tmp_path: Path) -> None:
    """By a clock that is moved: one report a day, those of seven days are kept."""
    async with watched(tmp_path / "state") as run:
        await run.minute(0, 10_000)
        options = ExportOptions(
            model="car_loan", out=tmp_path, url=run.monitor.pages_url, format="json", keep_days=7, query={}
        )
        reports: list[str] = []
        for day in range(12):
            await asyncio.to_thread(export, options, START_S + 86_400 * day)
            reports = reports_in(tmp_path)
            assert len(reports) == min(day + 1, 8)
        assert reports[0] == "car_loan-20260925T141400Z.json"
        single = replace(options, out=tmp_path / reports[0])
        with pytest.raises(CommandFailed, match="no directory"):
            await asyncio.to_thread(export, single, START_S)


async def test_a_subject_is_looked_for_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found while its rows are there, by its hash; not found once it was erased."""
    monkeypatch.setenv("SUBJECTS", "a key that gateways have as well")
    config = tmp_path / "monitor.yaml"
    config.write_text("data: monitor\nsubject_key: {env: SUBJECTS}\n")
    async with watched(tmp_path, subject_key={"env": "SUBJECTS"}) as run:
        monkeypatch.setenv("GATEWAY_MONITOR_URL", run.monitor.pages_url)
        view_hash = run.monitor._hash_subject
        assert view_hash is not None
        await run.minute(0, 10_000, subject=view_hash("anna"))
        await run.monitor.engine.make_durable()
        found = await asyncio.to_thread(gateway, "trace", "anna", "--config", config)
        assert (found.returncode, "monitor.sqlite" in found.stdout) == (1, True), found.stderr
        other = await asyncio.to_thread(gateway, "trace", "bert", "--config", config)
        assert (other.returncode, "in none of" in other.stdout) == (0, True), other.stderr
        await asyncio.to_thread(gateway, "erase", "anna")
        gone = await asyncio.to_thread(gateway, "trace", "anna", "--config", config)
        assert gone.returncode == 0, gone.stdout + gone.stderr
    assert gateway("trace", "anna").returncode == 2
