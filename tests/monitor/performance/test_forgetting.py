"""Retention and erasure: in memory, in the database's bytes, and for what arrives afterwards."""

from __future__ import annotations

import numpy as np

from gateway.monitor.labels.label import Label, Why
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, scores

DAY_S = 86_400


def erase(monitor: Monitor, *subjects: int) -> int:
    """Erase as the engine does: a checkpoint, then a transaction of its own."""
    monitor.checkpoint()
    monitor.database.execute("BEGIN IMMEDIATE")
    count = monitor.part.erase(monitor.database, frozenset(subjects))
    monitor.database.execute("COMMIT")
    return count


def test_a_subject_is_erased_from_memory_and_from_the_files_bytes() -> None:
    """Neither key nor label text of theirs is left; all others stay and metrics follow."""
    monitor = Monitor()
    keys = (b"of-alice-1", b"of-bob-1", b"of-alice-2")
    monitor.apply(batch(scores([0.9, 0.9, 0.2]), keys=keys, subject_hashes=[7, 8, 7]))
    monitor.post(*(Label(key, 0, "yes", source=f"clerk-{key.decode()}") for key in keys))
    monitor.checkpoint()
    assert b"of-alice-1".hex().encode() in monitor.bytes()
    assert erase(monitor, 7) == 4  # two predictions, and two labels kept for copies of them
    for trace in (b"of-alice-1", b"of-alice-2"):
        assert trace.hex().encode() not in monitor.bytes()
        assert trace not in monitor.bytes()
    for _ in range(2):
        found = monitor.part.results(KEY, START_S, START_S + 60)
        assert found is not None
        assert found.completeness.predictions == found.completeness.labelled == 1
        monitor.restart()
    assert b"of-bob-1".hex().encode() in monitor.bytes()


def test_labels_of_erased_rows_are_refused_whenever_they_come() -> None:
    """Those that wait for a row that comes too late, too; another model's, and joined ones, are not."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.5]), keys=(b"hers",), subject_hashes=7))
    monitor.part._tombstones.add([7], int(monitor.now_s * 1e9))
    assert erase(monitor, 7) == 1
    monitor.post(Label(b"late", 0, "yes"), Label(b"his", 0, "yes"))
    monitor.part.forget_keys("loan", frozenset({b"late", b""}))
    assert monitor.part.counts()["waiting"] == 1
    reply = monitor.post(*(Label(key, 0, "yes") for key in (b"hers", b"late", b"his", b"other")))
    assert [(refused.index, refused.why) for refused in reply.refused] == [(0, Why.ERASED), (1, Why.ERASED)]
    assert monitor.post(Label(b"hers", 0, "yes"), model="unheard of").waiting == 1
    monitor.apply(batch(scores([0.5]), keys=(b"hers",), subject_hashes=7, at_s=monitor.now_s + 5))
    assert monitor.post(Label(b"hers", 0, "yes")).joined == 1


def test_nobody_known_is_nobody_erased() -> None:
    """The hash 0 stands for rows whose subject is unknown."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.5])))
    assert erase(monitor, 0) == 0
    assert monitor.part.counts()["records"] == 1


def test_an_erasure_that_could_not_be_written_is_written_by_the_next_checkpoint() -> None:
    """Memory has forgotten already; the disk follows when it can."""
    monitor = Monitor()
    monitor.apply(batch(scores([0.5, 0.6]), keys=(b"gone", b"stays"), subject_hashes=[7, 8]))
    monitor.checkpoint()
    monitor.database.execute("BEGIN IMMEDIATE")
    monitor.part.erase(monitor.database, frozenset({7}))
    monitor.database.execute("ROLLBACK")
    monitor.checkpoint()
    assert b"gone".hex().encode() not in monitor.bytes()
    monitor.restart()
    assert monitor.part.counts()["records"] == 1


def test_labels_that_expired_in_a_transaction_that_failed_do_not_come_back() -> None:
    """The next checkpoint deletes them, a restart finds none."""
    monitor = Monitor()
    monitor.truth(["yes"])
    monitor.checkpoint()
    monitor.database.execute("BEGIN IMMEDIATE")
    monitor.part.expire(monitor.database, monitor.now_s + DAY_S + 1)
    monitor.database.execute("ROLLBACK")
    monitor.part.rolled_back()
    monitor.checkpoint()
    monitor.restart()
    assert (monitor.part.counts()["waiting"], monitor.part.counts()["unmatched"]) == (0, 1)


def test_predictions_are_kept_for_their_days_and_no_longer() -> None:
    """Rows past retention go from memory and disk, also out of the middle of a block."""
    monitor = Monitor(records={"rows": 1000, "days": 2})
    at_s = START_S + np.array([0.0, 600.0, 1200.0])
    monitor.apply(batch(scores([0.1, 0.2, 0.3]), keys=(b"first", b"second", b"third"), at_s=at_s))
    monitor.truth(["no"])
    monitor.checkpoint(expire_s=START_S + 2 * DAY_S + 300)
    assert b"first".hex().encode() not in monitor.bytes()
    assert monitor.part.counts()["records"] == 2
    monitor.checkpoint(expire_s=START_S + 3 * DAY_S)
    monitor.restart()
    assert monitor.part.counts()["records"] == monitor.part.counts()["waiting"] == 0
    assert monitor.part.counts()["expired"] == 3
    assert monitor.part.keys() == []
