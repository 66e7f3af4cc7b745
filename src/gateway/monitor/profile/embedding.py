"""Embeddings of a profile: which there are, their kernel, and what their null needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.profile.reference import EmbeddingReference
from gateway.predlog.rows import Role
from gateway.statistics import fourier

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.panes.pane import Pane
    from gateway.monitor.profile.reference import NumericReference
    from gateway.monitor.profile.survey import Survey

    Floats = npt.NDArray[np.float64]

INPUTS: Final = "inputs"
"""Name of all numeric inputs together."""
MAX_MEMBERS: Final = 512
"""Inputs that are taken together; beyond, none are."""
LEAST_ROWS: Final = 50
"""Whole rows that an embedding needs in the sample."""
_SPECTRUM_ROWS: Final = 4_000
_BANDWIDTH_ROWS: Final = 500
_PICTURE_ROWS: Final = 512
_SEED: Final = 7


def embeddings(survey: Survey, numeric: tuple[NumericReference, ...]) -> tuple[EmbeddingReference, ...]:
    """Return the embeddings without their sums: all numeric inputs together, and each PROJECTION column."""
    found = []
    members = [
        i
        for i, n in enumerate(numeric)
        if n.role is Role.INPUT and n.variance > 0 and n.missing + n.infinite < n.rows / 2
    ]
    if 2 <= len(members) <= MAX_MEMBERS:
        chosen = [numeric[i] for i in members]
        spread = np.sqrt([n.variance for n in chosen])
        sample = (survey.sample[:, members] - [n.mean for n in chosen]) / spread
        names = tuple(n.name for n in chosen)
        found.append(_reference(INPUTS, Role.INPUT, names, sample))
    for name, (role, _) in survey.projections.items():
        found.append(_reference(name, role, (), survey.projected[name]))
    return tuple(e for e in found if e is not None)


def summed(references: tuple[EmbeddingReference, ...], pane: Pane) -> tuple[EmbeddingReference, ...]:
    """Return them with the sums of all rows."""
    return tuple(
        replace(e, total=pane.embedding(i).copy(), rows=float(pane.embedding_weights[i, 0]))
        for i, e in enumerate(references)
    )


def _reference(name: str, role: Role, members: tuple[str, ...], rows: Floats) -> EmbeddingReference | None:
    whole = rows[np.isfinite(rows).all(axis=1)]
    if len(whole) < LEAST_ROWS:
        return None
    # Every k-th of the sample, whose order is that of the data: the first rows alone are one time of day.
    spread = whole[:: max(1, len(whole) // _SPECTRUM_ROWS)][:_SPECTRUM_ROWS]
    gamma = fourier.bandwidth(spread[:: max(1, len(spread) // _BANDWIDTH_ROWS)][:_BANDWIDTH_ROWS])
    width = whole.shape[1]
    z = fourier.features(spread, fourier.directions(width, fourier.FEATURES, gamma, _SEED))
    axes = _axes(spread)
    return EmbeddingReference(
        name=name,
        role=role,
        members=members,
        width=width,
        features=fourier.FEATURES,
        gamma=gamma,
        seed=_SEED,
        total=np.zeros(fourier.FEATURES),
        rows=0.0,
        sample=(spread[:_PICTURE_ROWS] @ axes.T).round(4),
        axes=axes,
        traces=fourier.spectrum(z),
    )


def _axes(rows: Floats) -> Floats:
    _, _, axes = np.linalg.svd((rows - rows.mean(axis=0))[:1000], full_matrices=False)
    two = np.zeros((2, rows.shape[1]))
    two[: min(2, len(axes))] = axes[:2]
    return two
