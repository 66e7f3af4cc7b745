"""Exactly once, whatever comes twice, late, out of order, or between crashes."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._proto import prediction_log_pb2 as pb
from gateway.monitor.engine_core import Core, Offered, Receipt
from gateway.monitor.store.errors import StoreError
from gateway.monitor.values import StreamKey
from gateway.predlog.rows import Accounting, Produced
from gateway.predlog.wire import Producer, accounting_frame
from tests.monitor.engine.cores import Crash, Monitor
from tests.monitor.panes.making import START_S, frame, traffic
from tests.properties import examples

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.monitor.values import Applied

KEY = StreamKey("fraud", 3, "d" * 8)


def frames_of(producer: str, count: int, rows: int = 10, epoch: int = 1) -> list[bytes]:
    """Return a producer's frames 1 to count, seconds apart."""
    base = zlib.crc32(producer.encode()) % 1000
    return [
        frame(traffic(rows, base + i, signals=2, done_s=START_S + i), i + 1, producer, epoch)
        for i in range(count)
    ]


def sums(monitor: Monitor) -> list[float]:
    """Return everything in the panes that is exact."""
    pane = monitor.panes.window(KEY, START_S - 600, START_S + 600)
    if not pane.rows:
        return [0.0]
    return [pane.rows, pane.weight, *pane.counts.ravel().tolist(), *pane.category(0).tolist(), pane.answered]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """A monitor over a new file."""
    made = Monitor(tmp_path / "monitor.db")
    yield made
    made.close()


def test_eight_producers_are_one_stream(tmp_path: Path) -> None:
    """The panes of eight producers' rows are those of one producer with all of them."""
    rows = [traffic(25, i, signals=2, done_s=START_S + i * 3) for i in range(40)]
    many, one = Monitor(tmp_path / "many.db"), Monitor(tmp_path / "one.db")
    many.take([frame(batch, i // 8 + 1, f"gateway-{i % 8}") for i, batch in enumerate(rows)])
    one.take([frame(batch, i + 1) for i, batch in enumerate(rows)])
    assert sums(many) == sums(one)
    assert sums(many)[0] == 1000
    ours, theirs = (m.panes.window(KEY, START_S, START_S + 600) for m in (many, one))
    np.testing.assert_allclose(ours.sums, theirs.sums, rtol=1e-12, atol=1e-9)
    many.close()
    one.close()


@settings(max_examples=examples(25), deadline=None)
@given(st.data())
def test_applied_exactly_once(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Frames sent again, late, and between crashes and checkpoints count once each."""
    monitor = Monitor(tmp_path_factory.mktemp("once") / "monitor.db")
    sent = [f for producer in ("a", "b") for f in frames_of(producer, 5, rows=3)]
    reference = Monitor(tmp_path_factory.mktemp("once") / "reference.db")
    reference.take(sent)
    durable: set[int] = set()
    taken: set[int] = set()
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["take", "take", "take", "checkpoint", "crash"]))
        if action == "take":
            chosen = data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=6))
            jump_s = data.draw(st.sampled_from([1.0, 90.0, 86_000.0]))
            monitor.take([sent[i] for i in chosen], START_S + jump_s)
            taken |= set(chosen)
        elif action == "checkpoint":
            monitor.core.checkpoint()
            durable = set(taken)
        else:
            monitor.restart()
            taken = set(durable)
            assert sums(monitor)[0] == 3 * len(taken)
    monitor.take(sent)
    assert sums(monitor) == sums(reference)
    monitor.close()
    reference.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_every_statement(tmp_path: Path, seed: int) -> None:
    """Wherever a checkpoint is cut off, a restart has all of it or nothing; what comes again counts once."""
    run_crashes(tmp_path, seed, points=40)


def run_crashes(path: Path, seed: int, points: int) -> int:
    """Crash at `points` random statements of checkpoints; return how many crashes there were."""
    rng = random.Random(seed)
    sent = frames_of("a", 60, rows=4)
    monitor = Monitor(path / f"crashes-{seed}.db")
    crashes = done = 0
    while crashes < points:
        upto = rng.randint(done, min(len(sent), done + 3))
        monitor.take(sent[:upto])
        monitor.connection.crash_at = monitor.connection.statements + rng.randint(1, 18)
        try:
            monitor.core.checkpoint(expire_s=START_S + 60)
            done = upto
        except (Crash, StoreError):
            crashes += 1
        monitor.restart()
        applied, durable = monitor.core.positions.at("a", 1)
        assert applied == durable
        assert applied in (done, upto)
        done = applied
        assert sums(monitor)[0] == 4 * done
        if done == len(sent):
            monitor.close()
            path = path / "next"
            monitor, done = Monitor(path / f"crashes-{seed}-{crashes}.db"), 0
    monitor.take(sent)
    assert sums(monitor)[0] == 4 * len(sent)
    monitor.close()
    return crashes


@pytest.mark.parametrize("at", range(1, 20))
def test_a_checkpoint_that_fails_is_made_up_for(tmp_path: Path, at: int) -> None:
    """With the disk full at any statement nothing is lost: the next checkpoint has it all."""
    monitor = Monitor(tmp_path / "monitor.db")
    sent = frames_of("a", 6)
    monitor.take([*sent[:3], _accounts(0)])
    monitor.core.checkpoint()
    monitor.take([*sent[3:], _accounts(60)])
    monitor.connection.fail_at = monitor.connection.statements + at
    try:
        monitor.core.checkpoint()
    except StoreError as exc:
        assert "full" in str(exc)  # noqa: PT017 - not every statement is of a checkpoint
        assert monitor.core.positions.at("a", 1) == (6, 3)
        assert monitor.core.generation == 1
    monitor.connection.fail_at = None
    assert sums(monitor)[0] == 60
    monitor.core.checkpoint()
    assert monitor.core.positions.at("a", 1) == (6, 6)
    before = sums(monitor)
    monitor.restart()
    assert sums(monitor) == before
    covered = monitor.panes.coverage("fraud", 3, "", START_S - 600, START_S + 600)
    assert (covered.produced, covered.applied) == (60, 60)
    monitor.close()


def _accounts(rows: int) -> bytes:
    accounting = Accounting((Produced("fraud", 3, "", rows),), (), START_S * 1_000_000_000 + rows + 1)
    return accounting_frame(Producer("a", 1), 6, accounting).data


class Unable:
    """A part that cannot flush again."""

    name = "unable"

    def create(self, database: sqlite3.Connection) -> None: ...
    def restore(self, database: sqlite3.Connection) -> None: ...
    def apply(self, applied: Applied) -> None: ...
    def flush(self, database: sqlite3.Connection) -> None:
        database.execute("SELECT 1")

    def expire(self, database: sqlite3.Connection, now_s: float) -> None: ...
    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:
        return 0


def test_a_part_that_cannot_repeat_stops_checkpoints(monitor: Monitor) -> None:
    """Nothing more is said to be durable once a part's changes are lost; applying goes on."""
    core = Core([Unable()], monitor.connection)
    core.restore()
    core.take([Offered(frames_of("a", 1)[0], START_S)])
    monitor.connection.fail_at = monitor.connection.statements + 2
    with pytest.raises(StoreError):
        core.checkpoint()
    monitor.connection.fail_at = None
    assert "unable" in core.stuck
    with pytest.raises(StoreError, match="restart"):
        core.checkpoint()
    assert core.positions.at("a", 1) == (1, 0)


def _broken(kind: str) -> bytes:
    message = pb.LogFrame.FromString(frames_of("a", 1)[0])
    if kind == "crc":
        message.crc32 ^= 1
    elif kind == "schema":
        message.schema_version = 99
    elif kind == "malformed":
        message.payload = b"\xff" * 10
        message.crc32 = zlib.crc32(message.payload)
    elif kind == "rows":
        message.rows = 11
    elif kind == "empty":
        message.payload = b""
    elif kind == "epoch":
        message.epoch = (1 << 64) - 1
    elif kind == "sequence":
        message.sequence = 0
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("crc", "crc"),
        ("schema", "schema"),
        ("malformed", "malformed"),
        ("rows", "malformed"),
        ("empty", "malformed"),
        ("epoch", "sequence"),
        ("sequence", "sequence"),
    ],
)
def test_refused_frames_are_counted_and_passed_over(monitor: Monitor, kind: str, reason: str) -> None:
    """What cannot be used is refused with its reason, passed over, and never fatal."""
    receipts: list[Receipt] = []
    monitor.core.take([Offered(_broken(kind), START_S, receipts.append)])
    assert [receipt.refused for receipt in receipts] == [reason]
    assert monitor.core.counters[f"refused_{reason}"] == 1
    assert sums(monitor)[0] == 0
    monitor.core.take([Offered(data, START_S, receipts.append) for data in frames_of("a", 2)[1:]])
    assert receipts[-1].refused == ""
    assert sums(monitor)[0] == 10
    monitor.core.checkpoint()


def test_bytes_that_are_no_frame(monitor: Monitor) -> None:
    """Anything may come: random bytes, nothing, too much."""
    receipts: list[Receipt] = []
    rng = random.Random(1)
    data = [rng.randbytes(n) for n in (1, 10, 1000)] + [b"", b"\0" * ((4 << 20) + 1)]
    monitor.core.take([Offered(one, START_S, receipts.append) for one in data])
    assert all(receipt.refused for receipt in receipts)
    assert receipts[-1].refused == "too_large"


def test_a_refused_frame_far_ahead_is_not_believed(monitor: Monitor) -> None:
    """A damaged header must not have frames acknowledged that never came."""
    message = pb.LogFrame.FromString(frames_of("a", 1)[0])
    message.sequence, message.crc32 = 1 << 35, 0
    monitor.take([message.SerializeToString()])
    assert monitor.core.positions.at("a", 1)[0] == 0


def test_a_parts_fault_stops_nobody(monitor: Monitor) -> None:
    """What a part raises is counted; the others go on."""

    class Failing(Unable):
        name = "failing"

        def apply(self, applied: Applied) -> None:
            raise ZeroDivisionError

    core = Core([Failing(), monitor.panes], monitor.connection)
    core.take([Offered(frames_of("a", 1)[0], START_S)])
    assert core.counters["part_failed_failing"] == 1
    assert sums(monitor)[0] == 10
