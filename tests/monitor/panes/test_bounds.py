"""Attacks by number: categories, segments, arms, models, minutes. Bounded, counted, never fatal."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest

from gateway.config.monitor_ingest import PanesSettings
from gateway.monitor.engine_core import Core
from gateway.monitor.panes.part import Panes
from gateway.monitor.values import Applied, StreamKey
from gateway.predlog.rows import Role, RowBatch
from tests.monitor.panes.making import START_S, Profiles, batch, category, numeric, profile, traffic

KEY = StreamKey("fraud", 3, "d" * 8)
MIB = 1 << 20


def begun(**settings: Any) -> tuple[Panes, Core]:
    """Return panes over a database in memory."""
    panes = Panes(Profiles({"fraud": profile(2)}), PanesSettings(**settings))
    core = Core([panes], sqlite3.connect(":memory:", isolation_level=None))
    core.restore()
    return panes, core


def put(panes: Panes, rows: RowBatch) -> None:
    """Have rows applied just after START_S."""
    panes.apply(Applied("one", rows, START_S + 5))


def test_a_million_categories() -> None:
    """A million distinct categories are counted as OTHER, about a million, in bounded memory."""
    panes, core = begun()
    for i in range(20):
        names = [b"category-%d-%d" % (i, j) for j in range(50_000)]
        column = category("color", names)
        put(panes, batch(50_000, column, first=50_000 * i))
    pane = panes.window(KEY, START_S, START_S + 60)
    assert pane.category(0).tolist() == [0, 0, 0, 1_000_000]
    core.checkpoint()
    sketches = panes.sketches(KEY, START_S, START_S + 60)
    assert len(sketches.novel("color", 10_000)) < 1000
    counters = panes.counters()
    assert counters["novel_dropped"] == 20 * (50_000 - 4096)
    assert sketches.novel_distinct("color") == pytest.approx(20 * 4096, rel=0.1)
    assert counters["sketches_bytes"] < MIB


def test_many_segments() -> None:
    """Segments beyond the limit are `other`; their rows are all there, and the streams bounded."""
    panes, _ = begun(segment_values=5)
    for i in range(20):
        values = category("tenant", [b"tenant-%d" % (j + 5000 * i) for j in range(5000)], Role.SEGMENT)
        put(panes, batch(5000, numeric("x0", np.zeros(5000)), values, first=5000 * i))
    keys = list(panes.keys())
    assert len(keys) == 1 + 5 + 1
    assert sum(panes.window(k, START_S, START_S + 60).rows for k in keys if k.segment) == 100_000
    assert panes.counters()["segments_coarsened"] == 100_000 - 5
    wide = [category(f"s{i}", [b"v"] * 10, Role.SEGMENT) for i in range(200)]
    put(panes, batch(10, *wide))
    assert len({k.segment.partition("=")[0] for k in list(panes.keys()) if k.segment}) <= 8


def test_streams_are_bounded_segments_first() -> None:
    """When streams run out no new segments are taken on; all rows of every arm still are."""
    panes, _ = begun(streams_per_model=10, segment_values=50)
    tenants = category("tenant", [b"t%d" % (i % 40) for i in range(400)], Role.SEGMENT)
    put(
        panes,
        batch(400, numeric("x0", np.zeros(400)), tenants, arms=("a", "b"), arm_codes=np.arange(400) % 2),
    )
    assert len(list(panes.keys())) <= 10
    assert panes.counters()["segments_refused"] > 0
    put(panes, batch(10, arms=("late",)))
    assert panes.window(KEY._replace(arm="late"), START_S, START_S + 60).rows == 10


def test_many_arms() -> None:
    """Arms beyond the limit are counted together as `other`."""
    panes, _ = begun(arms=4)
    for i in range(10):
        put(panes, batch(256, arms=tuple(f"arm-{i}-{j}" for j in range(256)), arm_codes=np.arange(256)))
    sizes = {k.arm: panes.window(k, START_S, START_S + 60).rows for k in list(panes.keys())}
    assert len(sizes) == 5
    assert sizes["other"] == 2560 - 4


def test_many_models_and_digests() -> None:
    """Versions beyond the limit are counted as unwatched."""
    panes, core = begun(models=10)
    for i in range(3000):
        put(panes, batch(2, numeric("x", np.zeros(2)), model=f"model-{i}", digest=f"{i}"))
    assert len(list(panes.keys())) == 10
    assert panes.counters()["unwatched"] == 2 * 2990
    core.checkpoint()


def test_minutes_all_over_the_clock() -> None:
    """Rows of thousands of minutes at once take no more memory than is allowed; the rest is counted."""
    panes, core = begun(memory=2 * MIB, embedding_rows=1)
    rng = np.random.default_rng(1)
    for i in range(8):
        done_s = START_S - rng.integers(0, 172_800, 2000)
        tenants = category("tenant", [b"t%d" % (j % 10) for j in range(2000)], Role.SEGMENT)
        put(panes, traffic(2000, i, signals=2, done_s=done_s, more=(tenants,)))
        assert panes.counters()["panes_bytes"] <= 1.25 * 2 * MIB
        if i % 3 == 0:
            core.checkpoint()
    counters = panes.counters()
    assert counters["panes_refused"] > 0
    core.checkpoint()
    core.checkpoint()
    assert panes.counters()["panes_bytes"] <= 2 * MIB
    kept = panes.window(KEY, START_S - 172_800, START_S + 60).rows
    assert kept + counters["late"] == 16_000


def test_a_hostile_batch_of_columns() -> None:
    """Thousands of columns, of odd names and widths, are laid out within bounds."""
    panes, core = begun()
    columns = [numeric(f"c{i}\n=\x00{i}", np.zeros((3, 1))) for i in range(2000)]
    put(panes, batch(3, *columns, numeric("wide", np.zeros((3, 4096))), model="odd"))
    layout = panes.layout(StreamKey("odd", 3, "d" * 8))
    assert layout is not None
    assert len(layout.numeric) == 1024
    statuses = tuple(f"status-{i}" for i in range(256))
    put(panes, batch(256, statuses=statuses, status_codes=np.arange(256), model="odd"))
    pane = panes.window(StreamKey("odd", 3, "d" * 8), START_S, START_S + 60)
    assert len(pane.statuses) <= 65
    assert sum(pane.statuses.values()) == 259
    core.checkpoint()
