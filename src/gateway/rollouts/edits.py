"""What an edit of the file means for a rollout in progress."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.rollout import PromoteStep, ShadowStep, WeightStep
from gateway.rollouts.identity import semantics

if TYPE_CHECKING:
    from gateway.core.rollout import RolloutSpec


class Edit(enum.Enum):
    """Classes of edits, in the order in which they are looked for."""

    REFUSED = "refused"
    """Who is assigned how, what stable is, whose model: not while a rollout is in progress."""
    OVERLAY = "overlay"
    """Nothing that makes it another rollout: pause, freeze windows, author."""
    RESTART = "restart"
    """Another canary, or other steps up to the present one: withdrawn without a verdict."""
    EASE = "ease"
    """The present weight is lower: at once. The step bakes anew."""
    REGATE = "regate"
    """Gates, statistics, later steps: the evidence of the present step is void, it bakes anew.

    To change the error allowed after having looked would break what the statistics promise."""


def classify(old: RolloutSpec, new: RolloutSpec, serving: int, step: int) -> tuple[Edit, str]:
    """Return the class and, in words, what was changed.

    Args:
        old: in force.
        new: just read.
        serving: index of the step whose plan is in force; negative before the first.
        step: index of the present step, at least `serving`.
    """
    if semantics(old) == semantics(new):
        return Edit.OVERLAY, "pause, freeze or author"
    if not old.steps:
        return Edit.RESTART, "shadows alone: nothing is judged"
    if refusal := _refusal(old, new):
        return Edit.REFUSED, refusal
    if old.canary != new.canary:
        return Edit.RESTART, "another canary"
    if serving < 0:
        return Edit.RESTART, "changed before the first step"
    if old.steps[: step + 1] == new.steps[: step + 1]:
        return Edit.REGATE, "gates, statistics or later steps"
    if _is_eased(old, new, serving, step):
        return Edit.EASE, "a lower weight"
    return Edit.RESTART, "other steps up to the present one"


def begins_another(old: RolloutSpec | None, new: RolloutSpec, *, promoted: bool) -> bool:
    """Return whether a file read while nothing is in progress begins a rollout.

    After a promotion only another canary or other steps do; after a withdrawal whatever makes it another one.
    """
    if not new.steps and not new.shadows:
        return False
    if old is None:
        return True
    if promoted:
        return old.canary != new.canary or old.steps != new.steps
    return semantics(old) != semantics(new)


def _refusal(old: RolloutSpec, new: RolloutSpec) -> str:
    if old.model != new.model:
        return "the model cannot be changed while a rollout is in progress"
    fixed = ("hash", "keys", "holdout_ppm")
    changed = [name for name in fixed if getattr(old.assign, name) != getattr(new.assign, name)]
    if changed:
        return f"assign ({', '.join(changed)}) cannot be changed in a rollout in progress; abort it first"
    if old.stable != new.stable:
        return "stable cannot be changed while a rollout is in progress; abort it first"
    known = {(shadow.name, shadow.target) for shadow in old.shadows}
    if any((shadow.name, shadow.target) not in known for shadow in new.shadows) and old.canary == new.canary:
        return "shadows cannot be added while a rollout is in progress; abort it first"
    return ""


def _is_eased(old: RolloutSpec, new: RolloutSpec, serving: int, step: int) -> bool:
    """Tell whether the present weight is lower and nothing else up to the present step differs."""
    if len(new.steps) <= step:
        return False
    was, is_now = old.steps[serving], new.steps[serving]
    if isinstance(was, PromoteStep):
        return False
    if isinstance(was, WeightStep) and isinstance(is_now, WeightStep):
        eased = is_now.weight_ppm <= was.weight_ppm
    elif isinstance(was, ShadowStep) and isinstance(is_now, ShadowStep):
        eased = is_now.sample_ppm <= was.sample_ppm
    else:
        return False
    others = (*old.steps[:serving], is_now, *old.steps[serving + 1 : step + 1])
    return eased and new.steps[: step + 1] == others


def with_author(spec: RolloutSpec, author: str) -> RolloutSpec:
    """Return the specification with its author filled in."""
    return spec if spec.author else replace(spec, author=author)
