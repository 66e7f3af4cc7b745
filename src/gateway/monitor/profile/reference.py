"""The values of a reference profile: the layout of every pane, and what windows are compared with."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from gateway.predlog.rows import Role

BINS: Final = 64
"""Reference-quantile bins of a numeric signal, the open ones at both ends included; fewer if values tie."""

DICTIONARY: Final = 256
"""Categories that are counted exactly; the rest is OTHER."""


class TaskKind(enum.Enum):
    """What the model predicts."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    RANKING = "ranking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Which logged columns are the prediction.

    Attributes:
        kind: what is predicted.
        score: signal of the score: `probabilities[1]` (BINARY), `probabilities` (MULTICLASS: its elements in
            the order of `classes`), the predicted value (REGRESSION, RANKING).
        prediction: signal of the predicted class; empty: the highest score, or BINARY the score over
            `threshold`.
        classes: labels as they are posted, in the order of the scores; BINARY: negative, positive.
        threshold: of the score of a BINARY task.
    """

    kind: TaskKind
    score: str
    prediction: str = ""
    classes: tuple[str, ...] = ()
    threshold: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericReference:
    """One number per row.

    Attributes:
        name: the signal: column name, with `[label or index]` where the column is wider than 1.
        role: where it comes from.
        edges: ascending, distinct; bin i holds values in (edges[i-1], edges[i]], the first and last are open.
        counts: `[len(edges) + 1]`, weighted rows of the reference by bin; without missing ones.
        rows: weighted rows, missing ones included.
        missing: of them NaN or absent.
        infinite: of them infinite; not in `counts`.
        mean: of finite values.
        variance: of finite values.
        low: 0.1 % quantile: below it and above `high` is the tail that is counted.
        high: 99.9 % quantile.
        least: smallest finite value.
        most: largest finite value.
        integer: every value was whole.
        quantiles: of the 101 percents 0 to 100, for pictures.
    """

    name: str
    role: Role
    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    rows: float
    missing: float
    infinite: float
    mean: float
    variance: float
    low: float
    high: float
    least: float
    most: float
    integer: bool
    quantiles: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryReference:
    """One category per row.

    Attributes:
        name: the signal.
        role: where it comes from.
        values: the dictionary, most frequent first, at most DICTIONARY.
        counts: `[len(values) + 1]`: by value, OTHER last; without missing ones.
        rows: weighted rows, missing ones included.
        missing: of them absent.
    """

    name: str
    role: Role
    values: tuple[bytes, ...]
    counts: npt.NDArray[np.float64]
    rows: float
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingReference:
    """A PROJECTION column, or several numeric signals together, compared as one by random Fourier features.

    Attributes:
        name: the signal: the column, or `inputs` for all numeric inputs together.
        role: where it comes from.
        members: names of the numeric signals it is made of, standardised by their mean and variance; empty:
            the PROJECTION column itself.
        width: values per row.
        features: D of the Fourier features, even.
        gamma: of the Gaussian kernel exp(-gamma |x-y|^2).
        seed: of the features' directions: the same everywhere.
        total: `[features]`, sum over the reference.
        rows: of the reference.
        sample: `[at most 512, 2]` of the first two principal axes, for pictures.
        axes: `[2, width]`, the principal axes.
        traces: tr C^2 and tr C^3 of the features' covariance, `statistics.fourier.spectrum`: what the null of
            the discrepancy needs; zeros: not known, there is no test.
    """

    name: str
    role: Role
    members: tuple[str, ...]
    width: int
    features: int
    gamma: float
    seed: int
    total: npt.NDArray[np.float64]
    rows: float
    sample: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    traces: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """What one segment looked like: a part of the traffic is compared with the same part of the reference.

    Attributes:
        rows: weighted rows.
        numeric: by signal, in the profile's order: NumericReference.counts, and missing ones after them.
        categories: likewise, counts as CategoryReference.counts, missing ones after them.
    """

    rows: float
    numeric: tuple[npt.NDArray[np.float64], ...]
    categories: tuple[npt.NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class BlockThreshold:
    """What leaving out one block of the reference after another and comparing it with the rest gave.

    Attributes:
        rows: of a block.
        blocks: how many.
        quantile: largest value of the statistic that the level allows.
    """

    rows: int
    blocks: int
    quantile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a model version's traffic looked like when it was good. Immutable; `id` is a digest of all else.

    Attributes:
        id: hex digest of the content.
        model: public model name.
        version: number of the version it was made for, 0 for any.
        created_s: wall clock, seconds since the epoch.
        source: where the data came from, for people.
        rows: of the reference.
        numeric: by order of the panes' rows.
        categories: likewise.
        embeddings: likewise.
        task: what is predicted; None: nothing is known of it.
        blocks: signal -> statistic -> threshold by leaving blocks out; empty if the reference is too small.
        performance: metric -> value on the reference, where it had labels.
        calibration: `[2, k]`: score and calibrated probability (isotonic), where it had labels.
        class_calibrations: likewise of each class against the rest, in the order of the task's; MULTICLASS.
        segments: columns that segments are made of.
        by_segment: `column=value` -> that segment; others have no reference and are not tested.
    """

    id: str
    model: str
    version: int
    created_s: float
    source: str
    rows: int
    numeric: tuple[NumericReference, ...]
    categories: tuple[CategoryReference, ...]
    embeddings: tuple[EmbeddingReference, ...]
    task: Task | None = None
    blocks: Mapping[str, Mapping[str, BlockThreshold]] = field(default_factory=dict)
    performance: Mapping[str, float] = field(default_factory=dict)
    calibration: npt.NDArray[np.float64] | None = None
    class_calibrations: tuple[npt.NDArray[np.float64], ...] = ()
    segments: tuple[str, ...] = ()
    by_segment: Mapping[str, SegmentReference] = field(default_factory=dict)
