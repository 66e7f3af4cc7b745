"""Profiles from rows and files: edges, counts, blocks, segments, labels."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, roc_auc_score

from gateway.commands.failure import CommandFailed
from gateway.commands.monitor_profile import ProfileOptions, made_from, profile
from gateway.config.monitor_detect import ProfileSettings
from gateway.monitor.profile.artifact import read
from gateway.monitor.profile.build import BuildOptions, from_batches, quantile_edges
from gateway.monitor.profile.catalog import ProfileCatalog
from gateway.monitor.profile.learning import Learning
from gateway.monitor.profile.reference import BINS
from gateway.monitor.profile.tables import DataError
from gateway.predlog.rows import Role
from tests.monitor.detect.streams import MODEL, Watched, healthy_profile, rows_of
from tests.monitor.panes.making import batch, category, numeric

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = BuildOptions(model=MODEL, version=3)


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)),
    )
)
def test_edges_lie_between_values(values: np.ndarray[Any, Any]) -> None:
    """Ascending, at most BINS - 1, and rounding values to float32 moves none of them to another bin."""
    values = np.sort(values)
    edges = quantile_edges(values)
    assert len(edges) <= BINS - 1
    assert (np.diff(edges) > 0).all()
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        assert len(edges) == len(distinct) - 1
    single = values.astype(np.float32).astype(np.float64)
    assert (np.searchsorted(edges, values) == np.searchsorted(edges, single)).all()


def test_bins_hold_equal_shares_and_whole_numbers_their_own() -> None:
    """A continuous signal fills all bins alike; ten whole numbers get ten bins with edges at halves."""
    rng = np.random.default_rng(1)
    found = from_batches(
        [batch(6400, numeric("a", rng.normal(size=6400)), numeric("b", rng.integers(0, 10, 6400)))], OPTIONS
    )
    a, b = found.numeric
    assert len(a.counts) == BINS
    assert a.counts.min() >= 99
    assert a.counts.sum() == a.rows == 6400
    assert b.edges.tolist() == [i + 0.5 for i in range(9)]
    assert b.integer
    assert not a.integer
    assert abs(a.mean) < 0.05
    assert a.low < a.quantiles[1] < a.quantiles[50] < a.quantiles[99] < a.high


def test_how_rows_are_cut_into_batches_changes_nothing() -> None:
    """One batch or forty: the same profile, blocks and embedding included, but for rounding."""
    rows = rows_of(np.random.default_rng(2), 4000)
    whole = from_batches([rows], OPTIONS)
    parts = from_batches([_part(rows, i, i + 100) for i in range(0, 4000, 100)], OPTIONS)
    for a, b in zip(whole.numeric, parts.numeric, strict=True):
        assert (a.counts == b.counts).all()
        assert (a.edges == b.edges).all()
        assert (a.missing, a.least, a.most) == (b.missing, b.least, b.most)
    assert whole.categories[0].values == parts.categories[0].values
    assert (whole.categories[0].counts == parts.categories[0].counts).all()
    assert whole.embeddings[0].total == pytest.approx(parts.embeddings[0].total)
    assert whole.by_segment.keys() == parts.by_segment.keys()
    assert whole.blocks["x0"]["psi"] == parts.blocks["x0"]["psi"]


def test_missing_infinite_constant_and_empty_columns_are_profiled() -> None:
    """What breaks other tools is counted: all NaN, constant, infinite, absent from the first batches."""
    first = batch(100, numeric("const", np.full(100, 7.0)), numeric("nan", np.full(100, np.nan)))
    values = np.where(np.arange(100) < 5, np.inf, 1.5)
    second = batch(100, numeric("const", np.full(100, 7.0)), numeric("late", values))
    found = {n.name: n for n in from_batches([first, second], OPTIONS).numeric}
    assert (found["const"].variance, len(found["const"].edges)) == (0.0, 0)
    assert (found["nan"].missing, found["nan"].counts.sum()) == (200, 0)
    assert (found["late"].missing, found["late"].infinite, found["late"].rows) == (100, 5, 200)


def test_blocks_know_the_seasons_and_are_never_compared_with_themselves() -> None:
    """Days that differ raise their signal's threshold alone; a block is left out of what it is held to."""
    rng = np.random.default_rng(3)
    days = [np.where(day % 7 == 6, 1.0, 0.0) + rng.normal(size=1000) for day in range(14)]
    values = np.concatenate(days)
    found = from_batches(
        [batch(14_000, numeric("season", values), numeric("calm", rng.normal(size=14_000)))], OPTIONS
    )
    assert found.blocks["season"]["psi"].quantile > 0.5
    assert found.blocks["calm"]["psi"].quantile < 0.1
    assert found.blocks["calm"]["psi"].blocks == 28
    step = np.where(np.arange(10_000) < 500, 5.0, 0.0) + rng.normal(size=10_000)
    alone = from_batches([batch(10_000, numeric("step", step), numeric("calm", step * 0 + 1))], OPTIONS)
    # Against a reference that held the block itself the difference could not exceed 19/20.
    assert alone.blocks["step"]["ks"].quantile > 0.97


def test_few_rows_have_no_blocks_and_none_at_all_are_refused() -> None:
    """Below five blocks of 500 rows there are no thresholds by blocks; nothing to watch is an error."""
    assert healthy_profile(2000).blocks == {}
    with pytest.raises(DataError, match="no rows"):
        from_batches([], OPTIONS)
    with pytest.raises(DataError, match="nothing in them"):
        from_batches([batch(10)], OPTIONS)


def test_segments_have_references_of_their_own() -> None:
    """By the values of SEGMENT columns that are frequent enough; their counts add up to the whole."""
    rng = np.random.default_rng(4)
    country = [b"de" if i % 2 else b"fr" for i in range(2000)]
    country[:3] = [b"xx", b"xx", None]  # type: ignore[list-item]
    x = np.where(np.arange(2000) % 2, 1.0, -1.0) + rng.normal(size=2000) / 10
    found = from_batches(
        [batch(2000, numeric("x", x), category("country", list(country), Role.SEGMENT))], OPTIONS
    )
    assert found.segments == ("country",)
    assert set(found.by_segment) == {"country=de", "country=fr"}
    de, fr = found.by_segment["country=de"], found.by_segment["country=fr"]
    assert de.numeric[0][:32].sum() < 20 < fr.numeric[0][:31].sum()
    assert de.rows + fr.rows == 2000 - 3


def test_a_million_categories_are_bounded() -> None:
    """The dictionary holds the most frequent, the rest is OTHER."""
    batches = []
    for k in range(10):
        values: list[bytes | None] = [b"%d" % i for i in range(k * 20_000, (k + 1) * 20_000)]
        batches.append(batch(20_100, category("c", [*values, *[b"often"] * 100])))
    c = from_batches(batches, OPTIONS).categories[0]
    assert len(c.values) == 256
    assert c.values[0] == b"often"
    assert c.counts[0] == 1000
    assert c.counts.sum() == 201_000


def test_parquet_and_csv_give_the_same_profile_with_labels(tmp_path: Path) -> None:
    """Calibration and performance agree with scikit-learn's, from either file and through the command."""
    rng = np.random.default_rng(5)
    rows = 3000
    score = rng.random(rows)
    truth = (rng.random(rows) < score).astype(np.int64)
    table = pa.table(
        {
            "age": rng.integers(18, 80, rows),
            "town": rng.choice(["a", "b", "c"], rows),
            "p": score,
            "ok": truth,
            "id": [f"row {i}" for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    pacsv.write_csv(table, tmp_path / "t.csv")
    options = ProfileOptions(
        data=tmp_path / "t.parquet",
        model="loan",
        version=2,
        out=tmp_path / "out",
        task="binary",
        score="probabilities[1]=p",
        label="ok",
        names=("input[0]=age",),
        ignored=("id",),
    )
    profile(options)
    found = read(tmp_path / "out" / "loan" / "2" / "profile.json")
    other = made_from(replace(options, data=tmp_path / "t.csv"))
    assert replace(found, created_s=0.0, source="", id="").performance == other.performance
    assert (
        [n.name for n in found.numeric] == [n.name for n in other.numeric] == ["input[0]", "probabilities[1]"]
    )
    assert [n.role for n in found.numeric] == [Role.INPUT, Role.OUTPUT]
    assert found.performance["roc_auc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert found.performance["f1"] == pytest.approx(f1_score(truth, score >= 0.5), abs=1e-12)
    assert found.calibration is not None
    inside = np.interp([0.2, 0.8], *found.calibration)
    assert inside == pytest.approx([0.2, 0.8], abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "nope"}, "no column 'nope'"),
        ({"task": "guess"}, "none of binary"),
        ({"task": "regression", "score": ""}, "needs --score"),
        ({"task": ""}, "need --task"),
        ({"score": "probabilities[1]"}, "no column 'probabilities"),
        ({"tensors": ("input",)}, "NAME=COLUMN"),
        ({"data": "empty.csv"}, "empty.csv"),
        ({"data": "torn.parquet"}, "torn.parquet"),
        ({"data": "gone.parquet"}, "no such file"),
    ],
)
def test_what_does_not_do_is_said_in_a_sentence(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Wrong options and files end the command with what to change, never with a traceback."""
    pacsv.write_csv(pa.table({"x": [1.0, 2.0], "p": [0.1, 0.9], "ok": [0, 1]}), tmp_path / "t.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    given = {"data": "t.csv", "task": "binary", "score": "s=p", "label": "ok", **change}
    given["data"] = tmp_path / given["data"]
    with pytest.raises(CommandFailed, match=message):
        profile(ProfileOptions(model="m", out=tmp_path, **given))


def test_a_version_without_a_profile_learns_one_and_is_watched_by_it(tmp_path: Path) -> None:
    """After enough rows over enough time; it is kept on disk, and a shift afterwards is found."""
    watched = Watched(healthy_profile(1000))
    watched.catalog = ProfileCatalog(learned=tmp_path)
    watched.panes = type(watched.panes)(watched.catalog, watched.panes._settings)
    watched.panes.create(watched.database)
    watched.panes.restore(watched.database)
    watched.detection = watched.fresh()
    learning = Learning(
        watched.panes,
        watched.catalog,
        ProfileSettings.model_validate({"learn_rows": 2000, "learn_time": "10m"}),
    )
    learned = []
    for _ in range(30):
        watched.run(1, rows=250, version=8)
        learned += learning.evaluate(watched.now_s)
    assert len(learned) == 1
    assert "learned" in learned[0].source
    assert read(tmp_path / MODEL / "8" / "profile.json").id == learned[0].id
    watched.run(12, rows=250, version=8, shift=1.5)
    assert ("drift", "x0") in watched.subjects()


def _part(rows: Any, start: int, stop: int) -> Any:
    arrays = [f.name for f in fields(rows) if isinstance(getattr(rows, f.name), np.ndarray)]
    return replace(
        rows,
        rows=stop - start,
        columns=tuple(replace(c, values=c.values[start:stop]) for c in rows.columns),
        keys=rows.keys[start:stop],
        **{name: getattr(rows, name)[start:stop] for name in arrays},
    )
