"""One subject erased end to end: from a monitor's files, and from the gateways' Parquet files."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.predlog.join_keys import subject_hash
from gateway.predlog.rows import Frame
from gateway.predlog.sinks.parquet import ParquetOptions, ParquetSink
from gateway.predlog.sinks.parquet_store import DirectoryStore
from tests.acceptance.process import COMMAND
from tests.monitor import car_loans
from tests.monitor.watching import START_S, Watched, watched

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from gateway.predlog.rows import RowBatch

SECRET = "a key that gateways have as well"
ANNA = subject_hash(SECRET.encode(), b"anna")
TRACES = ("loan-of-anna", "salary-of-anna", "clerk-of-anna")


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


def held(directory: Path) -> set[str]:
    """Return which traces are in the bytes of any file, as text or as hexadecimal digits."""
    content = [file.read_bytes() for file in directory.rglob("*") if file.is_file()]
    content += [unpacked(file) for file in directory.rglob("*.parquet")]
    forms = {trace: (trace.encode(), trace.encode().hex().encode()) for trace in TRACES}
    return {trace for trace, both in forms.items() if any(form in data for form in both for data in content)}


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
        assert {"loan-of-anna", "clerk-of-anna"} <= held(tmp_path)
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
    assert held(tmp_path) == {"loan-of-anna", "salary-of-anna"}
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
