"""Traffic with known truth for the tests of detection, arms and profiles: rows, panes and a clock."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.config.monitor_detect import DetectSettings
from gateway.config.monitor_ingest import PanesSettings
from gateway.monitor.detect.part import Detection
from gateway.monitor.panes.part import Panes
from gateway.monitor.profile.build import BuildOptions, from_batches
from gateway.monitor.profile.catalog import ProfileCatalog
from gateway.monitor.values import Applied
from gateway.predlog.rows import Accounting, Produced, Role
from tests.monitor.panes.making import batch, category, numeric

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.monitor.profile.reference import Profile
    from gateway.predlog.rows import RowBatch

    Rows = Callable[[np.random.Generator, int], RowBatch]

START_S = 1_760_054_400
"""A whole day, hour and five minutes."""

MODEL = "fraud"


def rows_of(rng: np.random.Generator, rows: int, *, done_s: float = START_S, **given: Any) -> RowBatch:
    """Return healthy rows: two numbers, a colour, a country and a score.

    Args:
        rng: of the values.
        rows: how many.
        done_s: when they were done.
        given: `shift` of `x0`, `missing` share of `x1`, `colors` to choose from, `country`,
            `score_shift`; else fields of the batch.
    """
    shift, missing = given.pop("shift", 0.0), given.pop("missing", 0.0)
    colors, country = given.pop("colors", (b"red", b"green", b"blue")), given.pop("country", None)
    score_shift = given.pop("score_shift", 0.0)
    x0, x1 = rng.normal(shift, 1, rows), rng.exponential(1, rows)
    x1[rng.random(rows) < missing] = np.nan
    countries = [country] * rows if country else rng.choice([b"de", b"fr"], rows).tolist()
    given.setdefault("key_hashes", rng.integers(1, 2**63, rows).astype(np.uint64))
    return batch(
        rows,
        numeric("x0", x0.astype(np.float32)),
        numeric("x1", x1.astype(np.float32)),
        category("color", [colors[i] for i in rng.integers(0, len(colors), rows).tolist()]),
        category("country", countries, Role.SEGMENT),
        numeric(
            "score", np.clip(rng.normal(0.5 + score_shift, 0.1, rows), 0, 1).astype(np.float32), Role.OUTPUT
        ),
        done_s=done_s,
        **given,
    )


def healthy_profile(rows: int = 10_000, **given: Any) -> Profile:
    """Return the profile of healthy rows."""
    reference = rows_of(np.random.default_rng(1), rows)
    return from_batches([reference], BuildOptions(model=MODEL, version=3, **given))


@dataclass
class Watched:
    """Panes and detection over a clock of whole minutes."""

    profile: Profile
    settings: DetectSettings = field(default_factory=DetectSettings)
    minute: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(2))

    def __post_init__(self) -> None:
        self.catalog = ProfileCatalog()
        self.catalog.put(self.profile)
        self.panes = Panes(self.catalog, PanesSettings())
        self.database = sqlite3.connect(":memory:")
        self.panes.create(self.database)
        self.panes.restore(self.database)
        self.detection = self.fresh()
        self.detection.create(self.database)

    def fresh(self) -> Detection:
        return Detection(self.panes, self.catalog, self.settings)

    @property
    def now_s(self) -> float:
        return START_S + 60.0 * self.minute

    def restart(self) -> None:
        """Flush, and begin anew from the database."""
        self.detection.flush(self.database)
        self.detection = self.fresh()
        self.detection.restore(self.database)

    def run(self, minutes: int, rows: int = 100, **given: Any) -> None:
        """Let so many minutes pass, each with so many rows, and evaluate after each."""
        for _ in range(minutes):
            if rows:
                self.apply(rows_of(self.rng, rows, done_s=self.now_s + 1, **dict(given)))
            self.minute += 1
            self.detection.evaluate(self.now_s + self.settings.settle + 1)

    def apply(self, rows: RowBatch, producer: str = "gateway") -> None:
        self.panes.apply(Applied(producer, rows, self.now_s + 30))

    def account(self, produced: int, producer: str = "gateway") -> None:
        counted = Produced(MODEL, 3, "", produced)
        at_ns = int((self.now_s + 2) * 1e9)
        self.panes.account(producer, 1, Accounting((counted,), (), at_ns), self.now_s + 2)

    def subjects(self) -> set[tuple[str, str]]:
        """Return (kind, subject) of what stands."""
        return {(alarm.kind, alarm.subject) for alarm in self.detection.ledger.standing()}
