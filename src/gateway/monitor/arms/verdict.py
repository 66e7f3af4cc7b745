"""What the rollout's external gate is told: is the candidate as good as its baseline?

`pass` needs proof of no harm: every comparison within its margin. `fail` needs proof of harm in one. All else
is `inconclusive`; a gate is told `no_data` while there are no rows of both, and `hold` otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.monitor.arms.evidence import HARM, OPEN
from gateway.monitor.values import Alarm, ArmVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.monitor_detect import ArmSettings
    from gateway.monitor.arms.evidence import Comparison

PASS: Final = "pass"  # noqa: S105 - a verdict
FAIL: Final = "fail"
INCONCLUSIVE: Final = "inconclusive"
HOLD: Final = "hold"
NO_DATA: Final = "no_data"

MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Question:
    """Who is compared.

    Attributes:
        model: public model name.
        candidate: arm (`canary`, `shadow:NAME`) or version number as text.
        baseline: likewise.
        since_s: rows before it are not looked at; 0: as far as the settings look back.
        for_gate: asked by a rollout's gate, whose words for `inconclusive` are `hold` and `no_data`.
        versions: arm -> version that the gate says it serves; rows of other versions are not looked at.
    """

    model: str
    candidate: str
    baseline: str
    since_s: float = 0.0
    for_gate: bool = False
    versions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsEvidence:
    """What is known of both.

    Attributes:
        comparisons: each of a family whose intervals hold together.
        rows: effective ones of candidate and baseline, in minutes that both served.
        minutes: how many those were.
        pairs: mirrored rows that were compared with themselves.
        coverage: of candidate and baseline.
        alarms: of drift, that stand for the candidate.
        alone: of these, those that do not stand for the baseline too.
        start_s: begin of what was looked at.
        end_s: end.
    """

    comparisons: tuple[Comparison, ...]
    rows: tuple[float, float]
    minutes: int
    pairs: float
    coverage: tuple[float, float]
    alarms: tuple[Alarm, ...] = ()
    alone: tuple[Alarm, ...] = ()
    start_s: float = 0.0
    end_s: float = 0.0


def question_of(model: str, query: Mapping[str, str]) -> Question:
    """Return the question of `GET /v1/models/{m}/verdict?candidate=&baseline=`.

    A rollout's gate adds `rollout`, `rollout_id`, `step`, `model` and each arm's version to the query: it is
    known by `rollout_id`. Without `candidate` or `baseline` these are `canary` and `stable`. `since` is in
    seconds since the epoch.

    Raises:
        ValueError: a part of it makes no sense; the message is for the client.
    """
    candidate, baseline = query.get("candidate") or "canary", query.get("baseline") or "stable"
    for name in (candidate, baseline):
        if len(name) > MAX_NAME:
            raise ValueError(f"an arm or version has at most {MAX_NAME} characters")
    if candidate == baseline:
        raise ValueError(f"candidate and baseline are both {candidate!r}")
    since = query.get("since") or "0"
    try:
        since_s = float(since)
    except ValueError:
        raise ValueError(f"since must be seconds since the epoch, not {since[:40]!r}") from None
    if not math.isfinite(since_s):
        raise ValueError("since must be seconds since the epoch")
    versions = {
        arm: int(query[arm])
        for arm in (candidate, baseline)
        if query.get(arm, "").isdecimal() and not arm.isdecimal()
    }
    return Question(model, candidate, baseline, since_s, "rollout_id" in query, versions)


def verdict(question: Question, evidence: ArmsEvidence, settings: ArmSettings) -> ArmVerdict:
    """Return the verdict that the evidence allows."""
    found, reason = _judged(question, evidence, settings)
    return ArmVerdict(
        model=question.model,
        candidate=question.candidate,
        baseline=question.baseline,
        verdict=found,
        reason=reason,
        coverage=min(evidence.coverage),
        evidence={
            "comparisons": [c.document() for c in evidence.comparisons],
            "rows": {"candidate": evidence.rows[0], "baseline": evidence.rows[1]},
            "minutes": evidence.minutes,
            "pairs": evidence.pairs,
            "coverage": {"candidate": evidence.coverage[0], "baseline": evidence.coverage[1]},
            "alpha": settings.alpha,
            "start_s": evidence.start_s,
            "end_s": evidence.end_s,
            "alarms": [
                {"id": a.id, "subject": a.subject, "summary": a.summary} for a in evidence.alarms[:20]
            ],
        },
    )


def document(question: Question, answer: ArmVerdict) -> dict[str, Any]:
    """Return the answer's JSON.

    `conclusion` is `pass`, `fail` or `inconclusive` for everybody; `verdict` is the same, but to a rollout's
    gate `no_data` or `hold` stand for `inconclusive`.
    """
    word = answer.verdict
    if question.for_gate and word == INCONCLUSIVE:
        rows = answer.evidence["rows"]
        word = HOLD if answer.evidence["pairs"] or min(rows["candidate"], rows["baseline"]) > 0 else NO_DATA
    return {
        "model": answer.model,
        "candidate": answer.candidate,
        "baseline": answer.baseline,
        "verdict": word,
        "conclusion": answer.verdict,
        "reason": answer.reason,
        "coverage": answer.coverage,
        "evidence": answer.evidence,
    }


def _judged(question: Question, evidence: ArmsEvidence, settings: ArmSettings) -> tuple[str, str]:
    names = f"{question.candidate} against {question.baseline}"
    if not evidence.comparisons or (min(evidence.rows) <= 0 and not evidence.pairs):
        return INCONCLUSIVE, f"{names}: there were no rows of both in the same minutes"
    if min(evidence.coverage) < settings.min_coverage:
        worse = question.candidate if evidence.coverage[0] <= evidence.coverage[1] else question.baseline
        return INCONCLUSIVE, (
            f"{names}: {min(evidence.coverage):.1%} of the rows of {worse} arrived, "
            f"at least {settings.min_coverage:.0%} are needed"
        )
    harm = [c for c in evidence.comparisons if c.finding == HARM]
    if harm:
        return FAIL, f"{names}: {_told(max(harm, key=_beyond))}"
    if settings.on_drift != "ignore" and evidence.alone:
        return FAIL, f"{names}: {evidence.alone[0].summary}, and {question.baseline} did not"
    if settings.on_drift != "ignore" and evidence.alarms:
        verdict_ = FAIL if settings.on_drift == "fail" else INCONCLUSIVE
        return verdict_, f"{names}: {evidence.alarms[0].summary}"
    unsure = [c for c in evidence.comparisons if c.finding == OPEN]
    if unsure:
        widest = max(unsure, key=lambda c: c.high - c.low)
        return INCONCLUSIVE, f"{names}: not enough evidence yet: {_told(widest)}"
    least = max(evidence.comparisons, key=_beyond)
    return (
        PASS,
        f"{names}: all {len(evidence.comparisons)} comparisons are within their margins: {_told(least)}",
    )


def _beyond(comparison: Comparison) -> float:
    """Return how far the interval reaches, in margins."""
    reach = max(comparison.high, -comparison.low) if comparison.both_ways else comparison.high
    return reach / comparison.margin


def _told(c: Comparison) -> str:
    if not math.isfinite(c.low):
        return f"{c.name} has {c.rows:.0f} rows"
    unit = "deviations" if c.unit == "deviations" else "as a share"
    return (
        f"{c.name} differs by {c.difference:+.3g} ({c.low:+.3g} to {c.high:+.3g}) {unit}, "
        f"{'±' if c.both_ways else ''}{c.margin:g} is allowed"
    )
