"""The random chunkings by which NannyML's figures and ours are compared: the same in both environments.

Drawn by NumPy's legacy generator, whose streams never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

SEED: Final = 20_261_122
COUNT: Final = 20
LEAST: Final = 500
"""Rows of a chunk."""

METRICS: Final = ("roc_auc", "f1", "precision", "recall", "specificity", "accuracy")


@dataclass(frozen=True, slots=True)
class Chunking:
    """One way to cut a table into chunks.

    Attributes:
        order: `[rows]`, the rows' places: of every other chunking as they are, else shuffled.
        bounds: where chunks begin, and the end of the last.
    """

    order: npt.NDArray[np.int64]
    bounds: tuple[int, ...]

    def chunks(self) -> list[npt.NDArray[np.int64]]:
        """Return the rows of each chunk."""
        return np.split(self.order, self.bounds[1:-1])


def chunkings(rows: int, count: int = COUNT, seed: int = SEED) -> list[Chunking]:
    """Return `count` chunkings of a table into 6 to 14 chunks of at least LEAST rows."""
    draw = np.random.RandomState(seed)
    return [_chunking(draw, rows, shuffled=bool(number % 2)) for number in range(count)]


def _chunking(draw: np.random.RandomState, rows: int, *, shuffled: bool) -> Chunking:
    order = draw.permutation(rows) if shuffled else np.arange(rows)
    parts = int(draw.randint(6, 15))
    spare = rows - parts * LEAST
    cuts = np.sort(draw.randint(0, spare + 1, parts - 1))
    bounds = [0, *(cuts + LEAST * np.arange(1, parts)).tolist(), rows]
    return Chunking(order.astype(np.int64), tuple(bounds))
