"""What a profile that was learned from live rows says of single persons: nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gateway.config.monitor_detect import ProfileSettings
from gateway.monitor.panes.reservoir import Reservoir
from gateway.monitor.profile.catalog import ProfileCatalog
from gateway.monitor.profile.learning import LEAST_CATEGORY, Learning
from gateway.monitor.values import StreamKey
from gateway.predlog.rows import ColumnKind
from tests.predlog.delivery.frames import batch

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.rows import RowBatch

JOBS = (b"cook", b"clerk", b"astronaut")


@dataclass
class Sample:
    """A source of one version's rows."""

    rows: RowBatch

    def keys(self) -> list[StreamKey]:
        return [StreamKey("loans", 3, "sha256:ab")]

    def learned(self, model: str, version: int, digest: str) -> RowBatch:
        return self.rows


def rows(*counts: int) -> RowBatch:
    """Return rows of each job so often."""
    made = batch(sum(counts))
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts).reshape(-1, 1)
    columns = tuple(
        replace(c, values=codes, dictionary=JOBS) if c.kind is ColumnKind.CATEGORY else c
        for c in made.columns
    )
    subjects = np.repeat(np.arange(1, len(counts) + 1, dtype=np.uint64), counts)
    return replace(made, columns=columns, subject_hashes=subjects)


def test_a_rare_category_is_not_named_in_a_learned_profile(tmp_path: Path) -> None:
    """It could be somebody, who could not be erased from it; its rows count as those of others."""
    settings = ProfileSettings.model_validate({"learn_rows": 100, "learn_time": "0s"})
    sample = Sample(rows(100, LEAST_CATEGORY, LEAST_CATEGORY - 1))
    (learned,) = Learning(sample, ProfileCatalog(learned=tmp_path), settings).evaluate(0.0)
    (job,) = learned.categories
    assert job.values == (b"cook", b"clerk")
    assert job.counts.tolist() == [100, LEAST_CATEGORY, LEAST_CATEGORY - 1]
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert content
    assert b"astronaut" not in content


def test_an_erased_row_takes_its_category_along() -> None:
    """Out of the sample that a profile is learned from, its dictionary too."""
    reservoir = Reservoir(1000)
    sample = rows(3, 2, 1)
    reservoir.add(sample, np.arange(sample.rows))
    assert reservoir.erase(frozenset({3})) == 1
    left = reservoir.sample()
    assert left is not None
    assert left.rows == 5
    assert [c.dictionary for c in left.columns if c.kind is ColumnKind.CATEGORY] == [JOBS[:2]]
