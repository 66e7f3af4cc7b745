"""Evidence and answers as they arrive: counted once, judged at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.core.rollout import CANARY, STABLE, ExternalGate, PrometheusGate
from gateway.rollouts.effects import AskGate
from gateway.rollouts.gates import (
    CRASH,
    Answer,
    AnswerKind,
    Delta,
    Outcome,
    delta,
    hear,
    judge,
    merge,
    observe,
    step_gates,
)
from gateway.rollouts.phases import STEPPING, Phase
from gateway.rollouts.state import Totals

if TYPE_CHECKING:
    from gateway.core.evidence import Evidence
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.events import EvidenceReport, GateAnswer
    from gateway.rollouts.state import RolloutState

FLOWING_S: Final = 60.0
"""Evidence flows when some arrived no longer ago than this; bake time counts only meanwhile."""
WATCHED: Final = STEPPING | {Phase.PROMOTING, Phase.ROLLBACK_WINDOW}
"""Phases in which evidence is judged."""


def on_evidence(work: Work, event: EvidenceReport) -> None:
    """Add what a replica counted since its report before."""
    report, s = event.evidence, work.state
    if (why := _unusable(s, report)) != "":
        work.ignore(why)
        return
    before = s.totals.last.get(report.replica)
    if before is not None and before.boot_id != report.boot_id:
        before = None
    counted = delta(before, report)
    _count(work, _as_canary(counted) if s.phase is Phase.ROLLBACK_WINDOW else counted)
    work.set(totals=replace(work.state.totals, last={**s.totals.last, report.replica: report}))
    look(work)


def on_answer(work: Work, event: GateAnswer) -> None:
    """Take an answer from outside; an outage is no answer."""
    s = work.state
    if (event.rollout_id, event.step) != (s.rollout_id, s.serving) or s.gates is None:
        work.ignore("an answer about another step")
        return
    kind = AnswerKind.NO_DATA if event.error else _kind(event)
    answer = Answer(work.now_s, kind, event.value, event.error or event.reason)
    work.set(gates=hear(step_gates(work.spec, s.serving), s.gates, event.place, answer))
    look(work)


def count_crash(work: Work) -> None:
    """Count a crash that nobody is left to report."""
    if work.state.phase in WATCHED and work.state.serving >= 0:
        _count(work, CRASH)
        look(work)


def look(work: Work) -> None:
    """Judge the gates of the serving step as they are now."""
    s = work.state
    if s.gates is not None and s.phase in WATCHED:
        work.set(verdict=judge(step_gates(work.spec, s.serving), s.gates, work.now_s))


def ask_gates(work: Work) -> None:
    """Ask the gates that are answered from outside and whose interval is over."""
    s = work.state
    if s.gates is None or s.phase not in WATCHED:
        return
    for watched in step_gates(work.spec, s.serving).asked:
        gate = watched.gate
        assert isinstance(gate, ExternalGate | PrometheusGate)
        asked_s = work.state.asked_s.get(watched.name)
        if asked_s is not None and work.now_s - asked_s < gate.interval_s:
            continue
        work.set(asked_s={**work.state.asked_s, watched.name: work.now_s})
        numbers = {arm: version.number for arm, version in s.targets.items()}
        work.emit(AskGate(s.name, s.rollout_id, s.serving, watched.name, gate, numbers))


def is_flowing(work: Work) -> bool:
    """Tell whether evidence arrives."""
    return work.state.grew_s is not None and 0 <= work.now_s - work.state.grew_s <= FLOWING_S


def lacks_data(work: Work) -> bool:
    """Tell whether the gates hold because nothing arrives."""
    s = work.state
    if s.gates is None or s.verdict is None or s.verdict.outcome is not Outcome.HOLD:
        return False
    no_data_s = step_gates(work.spec, s.serving).no_data_s
    return not 0 <= work.now_s - s.gates.evidence_at_s < no_data_s


def has_worked(state: RolloutState) -> bool:
    """Tell whether the canary has done anything in the serving step."""
    arm, shadow = state.totals.arms.get(CANARY), state.totals.shadows.get(CANARY)
    return (arm is not None and arm.requests > 0) or (shadow is not None and shadow.compared > 0)


def _count(work: Work, counted: Delta) -> None:
    s = work.state
    total = merge(Delta(s.totals.arms, s.totals.shadows), counted)
    work.set(totals=Totals(last=s.totals.last, arms=total.arms, shadows=total.shadows))
    if s.gates is not None:
        work.set(gates=observe(step_gates(work.spec, s.serving), s.gates, counted, work.now_s))
    requests = sum(arm.requests for arm in counted.arms.values())
    if requests or sum(shadow.compared for shadow in counted.shadows.values()):
        work.set(grew_s=work.now_s)


def _unusable(state: RolloutState, report: Evidence) -> str:
    """Return why a report counts nothing; empty when it counts."""
    if state.phase not in WATCHED:
        return "nothing is judged now"
    if (report.rollout_id, report.step) != (state.rollout_id, state.serving):
        return "evidence about another step"
    view = state.replicas.get(report.replica)
    if view is None or view.boot_id != report.boot_id:
        return "evidence of a replica, or a life of it, that is not known"
    before = state.totals.last.get(report.replica)
    if before is not None and before.boot_id == report.boot_id and report.seq <= before.seq:
        return "evidence counted already"
    return ""


def _as_canary(counted: Delta) -> Delta:
    """After promotion the only arm is called stable; what the gates watch is the new version all the same."""
    arms = {CANARY if name == STABLE else name: counts for name, counts in counted.arms.items()}
    return Delta(arms, counted.shadows)


def _kind(event: GateAnswer) -> AnswerKind:
    if not event.verdict:
        return AnswerKind.PASS if event.value is not None else AnswerKind.NO_DATA
    try:
        return AnswerKind(event.verdict)
    except ValueError:
        return AnswerKind.NO_DATA
