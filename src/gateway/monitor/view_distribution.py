"""One signal of one stream: now against its reference, and over time. Engine thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import NotFound
from gateway.monitor.pages.shown import (
    CategoryShown,
    CoverageShown,
    Distribution,
    EmbeddingShown,
    NumericShown,
)
from gateway.monitor.panes.layout import ABOVE, BELOW, INFINITE, MISSING, TYPE
from gateway.monitor.panes.pane import Pane
from gateway.monitor.values import PANE_S
from gateway.monitor.view_streams import resolved, selection_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gateway.monitor.pages.shown import Period, Selection
    from gateway.monitor.panes.layout import Layout
    from gateway.monitor.panes.sketches import Sketches
    from gateway.monitor.parts import Parts
    from gateway.monitor.profile.reference import (
        CategoryReference,
        EmbeddingReference,
        NumericReference,
        Profile,
    )
    from gateway.monitor.values import StreamKey

    Floats = npt.NDArray[np.float64]

MAX_STEPS: Final = 200
MAX_COVERAGE_STEPS: Final = 500
HOUR_S: Final = 3600
FLOOR: Final = 20
"""Categories seen less often are not named: they would tell about single persons."""
MAX_VALUES: Final = 50
PERCENTS: Final = (5.0, 25.0, 50.0, 75.0, 95.0)
_KS_95: Final = 1.358
"""Of the two-sample Kolmogorov-Smirnov statistic at 5 %, times sqrt(1/n + 1/m) (Smirnov 1948)."""


def step_of(period: Period, most: int) -> int:
    """Return the length of a step in seconds: whole minutes, whole hours from one hour on."""
    least_s = max(1.0, period.end_s - period.start_s) / most
    grain_s = PANE_S if least_s <= HOUR_S / 2 else HOUR_S
    return max(1, int(np.ceil(least_s / grain_s))) * grain_s


def steps(parts: Parts, key: StreamKey, period: Period, layout: Layout) -> tuple[int, dict[float, Pane]]:
    """Return the length of a step and the stream's panes by begin of the step, of the layout in force."""
    step_s = step_of(period, MAX_STEPS)
    read = parts.panes.minutes if step_s < HOUR_S else parts.panes.hours
    found: dict[float, Pane] = {}
    for start_s, pane in read(key, period.start_s, period.end_s):
        if pane.layout.id == layout.id:
            found.setdefault(start_s // step_s * step_s, Pane(layout)).merge(pane)
    return step_s, found


def coverage(parts: Parts, selection: Selection, period: Period) -> CoverageShown:
    """Return coverage and rows over a period, and what to mark."""
    key = resolved(parts, selection, period)
    step_s = step_of(period, MAX_COVERAGE_STEPS)
    first_s = period.start_s // step_s * step_s
    starts = np.arange(first_s, period.end_s, step_s).tolist()
    found = [parts.panes.coverage(key.model, key.version, key.arm, at_s, at_s + step_s) for at_s in starts]
    return CoverageShown(
        starts_s=starts,
        step_s=step_s,
        ratio=[one.ratio if one.produced else float("nan") for one in found],
        rows=[float(one.produced or one.applied) for one in found],
        markers=parts.pipeline.markers(key.model, period.start_s, period.end_s),
    )


def distribution(parts: Parts, selection: Selection, signal: str, period: Period) -> Distribution:
    """Return one signal over a period.

    Raises:
        NotFound: there is no such stream or signal.
    """
    key = resolved(parts, selection, period)
    layout = parts.panes.layout(key)
    if layout is None:
        raise NotFound(f"no rows of model '{selection.model}' have come")
    profile = parts.catalog.find(key.model, key.version, key.digest)
    total = parts.panes.window(key, period.start_s, period.end_s)
    step_s, by_step = steps(parts, key, period, layout)
    in_order = sorted(by_step.items())
    shown = Distribution(
        selection=selection_of(key),
        signal=signal,
        period=period,
        rows=total.effective_rows,
        reference_rows=float(profile.rows) if profile else 0.0,
        starts_s=[start_s for start_s, _ in in_order],
        step_s=step_s,
        missing=[],
        invalid=[],
    )
    panes = [pane for _, pane in in_order]
    if (index := layout.numeric_index.get(signal)) is not None:
        return _numeric(shown, profile, total, panes, index)
    if (index := layout.category_index.get(signal)) is not None:
        reference = next((c for c in profile.categories if c.name == signal), None) if profile else None
        course = _Course(layout.categories[index].values, index, total, panes, reference)
        return _category(shown, course, parts.panes.sketches(key, period.start_s, period.end_s))
    if signal in layout.embedding_index:
        found = next((e for e in profile.embeddings if e.name == signal), None) if profile else None
        sample = [(float(x), float(y)) for x, y in found.sample[:512]] if found else []
        current = _centroids(found, panes) if found and profile else []
        return replace(shown, embedding=EmbeddingShown(reference=sample, current=current))
    raise NotFound(f"model '{key.model}' has no signal '{signal}'")


def _centroids(reference: EmbeddingReference, panes: Sequence[Pane]) -> list[tuple[float, float]]:
    """Return each step's mean on the reference's axes: the projection of the members' means.

    Empty for a PROJECTION column, of whose values no means are kept; steps in which a member had no value
    are left out.
    """
    found: list[tuple[float, float]] = []
    for pane in panes:
        layout = pane.layout
        members = [layout.numeric_index[name] for name in reference.members if name in layout.numeric_index]
        if not members or len(members) != len(reference.members):
            return []
        about = layout.embeddings[layout.embedding_index[reference.name]]
        x, y = ((pane.means()[members] - about.centre) / about.scale) @ reference.axes.T
        if np.isfinite(x) and np.isfinite(y):
            found.append((float(x), float(y)))
    return found


def numeric_shown(profile: Profile | None, total: Pane, panes: Sequence[Pane], index: int) -> NumericShown:
    """Return a numeric signal now against its reference.

    Args:
        profile: of the version; None: the reference is empty.
        total: of the period.
        panes: by step.
        index: of the signal in the layout.
    """
    signal = total.layout.numeric[index]
    reference = _reference(profile, signal.name)
    bins = len(signal.edges) + 1
    counts = total.counts[index, :bins]
    extremes = total.extremes[:, index]
    least, most = _range(reference, extremes, signal.edges)
    rows, reference_rows = total.effective_rows, reference.rows if reference else 0.0
    known = rows > 0 and reference_rows > 0
    return NumericShown(
        edges=signal.edges.tolist(),
        reference=_shares(reference.counts) if reference else [0.0] * bins,
        current=_shares(counts),
        least=least,
        most=most,
        error=_KS_95 * float(np.sqrt(1 / rows + 1 / reference_rows)) if known else float("nan"),
        percents=PERCENTS,
        reference_quantiles=[float(reference.quantiles[int(p)]) for p in PERCENTS] if reference else [],
        quantiles=[
            quantiles(signal.edges, pane.counts[index, :bins], least, most).tolist() for pane in panes
        ],
    )


def quantiles(edges: Floats, counts: Floats, least: float, most: float) -> Floats:
    """Return the values at PERCENTS of a histogram, straight lines within bins; NaN without rows."""
    total = counts.sum()
    if total <= 0:
        return np.full(len(PERCENTS), np.nan)
    borders = np.concatenate([[min(least, *edges[:1])], edges, [max(most, *edges[-1:])]])
    ranks = np.concatenate([[0.0], np.cumsum(counts) / total])
    return np.asarray(np.interp(np.array(PERCENTS) / 100, ranks, borders))


def _numeric(
    shown: Distribution, profile: Profile | None, total: Pane, panes: Sequence[Pane], index: int
) -> Distribution:
    flags = np.array([_flag_shares(pane, index) for pane in panes]).reshape(-1, 5)
    reference = _reference(profile, shown.signal)
    return replace(
        shown,
        missing=flags[:, MISSING].tolist(),
        invalid=(flags[:, TYPE] + flags[:, INFINITE]).tolist(),
        below=flags[:, BELOW].tolist(),
        above=flags[:, ABOVE].tolist(),
        reference_missing=reference.missing / reference.rows if reference and reference.rows else 0.0,
        numeric=numeric_shown(profile, total, panes, index),
    )


def _flag_shares(pane: Pane, index: int) -> Floats:
    return np.asarray(pane.flags[index] / max(pane.weight, 1e-12))


@dataclass(frozen=True, slots=True)
class _Course:
    """A categorical signal: where it is in the panes of the period and of each step, and its reference."""

    values: Sequence[bytes]
    index: int
    total: Pane
    panes: Sequence[Pane]
    reference: CategoryReference | None


def _category(shown: Distribution, course: _Course, sketches: Sketches) -> Distribution:
    index, reference = course.index, course.reference
    flags = [pane.category_flags[index] / max(pane.weight, 1e-12) for pane in course.panes]
    by_flag = np.array(flags).reshape(-1, 2)
    return replace(
        shown,
        missing=by_flag[:, 0].tolist(),
        invalid=by_flag[:, 1].tolist(),
        novel=[_other(pane.category(index)) for pane in course.panes],
        reference_missing=reference.missing / reference.rows if reference and reference.rows else 0.0,
        category=_category_shown(course, sketches, shown.signal),
    )


def _category_shown(course: _Course, sketches: Sketches, signal: str) -> CategoryShown:
    counts = course.total.category(course.index)
    known = course.reference.counts if course.reference is not None else np.zeros(len(counts))
    frequent = np.maximum(counts[:-1], known[:-1])
    order = [i for i in np.argsort(-frequent, kind="stable")[:MAX_VALUES].tolist() if frequent[i] >= FLOOR]
    current, expected = np.array(_shares(counts)), np.array(_shares(known))
    by_step = [np.array(_shares(pane.category(course.index))) for pane in course.panes]
    return CategoryShown(
        values=[_text(course.values[i]) for i in order],
        reference=expected[order].tolist(),
        current=current[order].tolist(),
        reference_other=max(0.0, float(expected.sum() - expected[order].sum())),
        current_other=max(0.0, float(current.sum() - current[order].sum())),
        novel=_other(counts),
        novel_values=[(_text(value), n) for value, n in sketches.novel(signal) if n >= FLOOR],
        distinct=float((counts[:-1] > 0).sum()) + sketches.novel_distinct(signal),
        shares=[shares[order].tolist() for shares in by_step],
    )


def _other(counts: Floats) -> float:
    total = float(counts.sum())
    return float(counts[-1]) / total if total > 0 else 0.0


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _reference(profile: Profile | None, signal: str) -> NumericReference | None:
    return next((n for n in profile.numeric if n.name == signal), None) if profile else None


def _range(reference: NumericReference | None, extremes: Floats, edges: Floats) -> tuple[float, float]:
    lows = [
        float(v)
        for v in (extremes[0], *edges[:1], *([reference.least] if reference else []))
        if np.isfinite(v)
    ]
    highs = [
        float(v)
        for v in (extremes[1], *edges[-1:], *([reference.most] if reference else []))
        if np.isfinite(v)
    ]
    return min(lows, default=0.0), max(highs, default=1.0)


def _shares(counts: Floats) -> list[float]:
    total = float(counts.sum())
    return (counts / total).tolist() if total > 0 else [0.0] * len(counts)
