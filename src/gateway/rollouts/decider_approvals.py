"""Who has approved what. An approval binds to rollout, step and evidence, and expires."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.rollout import ApproveStep
    from gateway.rollouts.decider_work import Work


def person(who: str) -> str:
    """Return the name in `user:alice (uid 1000)`; a plain name is itself."""
    return who.removeprefix("user:").partition(" (")[0].strip()


def refusal(work: Work, step: ApproveStep, who: str, roles: frozenset[str], evidence_hash: str) -> str:
    """Return why an approval does not count; empty when it does."""
    s = work.state
    if not person(who):
        return "nobody is named"
    if evidence_hash != s.approval_hash:
        return "it names other evidence than this step's; look at the status again"
    if step.roles and not step.roles & roles:
        return f"none of {', '.join(sorted(step.roles))}"
    if not step.not_author:
        return ""
    if not s.file.author:
        return "the file's author is not known, so nobody is known to be another"
    if person(who) in {person(s.file.author), person(work.spec.author), person(s.resumer)}:
        return "who wrote the file, resumed or retried the rollout does not approve it"
    return ""


def valid_approvals(work: Work, step: ApproveStep) -> frozenset[str]:
    """Return who has approved the present step, each person once."""
    s = work.state
    return frozenset(
        person(a.who)
        for a in s.approvals
        if (a.rollout_id, a.step) == (s.rollout_id, s.step)
        and work.wall_s - a.wall_s <= step.expires_s
        and not refusal(work, step, a.who, a.roles, a.evidence_hash)
    )
