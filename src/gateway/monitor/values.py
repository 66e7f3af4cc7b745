"""Values that travel between the monitor's parts. Times are seconds since the epoch unless named `_ns`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.predlog.rows import RowBatch

PANE_S: Final = 60
"""Length of a pane: event time is cut into panes, windows are sums of them."""

WINDOWS_S: Final[Mapping[str, int]] = {"5m": 300, "1h": 3600, "1d": 86_400}
"""The windows that are watched, by name."""

ALL: Final = ""
"""The segment that every row is in."""


class StreamKey(NamedTuple):
    """What panes are kept for.

    Attributes:
        model: public model name.
        version: protocol version number.
        digest: content digest of the version.
        arm: as logged: empty, `stable`, `canary` or `shadow:NAME`.
        segment: `column=value`, or ALL.
    """

    model: str
    version: int
    digest: str
    arm: str = ""
    segment: str = ALL


@dataclass(frozen=True, slots=True)
class Applied:
    """Rows that were accepted, with where they come from.

    Attributes:
        producer: the gateway's name.
        rows: what it logged.
        received_s: when the monitor got them.
    """

    producer: str
    rows: RowBatch
    received_s: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was served the monitor has seen, for some stream and time.

    Attributes:
        produced: rows that gateways say they served.
        applied: rows in the state, weights not counted.
        dropped: rows lost, by reason; `sampled` is no loss.
    """

    produced: int
    applied: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Applied and sampled rows over produced ones, 0 to 1; 1 where nothing was produced."""
        if not self.produced:
            return 1.0
        return min(1.0, (self.applied + self.dropped.get("sampled", 0)) / self.produced)


class Finding(enum.Enum):
    """What one test of one signal in one window says."""

    OK = "ok"
    DRIFT = "drift"
    TOO_FEW = "too_few"
    """Fewer rows than the test needs for its stated level."""
    DEGRADED = "degraded"
    """Too much of the window's rows never arrived: shown, never acted upon."""
    NO_REFERENCE = "no_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One test of one signal in one window.

    Attributes:
        key: the stream.
        signal: name of the signal, `income`, `probabilities[1]`, `pixels` or `pixels.missing`.
        window: name in WINDOWS_S.
        start_s: begin of the window.
        end_s: end of the window, exclusive.
        statistic: `psi`, `js`, `ks`, `wasserstein`, `chi2`, `mmd`, `missing`, `type`, `range`, `novel`, ...
        value: of the statistic.
        threshold: above it the effect is called drift, sketch error and sampling noise included.
        p_value: of no drift given the sample sizes; NaN where the test has none.
        rows: effective number of rows of the window.
        reference_rows: of the reference.
        finding: the verdict, multiplicity included.
        coverage: ratio of the window.
    """

    key: StreamKey
    signal: str
    window: str
    start_s: float
    end_s: float
    statistic: str
    value: float
    threshold: float
    p_value: float
    rows: float
    reference_rows: float
    finding: Finding
    coverage: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that a person should know. One per (key, kind, subject) at a time; it stays until it clears.

    Attributes:
        id: unique and stable: used in links.
        key: the stream.
        kind: `drift`, `performance`, `estimated_performance`, `fairness`, `quality`, `pipeline`.
        subject: signal, metric or group that it is about.
        severity: `page` or `ticket`.
        raised_s: when it was raised.
        cleared_s: when it ended; None while it stands.
        summary: one sentence for the message.
        evidence: JSON types: scores, counts, thresholds, coverage.
    """

    id: str
    key: StreamKey
    kind: str
    subject: str
    severity: str
    raised_s: float
    cleared_s: float | None
    summary: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmVerdict:
    """What the rollout's external gate is told.

    Attributes:
        model: public model name.
        candidate: arm or version asked about.
        baseline: arm or version it is compared with.
        verdict: `pass`, `fail` or `inconclusive`.
        reason: one sentence.
        coverage: of the worse of both.
        evidence: JSON types: by signal and metric, with intervals.
    """

    model: str
    candidate: str
    baseline: str
    verdict: str
    reason: str
    coverage: float
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment that charts show: a version appeared, weights moved, a profile was replaced."""

    at_s: float
    model: str
    text: str
