"""A reference profile from rows: two passes in bounded memory, counted by the code that counts live rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from gateway.monitor.panes.filling import Filling, chunk_rows
from gateway.monitor.panes.layout import INFINITE, MISSING, of_profile
from gateway.monitor.panes.pane import Pane
from gateway.monitor.profile.artifact import sealed
from gateway.monitor.profile.blocks import BlockPanes
from gateway.monitor.profile.embedding import embeddings, summed
from gateway.monitor.profile.labelled import Labelled
from gateway.monitor.profile.reference import (
    BINS,
    CategoryReference,
    NumericReference,
    Profile,
    SegmentReference,
)
from gateway.monitor.profile.survey import Survey
from gateway.monitor.profile.tables import Chunk, DataError
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from gateway.monitor.panes.layout import Layout
    from gateway.monitor.profile.reference import Task
    from gateway.monitor.profile.survey import NumericSurvey
    from gateway.predlog.rows import RowBatch

    Floats = npt.NDArray[np.float64]

MAX_SEGMENTS: Final = 64
"""Segments with a reference of their own: the most frequent values."""
LEAST_SEGMENT: Final = 200
"""Rows that a segment's reference needs."""
_TAIL: Final = 0.001
_SINGLE: Final = 2.0**-22
"""Twice the relative precision of float32: values rounded on the way must stay within the bounds."""


class Chunks(Protocol):
    """Rows that can be gone through more than once."""

    def __iter__(self) -> Iterator[Chunk]:
        """Give the rows in order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a profile is made for.

    Attributes:
        model: public model name.
        version: of the model; 0: any.
        created_s: wall clock, now.
        source: where the rows come from, for people.
        task: what is predicted; None: unknown.
        segments: columns that segments are made of, beside those of role SEGMENT.
        least_category: categories of fewer rows are not named: together they are OTHER.
    """

    model: str
    version: int = 0
    created_s: float = 0.0
    source: str = ""
    task: Task | None = None
    segments: tuple[str, ...] = ()
    least_category: int = 1


@dataclass(slots=True)
class _Counted:
    """The panes that the second pass fills."""

    whole: Pane
    blocks: BlockPanes
    segments: dict[str, Pane] = field(default_factory=dict)


def from_batches(batches: Iterable[RowBatch], options: BuildOptions) -> Profile:
    """Return the profile of logged rows: a window of live traffic, or a sample of it."""
    return build([Chunk(batch) for batch in batches], options)


def build(chunks: Chunks | list[Chunk], options: BuildOptions) -> Profile:
    """Return the profile of the rows, which are in order of time.

    Args:
        chunks: gone through twice.
        options: what it is made for.

    Raises:
        DataError: there are no rows or no signals, or the task names a signal that there is not.
    """
    survey = Survey(chunk.rows for chunk in chunks)
    if not survey.rows or not (survey.numeric or survey.categories or survey.projections):
        raise DataError("there are no rows, or nothing in them that could be watched")
    draft = _draft(survey, options)
    layout = of_profile(draft)
    counted = _Counted(Pane(layout), BlockPanes(layout, survey.rows))
    labelled = Labelled(options.task, layout)
    values = _segment_values(survey, draft)
    for chunk in chunks:
        _count(chunk, layout, counted, labelled, values)
    profile = _filled(draft, counted)
    profile = replace(
        profile,
        blocks=counted.blocks.thresholds(profile),
        calibration=labelled.calibration(),
        class_calibrations=labelled.class_calibrations(),
        performance=labelled.performance(),
    )
    return sealed(profile)


def _draft(survey: Survey, options: BuildOptions) -> Profile:
    """Return the profile with everything but counts: where bins end must be known before rows are counted."""
    numeric = tuple(
        _numeric(name, found, survey.sample[:, i]) for i, (name, found) in enumerate(survey.numeric.items())
    )
    categories = tuple(
        CategoryReference(
            name=name,
            role=found.role,
            values=(values := found.dictionary(options.least_category)),
            counts=np.zeros(len(values) + 1),
            rows=0.0,
            missing=0.0,
        )
        for name, found in survey.categories.items()
    )
    _check_task(options.task, {n.name for n in numeric}, {c.name for c in categories})
    of_role = [c.name for c in categories if c.role is Role.SEGMENT]
    return Profile(
        id="draft",
        model=options.model,
        version=options.version,
        created_s=options.created_s,
        source=options.source,
        rows=survey.rows,
        numeric=numeric,
        categories=categories,
        embeddings=embeddings(survey, numeric),
        task=options.task,
        segments=tuple(dict.fromkeys([*of_role, *options.segments])),
    )


def _check_task(task: Task | None, numeric: set[str], categories: set[str]) -> None:
    if task is None:
        return
    if task.score not in numeric and not any(n.startswith(f"{task.score}[") for n in numeric):
        raise DataError(f"the score {task.score!r} is no numeric signal; there are {_some(numeric)}")
    if task.prediction and task.prediction not in numeric | categories:
        raise DataError(f"the prediction {task.prediction!r} is no signal; there are {_some(numeric)}")


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"


def _numeric(name: str, found: NumericSurvey, sample: Floats) -> NumericReference:
    finite = np.sort(sample[np.isfinite(sample)])
    if not len(finite):
        finite = np.zeros(1)
    edges = quantile_edges(finite)
    low, high = np.quantile(finite, [_TAIL, 1 - _TAIL])
    seen = found.finite > 0
    return NumericReference(
        name=name,
        role=found.role,
        edges=edges,
        counts=np.zeros(len(edges) + 1),
        rows=found.rows,
        missing=found.missing,
        infinite=found.infinite,
        mean=found.mean,
        variance=found.variance,
        low=float(low - abs(low) * _SINGLE),
        high=float(high + abs(high) * _SINGLE),
        least=found.least if seen else 0.0,
        most=found.most if seen else 0.0,
        integer=found.integer and seen,
        quantiles=np.quantile(finite, np.linspace(0, 1, 101)),
    )


def quantile_edges(values: Floats) -> Floats:
    """Return at most BINS - 1 edges between values, so that the bins hold about equally many.

    An edge lies in the middle between two neighbouring values: a value that was rounded to float32 on its way
    stays in its bin, and whole numbers have edges at halves.

    Args:
        values: `[n]`, sorted, finite, at least one.
    """
    distinct, first = np.unique(values, return_index=True)
    if len(distinct) <= BINS:
        chosen = np.arange(len(distinct) - 1)
    else:
        ranks = np.arange(1, BINS) * len(values) // BINS
        chosen = np.unique(np.searchsorted(first, ranks, side="right") - 1)
        chosen = chosen[chosen < len(distinct) - 1]
    below, above = distinct[chosen], distinct[chosen + 1]
    middle = below + (above - below) / 2
    return np.unique(np.where(middle < above, middle, below))


def _segment_values(survey: Survey, draft: Profile) -> dict[str, tuple[str, bytes]]:
    """Return `column=value` -> column and value of the segments that get a reference of their own."""
    found: dict[str, tuple[str, bytes]] = {}
    for column in draft.segments:
        counts = survey.categories[column].counts if column in survey.categories else {}
        for value, rows in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            if rows >= LEAST_SEGMENT and len(found) < MAX_SEGMENTS:
                found[f"{column}={value.decode(errors='replace')}"] = (column, value)
    return found


def _count(
    chunk: Chunk, layout: Layout, counted: _Counted, labelled: Labelled, values: dict[str, tuple[str, bytes]]
) -> None:
    step = chunk_rows(layout)
    for start in range(0, chunk.rows.rows, step):
        rows = slice(start, min(start + step, chunk.rows.rows))
        filling = Filling(layout, chunk.rows, rows, rows.stop - rows.start)
        everywhere = np.zeros(filling.rows, np.int64)
        filling.add([counted.whole], everywhere)
        counted.blocks.add(filling)
        labelled.add(filling, None if chunk.labels is None else chunk.labels[rows])
        for name, (column, value) in values.items():
            inside = _inside(chunk.rows, column, value, rows)
            if inside is not None and inside.any():
                pane = counted.segments.setdefault(name, Pane(layout.for_segment()))
                filling.add([pane], np.where(inside, 0, -1))


def _inside(batch: RowBatch, name: str, value: bytes, rows: slice) -> npt.NDArray[np.bool_] | None:
    for column in batch.columns:
        if column.name == name and column.kind is ColumnKind.CATEGORY and value in column.dictionary:
            return np.asarray(column.values[rows, 0] == column.dictionary.index(value))
    return None


def _filled(draft: Profile, counted: _Counted) -> Profile:
    pane = counted.whole
    numeric = tuple(
        replace(
            n,
            counts=pane.counts[i, : len(n.edges) + 1].copy(),
            rows=float(pane.counts[i].sum() + pane.flags[i, MISSING] + pane.flags[i, INFINITE]),
            missing=float(pane.flags[i, MISSING]),
            infinite=float(pane.flags[i, INFINITE]),
        )
        for i, n in enumerate(draft.numeric)
    )
    categories = tuple(
        replace(
            c,
            counts=pane.category(i).copy(),
            rows=float(pane.category(i).sum() + pane.category_flags[i, 0]),
            missing=float(pane.category_flags[i, 0]),
        )
        for i, c in enumerate(draft.categories)
    )
    return replace(
        draft,
        numeric=numeric,
        categories=categories,
        embeddings=summed(draft.embeddings, pane),
        by_segment={name: _segment(draft, part) for name, part in counted.segments.items()},
    )


def _segment(draft: Profile, pane: Pane) -> SegmentReference:
    return SegmentReference(
        rows=pane.weight,
        numeric=tuple(
            np.append(pane.counts[i, : len(n.edges) + 1], pane.flags[i, MISSING])
            for i, n in enumerate(draft.numeric)
        ),
        categories=tuple(
            np.append(pane.category(i), pane.category_flags[i, 0]) for i in range(len(draft.categories))
        ),
    )
