"""One subject erased end to end: from a monitor's files, and from the gateways' Parquet files."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.commands.failure import CommandFailed
from gateway.commands.monitor_erase import erase_files
from gateway.predlog.join_keys import subject_hash
from gateway.predlog.rows import Frame
from gateway.predlog.sinks.parquet import ParquetOptions, ParquetSink
from gateway.predlog.sinks.parquet_store import DirectoryStore
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.options import SpoolOptions
from gateway.predlog.spool.spool import Spool
from tests.acceptance.process import COMMAND
from tests.monitor import car_loans
from tests.monitor.watching import START_S, Watched, watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.predlog.rows import RowBatch

SECRET = "a key that gateways have as well"
ANNA = subject_hash(SECRET.encode(), b"anna")
TRACES = ("loan-of-anna", "salary-of-anna", "clerk-of-anna", ANNA)
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4}){2,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def hers(at_s: float, arm: str = "", rows: int = 5, named: str = "loan-of-anna") -> RowBatch:
    """Return rows of a subject with ids and a category that nobody else has."""
    batch = car_loans.batch(np.arange(rows), at_s, arm=arm, subject=ANNA)
    columns = tuple(
        replace(column, dictionary=(b"salary-of-anna",), values=column.values * 0)
        if column.name == "salary_range"
        else column
        for column in batch.columns
    )
    keys = tuple(f"{named}-{number}".encode() for number in range(rows))
    return replace(batch, keys=keys, key_hashes=batch.key_hashes + 10**6, columns=columns)


def unpacked(file: Path) -> bytes:
    """Return a Parquet file's content without compression, dictionaries as they are."""
    out = pa.BufferOutputStream()
    pq.write_table(pq.read_table(file), out, compression="none")
    return bytes(out.getvalue())


def stored(file: Path) -> Iterator[bytes]:
    """Give what is in a database's tables, decompressed and decoded: text runs over the ends of pages."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for row in (row for table in tables for row in database.execute(f"SELECT * FROM {table}")):
            for value in row:
                data = value if isinstance(value, bytes) else str(value).encode()
                yield data
                with suppress(zlib.error):
                    data = zlib.decompress(data)
                    yield data
                    yield from (base64.b64decode(text) for text in BASE64.findall(data))


def forms_of(trace: str | int) -> tuple[bytes, ...]:
    """Return how a trace may be written: text, digits, the bytes of a number."""
    if isinstance(trace, str):
        return trace.encode(), trace.encode().hex().encode()
    return trace.to_bytes(8, "little"), trace.to_bytes(8, "big"), b"%d" % trace, b"%x" % trace


def held(directory: Path) -> set[str | int]:
    """Return which traces are in the bytes of any file, or in what is compressed there."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    content = [file.read_bytes() for file in files]
    content += [unpacked(file) for file in files if file.suffix == ".parquet"]
    content += [data for file in files if file.suffix == ".sqlite" for data in stored(file)]
    return {trace for trace in TRACES if any(form in data for form in forms_of(trace) for data in content)}


def gateway(*arguments: str | Path) -> str:
    """Run a command to its end; return what it printed."""
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def feed(run: Watched, *batches: RowBatch) -> None:
    """Hand batches over as they are, and make them durable."""
    for batch in batches:
        assert run.monitor.engine.offer(run.log.frame(batch).data)
    await run.monitor.engine.make_durable()


async def test_nothing_of_a_subject_is_left_in_the_monitors_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ids, nor labels, nor values that wait for a mirrored answer or for a profile; others stay."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    async with watched(tmp_path, subject_key={"env": "SUBJECTS"}) as run:
        run.clock.now_s = at_s = START_S + 30
        others = np.arange(100, 130)
        shadow = car_loans.batch(others, at_s, arm="shadow:next")
        unknown = replace(hers(at_s, named="loan-of-anna-2"), model="unwatched")
        await feed(run, shadow, car_loans.batch(others, at_s), hers(at_s), unknown)
        label = {"key": "loan-of-anna-0", "label": 1, "source": "clerk-of-anna"}
        posted = await run.api.post("/v1/labels", json={"model": "car_loan", "labels": [label]})
        assert posted.status_code == 200, posted.text
        await run.monitor.engine.make_durable()
        assert held(tmp_path) == set(TRACES)
        arms, panes = run.monitor.parts.arms, run.monitor.parts.panes
        waiting = await run.monitor.engine.call(lambda: len(arms.pairs._waiting))
        answer = await run.api.delete("/v1/subjects/anna")
        # Predictions, the label, rows that wait for their mirrored half, the sample of a model not profiled.
        assert answer.json() == {"erased": 5 + 1 + 5 + 5}
        assert await run.monitor.engine.call(lambda: len(arms.pairs._waiting)) == waiting - 5
        samples = [version.reservoir.sample() for version in panes._streams.versions.values()]
        assert not any(ANNA in sample.subject_hashes for sample in samples if sample is not None)
        assert held(tmp_path) == set()
        assert (await run.get("/v1/models/car_loan"))["model"] == "car_loan"
    assert held(tmp_path) == set()


async def counted(run: Watched, name: str) -> int:
    """Return one of the engine's counters."""
    return run.monitor.engine.status().counters.get(name, 0)


async def test_what_comes_of_a_subject_after_its_erasure_is_refused_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows out of a spool, labels of theirs, after a restart too; rows that were done later are let in."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    others = np.arange(100, 130)
    async with watched(tmp_path, subject_key={"env": "SUBJECTS"}) as run:
        run.clock.now_s = at_s = START_S + 30
        await feed(run, car_loans.batch(others, at_s), hers(at_s, named="erased-at-once"))
        label = {"key": "loan-of-anna-0", "label": 1, "source": "clerk-of-anna"}
        by_name = {"key": "anna", "label": 1}
        await run.api.post("/v1/labels", json={"model": "car_loan", "labels": [label, by_name]})
        assert (await run.api.delete("/v1/subjects/anna")).json() == {"erased": 5 + 1}
        assert held(tmp_path) == {"loan-of-anna", "clerk-of-anna"}  # nobody could know whose label that is
        await feed(run, hers(at_s - 5), hers(at_s - 5, arm="shadow:next"))
        assert await counted(run, "rows_erased_late") == 10
        assert held(tmp_path) == set()
        posted = await run.api.post("/v1/labels", json={"model": "car_loan", "labels": [label]})
        assert posted.json()["reasons"] == {"erased": 1}
        parts = run.monitor.parts
        assert await run.monitor.engine.call(lambda: len(parts.arms.pairs._waiting)) == 0
    async with watched(tmp_path, subject_key={"env": "SUBJECTS"}) as run:
        run.clock.now_s = START_S + 60
        run.log = car_loans.Log("gateway-2")
        unknown = replace(hers(at_s), model="unwatched")
        await feed(run, hers(at_s - 5), unknown)
        assert await counted(run, "rows_erased_late") == 10
        assert held(tmp_path) == set()
        await feed(run, hers(START_S + 50, named="came-back"))
        assert await counted(run, "rows_erased_late") == 10
        assert ANNA in held(tmp_path)
        assert await counted(run, "rows") == 15


@pytest.mark.parametrize("kind", ["html", "json", "parquet"])
async def test_reports_hold_sums_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Neither ids, nor hashes, nor a category of few rows: there is nothing to erase in them."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    async with watched(tmp_path / "state", subject_key={"env": "SUBJECTS"}) as run:
        run.clock.now_s = at_s = START_S + 30
        await feed(run, car_loans.batch(np.arange(100, 400), at_s), hers(at_s))
        await run.close_minute()
        report = await run.api.get(f"/v1/models/car_loan/report?format={kind}&range=1h", timeout=60)
        assert report.status_code == 200
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / f"car_loan.{kind}").write_bytes(report.content)
    assert len(report.content) > 1000
    assert held(tmp_path / "reports") == set()
    assert held(tmp_path / "state") >= {"loan-of-anna", ANNA}


def test_nothing_of_a_subject_is_left_in_parquet_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command rewrites them, dictionaries of values included; others' rows stay."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    log, at_s = car_loans.Log(), START_S
    both = [car_loans.batch(np.arange(100, 110), at_s), hers(at_s)]
    sink = ParquetSink(DirectoryStore(tmp_path / "out"), ParquetOptions())
    sink.open(lambda _epoch, _sequence: None)
    for batch in both:
        frame = log.frame(batch)
        assert isinstance(frame, Frame)
        sink.send(frame)
    sink.close()
    assert held(tmp_path) == {"loan-of-anna", "salary-of-anna", ANNA}
    settings = {
        "repository": {"path": str(tmp_path)},
        "prediction_log": {
            "secret": {"env": "SUBJECTS"},
            "defaults": {"subject": "header:x-customer"},
            "sinks": {"parquet": {"directory": "out"}},
        },
    }
    config = tmp_path / "gateway.yaml"
    config.write_text(json.dumps(settings))
    assert gateway("monitor", "erase", "anna", "--files-of", config) == "5 records erased\n"
    assert gateway("monitor", "erase", "anna", "--files-of", config) == "0 records erased\n"
    assert held(tmp_path) == set()
    (file,) = (tmp_path / "out").rglob("*.parquet")
    kept = pq.read_table(file)
    assert kept.num_rows == 10
    later = car_loans._later()["salary_range"][100:110]
    assert kept["input.salary_range"].to_pylist() == [str(value).encode() for value in later]


def test_nothing_of_a_subject_is_left_in_spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command for files and spools: what a spool holds is rewritten, or will be by who has it."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    log = car_loans.Log()
    spools = [
        Spool(tmp_path / "spool" / name, SpoolOptions(), LocalSpoolDisk()) for name in ("stream", "parquet")
    ]
    for spool in spools:
        spool.open()
        for batch in (car_loans.batch(np.arange(100, 110), START_S), hers(START_S)):
            spool.append(log.frame(batch), 0.0, 1)
    spools[0].close()
    settings = {
        "repository": {"path": str(tmp_path)},
        "prediction_log": {
            "secret": {"env": "SUBJECTS"},
            "defaults": {"subject": "header:x-customer"},
            "sinks": {
                "spool": {"directory": "spool"},
                "parquet": {"directory": "out"},
                "stream": {"socket": "log.sock"},
            },
        },
    }
    config = tmp_path / "gateway.yaml"
    config.write_text(json.dumps(settings))
    trace: list[str | Path] = [COMMAND, "monitor", "trace", "anna", "--files-of", config]
    found = subprocess.run(trace, capture_output=True, text=True, check=False, timeout=60)
    assert (found.returncode, found.stdout.count(".seg\n")) == (1, 2), found.stderr
    said = gateway("monitor", "erase", "anna", "--files-of", config)
    assert said.splitlines() == [
        "0 records erased",
        f"{tmp_path / 'spool' / 'stream'}: rewritten",
        f"{tmp_path / 'spool' / 'parquet'}: the gateway that runs rewrites it within a minute",
    ]
    assert held(tmp_path / "spool" / "stream") == set()
    spools[1].expire(2)
    assert held(tmp_path) == set()
    assert gateway("monitor", "trace", "anna", "--files-of", config).startswith("the subject is in none of ")
    spools[1].close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_that_a_gateway_could_not_read_are_not_left_in_its_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs the command as somebody else is told so; nothing is begun."""
    monkeypatch.setenv("SUBJECTS", SECRET)
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", 4711, 4711)
    sinks = {"spool": {"directory": "spool"}, "stream": {"socket": "log.sock"}}
    log = {"secret": {"env": "SUBJECTS"}, "sinks": sinks}
    config = tmp_path / "gateway.yaml"
    config.write_text(json.dumps({"repository": {"path": str(tmp_path)}, "prediction_log": log}))
    with pytest.raises(CommandFailed, match="user 4711's"):
        erase_files("anna", config)
    assert list((tmp_path / "spool").iterdir()) == []
