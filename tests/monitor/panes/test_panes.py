"""The part that owns all panes: windows, hours, restarts, profiles that come and go, and its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.config.monitor_ingest import PanesSettings
from gateway.monitor.engine_core import Core
from gateway.monitor.panes.part import Panes
from gateway.monitor.store.database import Database, open_database
from gateway.monitor.values import Applied, StreamKey
from gateway.predlog.rows import Role
from tests.monitor.panes.making import (
    START_S,
    Profiles,
    batch,
    category,
    numeric,
    profile,
    traffic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.predlog.rows import RowBatch

KEY = StreamKey("fraud", 3, "d" * 8)
HOUR_S = START_S // 3600 * 3600


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    with open_database(tmp_path / "monitor.db", now_s=0) as opened:
        yield opened


def begun(database: Database, profiles: Profiles | None = None, **settings: Any) -> tuple[Panes, Core]:
    """Return panes restored from the database, and their core."""
    panes = Panes(profiles or Profiles({"fraud": profile(2)}), PanesSettings(**settings))
    core = Core([panes], database.connection)
    core.restore()
    return panes, core


def put(panes: Panes, rows: RowBatch, now_s: float | None = None) -> None:
    """Have rows applied as they are done."""
    panes.apply(Applied("one", rows, float(rows.done_ns.max()) / 1e9 + 1 if now_s is None else now_s))


def test_windows_are_sums_of_minutes(database: Database) -> None:
    """Any window is the sum of its minutes, from memory, from the database and from hours alike."""
    panes, core = begun(database)
    for minute in range(0, 200, 3):
        put(panes, traffic(5, minute, signals=2, done_s=HOUR_S + 60 * minute))
        if minute % 45 == 0:
            core.checkpoint()
    core.checkpoint()
    again, _ = begun(database)
    rng = np.random.default_rng(1)
    for reader in (panes, again):
        for _ in range(20):
            first, end = sorted(rng.integers(0, 205, 2).tolist())
            window = reader.window(KEY, HOUR_S + 60 * first, HOUR_S + 60 * end)
            expected = sum(5 for minute in range(0, 200, 3) if first <= minute < end)
            assert window.rows == expected
            assert window.counts.sum() == 3 * expected
            assert (
                sum(p.rows for _, p in reader.minutes(KEY, HOUR_S + 60 * first, HOUR_S + 60 * end))
                == expected
            )
        hours = reader.hours(KEY, HOUR_S, HOUR_S + 4 * 3600)
        assert [(at - HOUR_S) / 3600 for at, _ in hours] == [0, 1, 2, 3]
        assert [pane.rows for _, pane in hours] == [100, 100, 100, 35]


def test_late_rows_reach_panes_and_hours_that_are_over(database: Database) -> None:
    """A row that comes hours late is in its minute and in its hour's sum."""
    panes, core = begun(database)
    for hour in range(3):
        put(panes, traffic(10, hour, signals=2, done_s=HOUR_S + 3600 * hour + 300))
        core.checkpoint()
    assert database.connection.execute("SELECT count(*) FROM panes_hours").fetchone() == (2,)
    assert panes.window(KEY, HOUR_S, HOUR_S + 3 * 3600).rows == 30
    put(panes, traffic(7, 99, signals=2, done_s=HOUR_S + 300), now_s=HOUR_S + 7200)
    assert panes.window(KEY, HOUR_S, HOUR_S + 3600).rows == 17
    assert panes.window(KEY, HOUR_S, HOUR_S + 3 * 3600).rows == 37
    core.checkpoint()
    panes, core = begun(database)
    assert panes.window(KEY, HOUR_S, HOUR_S + 3600).rows == 17
    assert panes.window(KEY, HOUR_S, HOUR_S + 3 * 3600).rows == 37
    put(panes, traffic(1, 100, signals=2, done_s=HOUR_S + 301), now_s=HOUR_S + 7200)
    assert panes.window(KEY, HOUR_S, HOUR_S + 3600).rows == 18


def test_rows_from_the_future_and_from_long_ago(database: Database) -> None:
    """Clocks that are wrong are counted: the future is taken as now, the distant past is left out."""
    panes, _ = begun(database)
    now_s = START_S + 10.0
    put(panes, traffic(3, 1, signals=2, done_s=now_s + 86_400), now_s)
    put(panes, traffic(4, 2, signals=2, done_s=now_s - 3 * 86_400), now_s)
    put(panes, traffic(5, 3, signals=2, done_s=now_s + 100), now_s)
    assert panes.window(KEY, START_S, START_S + 60).rows == 3
    assert panes.window(KEY, START_S, START_S + 180).rows == 8
    assert (panes.counters()["future"], panes.counters()["late"]) == (3, 4)


def test_arms_and_segments_have_streams_of_their_own(database: Database) -> None:
    """Rows are in the stream of their arm and in one per segment column, by value."""
    panes, _ = begun(database, Profiles({"fraud": profile(2, segments=("color",))}))
    tenants = category("tenant", [b"a", b"b", None, b"a"] * 5, Role.SEGMENT)
    put(
        panes,
        traffic(20, 1, signals=2, more=(tenants,), arms=("stable", "canary"), arm_codes=np.arange(20) % 2),
    )
    sizes = {(k.arm, k.segment): panes.window(k, START_S, START_S + 60).rows for k in list(panes.keys())}
    assert sizes["stable", ""] == sizes["canary", ""] == 10
    assert sizes["stable", "tenant=a"] == 5
    assert sizes["canary", "tenant=b"] == 5
    assert sum(n for (arm, segment), n in sizes.items() if segment.startswith("color=")) == 20
    tenant, everybody = panes.layout(KEY._replace(arm="stable", segment="tenant=a")), panes.layout(KEY)
    assert tenant is not None
    assert everybody is not None
    assert (len(tenant.embeddings), len(everybody.embeddings)) == (0, 1)


def test_a_version_without_a_profile_is_learned_from(database: Database) -> None:
    """Rows and missing values are counted; a weighted sample of rows is kept; a profile ends that."""
    profiles = Profiles({})
    panes, core = begun(database, profiles, reservoir_rows=50)
    for i in range(10):
        values = np.full(40, float(i))
        values[0] = np.nan
        arms = {"arms": ("stable", "shadow:x"), "arm_codes": np.arange(40) % 2}
        put(
            panes,
            batch(40, numeric("x0", values), numeric("x1", values), done_s=START_S, first=40 * i, **arms),
        )
    layout = panes.layout(KEY._replace(arm="stable"))
    assert layout is not None
    assert layout.bare
    pane = panes.window(KEY._replace(arm="stable"), START_S, START_S + 60)
    assert pane.rows == 200
    assert pane.flags[0, 0] == 10
    sample = panes.learned(*KEY[:3])
    assert sample is not None
    assert sample.rows == 50
    assert len(set(sample.columns[0].values[:, 0].tolist())) > 5
    assert set(np.array(sample.arms)[sample.arm_codes]) == {"stable"}
    core.checkpoint()
    profiles.by_model = {"fraud": profile(2)}
    put(panes, traffic(30, 1, signals=2, arms=("stable",), done_s=START_S + 60))
    assert panes.learned(*KEY[:3]) is None
    pane = panes.window(KEY._replace(arm="stable"), START_S, START_S + 120)
    assert (pane.rows, pane.layout.profile_id) == (30, "p" * 16)
    layouts = [
        pane.layout.bare
        for _, pane in panes.hours(KEY._replace(arm="stable"), START_S - 3600, START_S + 3600)
    ]
    assert sorted(layouts) == [False, True]


def test_the_sample_follows_weights(database: Database) -> None:
    """Rows that stand for more are taken more likely."""
    panes, _ = begun(database, Profiles({}), reservoir_rows=500)
    heavy = np.arange(10_000) % 10 == 0
    put(panes, batch(10_000, numeric("x", heavy.astype(float)), weights=np.where(heavy, 9.0, 1.0)))
    sample = panes.learned(*KEY[:3])
    assert sample is not None
    assert 0.4 < sample.columns[0].values.mean() < 0.6


def test_subjects_leave_the_sample(database: Database) -> None:
    """Erasing a subject takes its rows out of what profiles are learned from."""
    panes, core = begun(database, Profiles({}))
    put(panes, batch(10, numeric("x", np.arange(10.0)), subject_hashes=np.arange(10) // 5 + 7))
    assert core.erase(frozenset({7}), START_S + 600) == 5
    sample = panes.learned(*KEY[:3])
    assert sample is not None
    assert sample.columns[0].values[:, 0].tolist() == [5, 6, 7, 8, 9]
    assert core.erase(frozenset({7}), START_S + 600) == 0


def test_sketches_of_an_hour(database: Database) -> None:
    """Quantiles and novel categories are of the hour's rows, by weight, and survive a restart."""
    panes, core = begun(database)
    rng = np.random.default_rng(5)
    for i in range(10):
        values = rng.normal(size=1000)
        colors = category("color", [b"red", b"pink", b"pink", b"mint"] * 250)
        rows = batch(
            1000, numeric("x0", values), colors, first=1000 * i, weights=np.where(values > 0, 4.0, 2.0)
        )
        put(panes, rows)
    core.checkpoint()
    for reader in (panes, begun(database)[0]):
        sketches = reader.sketches(KEY, START_S, START_S + 60)
        share = 1 - 2 / 6
        found = sketches.quantiles("x0", np.array([1 - share]))
        assert found is not None
        assert abs(found[0]) < 0.06
        (value, weight), (other, less) = sketches.novel("color")
        assert (value, other) == (b"pink", b"mint")
        assert weight == pytest.approx(5000 * 3, rel=0.05)
        assert less == pytest.approx(weight / 2, rel=0.1)
        assert sketches.novel_distinct("color") == pytest.approx(2)
        assert sketches.quantiles("nothing", np.array([0.5])) is None


def test_retention(database: Database) -> None:
    """Minutes go after their time, hours and sketches after theirs, streams last."""
    panes, core = begun(database)
    put(panes, traffic(10, 1, signals=2, done_s=HOUR_S))
    put(panes, traffic(10, 2, signals=2, done_s=HOUR_S + 7200))
    core.checkpoint(expire_s=HOUR_S + 2 * 86_400 + 3600)
    assert panes.minutes(KEY, HOUR_S, HOUR_S + 3600) == []
    assert panes.window(KEY, HOUR_S, HOUR_S + 3600).rows == 10
    core.checkpoint(expire_s=HOUR_S + 31 * 86_400)
    assert list(panes.keys()) == []
    for table in ("panes_minutes", "panes_hours", "panes_sketches", "panes_streams", "panes_rows"):
        assert database.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_damaged_pane_is_left_out(database: Database) -> None:
    """A blob that was damaged is counted; what is sound is read."""
    panes, core = begun(database)
    for minute in range(3):
        put(panes, traffic(10, minute, signals=2, done_s=HOUR_S + 60 * minute))
    core.checkpoint()
    database.connection.execute("UPDATE panes_minutes SET data = x'00' WHERE rowid = 2")
    panes, _ = begun(database)
    assert panes.window(KEY, HOUR_S, HOUR_S + 600).rows == 20
    assert panes.counters()["panes_damaged"] == 1
