"""Which signals a pane has, and where in its vector of sums each of them lies.

Follows from a reference profile: bins are the reference's quantile bins, moments are taken about the
reference's mean. Without a profile a layout is made from the first batch's columns: it counts rows, missing
and infinite values, and its one bin tells nothing of a distribution.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from gateway.monitor.profile.reference import TaskKind
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy.typing as npt

    from gateway.monitor.profile.reference import Profile, Task
    from gateway.predlog.rows import Column, RowBatch

FLAGS: Final = ("missing", "infinite", "type", "below", "above")
"""Of a numeric value, the first that holds: NaN or absent; infinite; not a number, or not whole where the
reference was; below the reference's 0.1 % quantile; above its 99.9 % quantile."""

MISSING, INFINITE, TYPE, BELOW, ABOVE = range(len(FLAGS))

SCORE_BINS: Final = 256
"""Bins of equal width over a score in [0, 1]."""

SCORE_CLASSES: Final = 16
"""Classes of a task whose scores are kept by bin; the rest is not."""

LATENCY_BINS: Final = 32
"""Bin i holds durations in [2^i, 2^(i+1)) microseconds, those below 1 in bin 0."""

MAX_SIGNALS: Final = 1024
"""Numeric signals of a layout without a profile, and categories likewise."""

MAX_WIDTH: Final = 64
"""Values per row up to which a numeric column is taken value by value."""

_BARE: Final = "bare:"


@dataclass(frozen=True, slots=True, eq=False)
class NumericSignal:
    """One number per row; fields as of NumericReference."""

    name: str
    role: Role
    edges: npt.NDArray[np.float64]
    mean: float = 0.0
    low: float = -np.inf
    high: float = np.inf
    integer: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CategorySignal:
    """One category per row; fields as of CategoryReference."""

    name: str
    role: Role
    values: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingSignal:
    """Values compared as one; fields as of EmbeddingReference.

    Attributes:
        centre: `[width]`, means of the members; zeros for a PROJECTION column.
        scale: `[width]`, standard deviations of the members; ones for a PROJECTION column.
    """

    name: str
    role: Role
    members: tuple[str, ...]
    width: int
    features: int
    gamma: float
    seed: int
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoreSignal:
    """The score that a task predicts with.

    Attributes:
        signals: names of the numeric signals, by class; BINARY: the one of the positive class.
        prediction: category signal of the predicted class; empty: see `threshold`.
        classes: labels by class; BINARY: negative, positive.
        threshold: BINARY: from it on positive. More classes: the highest score is predicted.
    """

    signals: tuple[str, ...]
    prediction: str
    classes: tuple[str, ...]
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Signals of a pane and their places in `Pane.sums`; two layouts of one id are the same.

    Attributes:
        id: the profile's id, or `bare:` and a digest of the signals' names.
        numeric: S of them.
        categories: C of them.
        embeddings: E of them; none in a segment's panes.
        scores: None where the task has no score per class.
        bins: of every numeric signal, the widest one's.
        offsets: name of a section of `Pane.sums` -> its place; see Pane.
        size: of `Pane.sums`.
        numeric_index: name -> place in `numeric`.
        category_index: name -> place in `categories`.
        embedding_index: name -> place in `embeddings`.
        category_starts: `[C + 1]`: where each category signal's counts begin.
        embedding_starts: `[E + 1]`: where each embedding's sums begin.
    """

    id: str
    numeric: tuple[NumericSignal, ...]
    categories: tuple[CategorySignal, ...]
    embeddings: tuple[EmbeddingSignal, ...]
    scores: ScoreSignal | None = None
    bins: int = field(init=False)
    offsets: dict[str, slice] = field(init=False, repr=False)
    size: int = field(init=False)
    numeric_index: dict[str, int] = field(init=False, repr=False)
    category_index: dict[str, int] = field(init=False, repr=False)
    embedding_index: dict[str, int] = field(init=False, repr=False)
    category_starts: npt.NDArray[np.int64] = field(init=False, repr=False)
    embedding_starts: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay the sections out one after the other."""
        put = object.__setattr__
        put(self, "bins", 1 + max((len(signal.edges) for signal in self.numeric), default=0))
        put(self, "numeric_index", _places([signal.name for signal in self.numeric]))
        put(self, "category_index", _places([signal.name for signal in self.categories]))
        put(self, "embedding_index", _places([signal.name for signal in self.embeddings]))
        put(self, "category_starts", np.cumsum([0, *[len(c.values) + 1 for c in self.categories]]))
        put(self, "embedding_starts", np.cumsum([0, *[e.features for e in self.embeddings]]))
        sizes = {
            "totals": 4,
            "counts": len(self.numeric) * self.bins,
            "moments": len(self.numeric) * 3,
            "flags": len(self.numeric) * len(FLAGS),
            "category_counts": int(self.category_starts[-1]),
            "category_flags": len(self.categories) * 2,
            "embedding_sums": int(self.embedding_starts[-1]),
            "embedding_weights": len(self.embeddings) * 2,
            "scores": self.score_classes * 4 * SCORE_BINS,
            "latency": 2 * LATENCY_BINS,
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        put(
            self,
            "offsets",
            {name: slice(end - n, end) for (name, n), end in zip(sizes.items(), ends, strict=True)},
        )
        put(self, "size", ends[-1])

    @property
    def bare(self) -> bool:
        """Whether it was made without a profile."""
        return self.id.startswith(_BARE)

    @property
    def profile_id(self) -> str:
        """Id of the profile; empty without one."""
        return "" if self.bare else self.id.removesuffix("/segment")

    @property
    def score_classes(self) -> int:
        """How many classes have their scores kept."""
        return len(self.scores.signals) if self.scores else 0

    def for_segment(self) -> Layout:
        """Return the layout of the segments' panes: without embeddings, which are kept for all rows only."""
        if not self.embeddings:
            return self
        return replace(self, id=f"{self.id}/segment", embeddings=())

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(
            {
                "id": self.id,
                "numeric": [
                    [n.name, n.role.value, n.edges.tolist(), n.mean, _text(n.low), _text(n.high), n.integer]
                    for n in self.numeric
                ],
                "categories": [
                    [c.name, c.role.value, [base64.b64encode(v).decode() for v in c.values]]
                    for c in self.categories
                ],
                "embeddings": [
                    [
                        *(e.name, e.role.value, e.members, e.width, e.features, e.gamma, e.seed),
                        *(e.centre.tolist(), e.scale.tolist()),
                    ]
                    for e in self.embeddings
                ],
                "scores": None
                if self.scores is None
                else [
                    self.scores.signals,
                    self.scores.prediction,
                    self.scores.classes,
                    self.scores.threshold,
                ],
            }
        )


def _places(names: list[str]) -> dict[str, int]:
    """Return where each name stands first."""
    return {name: i for i, name in reversed(list(enumerate(names)))}


def _text(bound: float) -> str:
    return float(bound).hex()


def from_bytes(data: bytes) -> Layout:
    """Return what `Layout.to_bytes` wrote.

    Raises:
        ValueError: it did not.
    """
    try:
        return _from_json(orjson.loads(data))
    except (KeyError, TypeError, IndexError) as exc:
        raise ValueError("no layout of panes") from exc


def _from_json(loaded: dict[str, Any]) -> Layout:
    scores = loaded["scores"]
    return Layout(
        loaded["id"],
        tuple(
            NumericSignal(
                name,
                Role(role),
                np.asarray(edges, np.float64),
                mean,
                float.fromhex(low),
                float.fromhex(high),
                whole,
            )
            for name, role, edges, mean, low, high, whole in loaded["numeric"]
        ),
        tuple(
            CategorySignal(name, Role(role), tuple(base64.b64decode(v) for v in values))
            for name, role, values in loaded["categories"]
        ),
        tuple(
            EmbeddingSignal(
                *(name, Role(role), tuple(members), width, features, gamma, seed),
                *(np.asarray(centre, np.float64), np.asarray(scale, np.float64)),
            )
            for name, role, members, width, features, gamma, seed, centre, scale in loaded["embeddings"]
        ),
        scores and ScoreSignal(tuple(scores[0]), scores[1], tuple(scores[2]), scores[3]),
    )


def of_profile(profile: Profile) -> Layout:
    """Return the layout that a profile asks for."""
    numeric = tuple(
        NumericSignal(n.name, n.role, n.edges, n.mean, n.low, n.high, n.integer) for n in profile.numeric
    )
    by_name = {n.name: n for n in profile.numeric}
    embeddings = []
    for e in profile.embeddings:
        members = [by_name[name] for name in e.members]
        centre = np.array([m.mean for m in members]) if members else np.zeros(e.width)
        spread = np.sqrt([m.variance for m in members]) if members else np.ones(e.width)
        spread = np.where(spread > 0, spread, 1.0)
        embeddings.append(
            EmbeddingSignal(e.name, e.role, e.members, e.width, e.features, e.gamma, e.seed, centre, spread)
        )
    categories = tuple(CategorySignal(c.name, c.role, c.values) for c in profile.categories)
    return Layout(profile.id, numeric, categories, tuple(embeddings), _scores(profile.task, by_name.keys()))


def _scores(task: Task | None, names: Collection[str]) -> ScoreSignal | None:
    if task is None or task.kind not in (TaskKind.BINARY, TaskKind.MULTICLASS):
        return None
    if task.kind is TaskKind.BINARY:
        signals = [task.score]
    else:
        signals = [name for name in names if name.startswith(f"{task.score}[")][:SCORE_CLASSES]
    if not signals or not all(name in names for name in signals):
        return None
    return ScoreSignal(tuple(signals), task.prediction, task.classes, task.threshold)


def bare(batch: RowBatch) -> Layout:
    """Return the layout of a batch that no profile is there for."""
    numeric: list[NumericSignal] = []
    categories: list[CategorySignal] = []
    for column in batch.columns:
        if column.kind is ColumnKind.CATEGORY and column.values.shape[1] == 1:
            categories.append(CategorySignal(column.name, column.role))
        elif column.kind is ColumnKind.NUMERIC:
            numeric.extend(NumericSignal(name, column.role, np.empty(0)) for name in signal_names(column))
    del numeric[MAX_SIGNALS:], categories[MAX_SIGNALS:]
    names = "\n".join([*(f"n{n.name}" for n in numeric), *(f"c{c.name}" for c in categories)])
    digest = hashlib.blake2b(names.encode(), digest_size=8).hexdigest()
    return Layout(f"{_BARE}{digest}", tuple(numeric), tuple(categories), ())


def signal_names(column: Column) -> Iterator[str]:
    """Name a NUMERIC column's signals: its own name, or `NAME[label or index]`; none beyond MAX_WIDTH."""
    width = column.values.shape[1]
    if width == 1:
        yield column.name
    elif width <= MAX_WIDTH:
        labels = column.labels or tuple(str(i) for i in range(width))
        yield from (f"{column.name}[{label}]" for label in labels)
