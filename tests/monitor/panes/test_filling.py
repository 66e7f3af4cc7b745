"""What rows come to in a pane, against counts made row by row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gateway.monitor.panes import layout as layouts
from gateway.monitor.panes.filling import Filling
from gateway.monitor.panes.layout import (
    ABOVE,
    BELOW,
    INFINITE,
    MISSING,
    SCORE_BINS,
    TYPE,
    Layout,
    bare,
    of_profile,
)
from gateway.monitor.panes.pane import Pane, from_bytes, merged
from gateway.predlog.rows import Role, RowBatch
from gateway.statistics import fourier
from tests.monitor.panes.making import (
    COLORS,
    batch,
    category,
    numeric,
    numeric_reference,
    profile,
    traffic,
)

LAYOUT = of_profile(profile(3))


def filled(rows: RowBatch, layout: Layout = LAYOUT) -> Pane:
    """Return the pane of a batch."""
    pane = Pane(layout)
    filling = Filling(layout, rows, slice(0, rows.rows), 4096)
    filling.add([pane], np.zeros(rows.rows, np.int64))
    return pane


def test_counts_are_those_of_the_reference_bins() -> None:
    """Bin i holds values in (edges[i-1], edges[i]], weighted."""
    rng = np.random.default_rng(1)
    edges = LAYOUT.numeric[0].edges
    values = np.concatenate([rng.normal(size=400), edges])  # values on an edge belong below it
    weights = rng.integers(1, 5, len(values)).astype(float)
    pane = filled(batch(len(values), numeric("x0", values), weights=weights))
    expected = np.zeros(LAYOUT.bins)
    for value, weight in zip(values, weights, strict=True):
        expected[sum(value > edge for edge in edges)] += weight
    assert pane.counts[0].tolist() == expected.tolist()
    assert pane.weight == weights.sum()
    assert pane.weight_squared == (weights**2).sum()
    assert pane.rows == len(values)


def test_moments_and_extremes() -> None:
    """Mean, variance, least and most are those of the weighted finite values."""
    values, weights = np.array([1.0, np.nan, -2.0, np.inf, 4.0]), np.array([1.0, 2, 3, 4, 5])
    pane = filled(batch(5, numeric("x1", values), weights=weights))
    chosen, held = values[[0, 2, 4]], weights[[0, 2, 4]]
    mean = np.average(chosen, weights=held)
    assert pane.means()[1] == pytest.approx(mean)
    assert pane.variances()[1] == pytest.approx(np.average((chosen - mean) ** 2, weights=held))
    assert pane.extremes[:, 1].tolist() == [-2.0, 4.0]
    assert pane.moments[1, 0] == 9.0
    assert np.isnan(pane.means()[0])


def test_flags_name_what_is_wrong_with_a_value() -> None:
    """Each value has one flag at most, and a column that is not there is missing from every row."""
    values = np.array([np.nan, np.inf, -9.0, 9.0, 0.0])
    pane = filled(batch(5, numeric("x0", values), category("x1", [b"a"] * 5), weights=2.0))
    flags = pane.flags
    assert [flags[0, f] for f in (MISSING, INFINITE, BELOW, ABOVE, TYPE)] == [2, 2, 2, 2, 0]
    assert flags[1].tolist() == [0, 0, 10, 0, 0]
    assert flags[2, MISSING] == 10


def test_a_part_where_whole_numbers_were() -> None:
    """A signal of whole numbers counts others as of the wrong type."""
    numbers = (numeric_reference("age", integer=True),)
    whole = of_profile(dataclasses.replace(profile(0), id="w", numeric=numbers, categories=(), task=None))
    pane = filled(batch(4, numeric("age", np.array([1.0, 2.5, 3.0, np.nan]))), whole)
    assert pane.flags[0].tolist() == [1, 0, 1, 0, 0]


def test_categories_other_and_missing() -> None:
    """Known categories are counted by the reference's code, others together."""
    pane = filled(
        batch(6, category("color", [b"blue", b"red", None, b"pink", b"mint", b"blue"]), weights=3.0)
    )
    assert pane.category(0).tolist() == [3.0, 0.0, 6.0, 6.0]
    assert pane.category_flags[0].tolist() == [3.0, 0.0]


def test_rows_that_never_ran_say_nothing_of_values() -> None:
    """Failed rows are counted by status and neither as missing nor among the values."""
    pane = filled(batch(7, statuses=("Overloaded",)))
    assert pane.statuses == {"Overloaded": 7.0}
    assert not pane.flags.any()
    assert not pane.category_flags.any()
    assert (pane.rows, pane.answered) == (7, 0)
    values, colors = np.array([0.0, np.nan, np.nan]), category("color", [b"red", None, None])
    columns = numeric("x0", values), colors
    pane = filled(batch(3, *columns, statuses=("", "Internal"), status_codes=[0, 0, 1]))
    assert pane.flags[:, MISSING].tolist() == [1, 2, 2, 2]
    assert pane.category_flags[0].tolist() == [1, 0]


def test_part_of_a_batch() -> None:
    """A batch may be laid out in parts, which add up to the whole."""
    rows = traffic(
        400, 9, weights=np.arange(400) % 3 + 1, statuses=("", "x"), status_codes=np.arange(400) % 2
    )
    whole, parts = filled(rows), Pane(LAYOUT)
    for part in (slice(0, 150), slice(150, 399), slice(399, 400)):
        Filling(LAYOUT, rows, part, 4096).add([parts], np.zeros(part.stop - part.start, np.int64))
    np.testing.assert_allclose(parts.sums, whole.sums, rtol=1e-12, atol=1e-9)
    assert parts.statuses == whole.statuses


def test_embeddings_are_sums_of_fourier_features() -> None:
    """The sum over standardised rows, those with anything missing left out."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 3))
    values[7, 1] = np.nan
    weights = rng.integers(1, 4, 50).astype(float)
    pane = filled(batch(50, *(numeric(f"x{i}", values[:, i]) for i in range(3)), weights=weights))
    good = np.delete(np.arange(50), 7)
    z = fourier.features(values[good], fourier.directions(3, 64, 0.5, 7))
    np.testing.assert_allclose(pane.embedding(0), weights[good] @ z, atol=1e-9)
    assert pane.embedding_weights[0].tolist() == [weights[good].sum(), (weights[good] ** 2).sum()]


def test_thinned_embeddings_stand_for_all_rows() -> None:
    """Beyond the limit, as many rows stand for all: weights add up, their squares say how few they are."""
    rows = traffic(1000, 4)
    pane, filling = Pane(LAYOUT), Filling(LAYOUT, rows, slice(0, 1000), 100)
    filling.add([pane], np.zeros(1000, np.int64))
    weight, squares = pane.embedding_weights[0]
    assert weight == pytest.approx(1000)
    assert weight**2 / squares == pytest.approx(100)


def test_scores_by_bin_and_prediction() -> None:
    """Scores are counted by bin, apart where the class is predicted; their sums give each bin's mean."""
    scores = np.array([0.0, 0.1, 0.5, 0.9, 1.0, np.nan, 1.5])
    pane = filled(batch(7, numeric("score", scores, Role.OUTPUT), weights=2.0))
    assert pane.scores.shape == (1, 2, SCORE_BINS)
    assert pane.scores[0].sum(axis=1).tolist() == [4.0, 6.0]
    assert pane.scores[0, 1, SCORE_BINS - 1] == 2.0
    assert pane.score_sums[0].sum() == pytest.approx(2 * 2.5)


def test_a_column_of_a_wide_tensor_is_found_by_its_label() -> None:
    """`NAME[label]`, or `NAME[index]` where there are no labels."""
    values = np.arange(6.0).reshape(3, 2)
    labelled = bare(batch(3, numeric("p", values, Role.OUTPUT, ("no", "yes")), numeric("q", values)))
    assert [signal.name for signal in labelled.numeric] == ["p[no]", "p[yes]", "q[0]", "q[1]"]
    pane = filled(batch(3, numeric("p", values, Role.OUTPUT, ("no", "yes"))), labelled)
    assert pane.means()[:2].tolist() == [2.0, 3.0]


def test_latency_by_powers_of_two() -> None:
    """Durations fall into [2^i, 2^(i+1)) microseconds."""
    pane = filled(
        batch(4, numeric("x0", np.zeros(4)), queue_us=[0, 1, 2, 1023], infer_us=[4, 7, 8, 2**32 - 1])
    )
    assert np.flatnonzero(pane.latency[0]).tolist() == [0, 1, 9]
    assert np.flatnonzero(pane.latency[1]).tolist() == [2, 3, 31]


def test_groups_cut_the_rows() -> None:
    """Rows added by group are the same as each group's rows alone, and the groups' sum all rows."""
    rows = traffic(500, 5, weights=np.repeat([1.0, 3.0], 250), more=(category("s", [b"a", b"b"] * 250),))
    groups = np.arange(500) % 4 - 1
    panes = [Pane(LAYOUT) for _ in range(3)]
    Filling(LAYOUT, rows, slice(0, 500), 4096).add(panes, groups)
    everything = filled(rows)
    left_out = Pane(LAYOUT)
    Filling(LAYOUT, rows, slice(0, 500), 4096).add([left_out], np.where(groups < 0, 0, -1))
    total = merged(LAYOUT, [*panes, left_out])
    assert total.counts.tolist() == everything.counts.tolist()
    assert total.category(0).tolist() == everything.category(0).tolist()
    np.testing.assert_allclose(total.sums, everything.sums, rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(total.extremes, everything.extremes)
    assert [pane.rows for pane in panes] == [125, 125, 125]


def test_panes_travel_as_bytes() -> None:
    """A pane is the same after to_bytes and from_bytes; damaged ones are told apart."""
    pane = filled(traffic(300, 6, statuses=("", "Internal"), status_codes=np.arange(300) % 2))
    data = pane.to_bytes()
    again = from_bytes(LAYOUT, data)
    assert again.sums.tolist() == pane.sums.tolist()
    assert again.statuses == pane.statuses
    np.testing.assert_array_equal(again.extremes, pane.extremes)
    for at in (0, 4, 9, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="pane"):
            from_bytes(LAYOUT, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match="pane"):
        from_bytes(LAYOUT, data[:-3])
    with pytest.raises(ValueError, match="layout"):
        from_bytes(of_profile(profile(5)), data)


def test_layouts_travel_as_bytes() -> None:
    """A layout is the same after to_bytes and from_bytes."""
    again = layouts.from_bytes(LAYOUT.to_bytes())
    assert again.to_bytes() == LAYOUT.to_bytes()
    assert again.offsets == LAYOUT.offsets
    assert [signal.values for signal in again.categories] == [COLORS]
    rows = traffic(100, 8)
    assert filled(rows, again).sums.tolist() == filled(rows).sums.tolist()


def test_nothing_of_another_role_is_taken() -> None:
    """An input of an output's name is not the output."""
    column = numeric("score", np.full(3, 0.5), Role.INPUT)
    pane = filled(batch(3, column))
    at = LAYOUT.numeric_index["score"]
    assert pane.moments[at, 0] == 0
    assert pane.flags[at, MISSING] == 3
