"""What is wrong with a rollout file, or odd in it, beyond what one key can tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gateway.config.complaints import suggestion
from gateway.config.rollout_steps import (
    BakeSettings,
    PromoteStepSettings,
    ShadowStepSettings,
    WeightStepSettings,
)
from gateway.config.rollout_values import duration_text, percent_text
from gateway.core.rollout import CANARY, PPM, STABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.config.rollout_assignment import AssignSettings
    from gateway.config.rollout_schema import FreezeSettings, RolloutDocument, SplitDocument
    from gateway.config.yaml_file import Location

    Finding = tuple[Location, str]

_NO_PAIRS: Final = (
    "group '{}' compares the canary as a shadow, which it is in shadow steps alone: no evidence for that "
    "arrives in this step"
)
_ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


def rollout_complaints(document: RolloutDocument, max_window_s: float) -> Iterator[Finding]:
    """Yield where, and what is wrong; a file with any of it is refused.

    Args:
        document: the file.
        max_window_s: longest `keep_stable_warm` allowed.
    """
    yield from _step_complaints(document)
    yield from _gate_complaints(document)
    yield from _shadow_complaints(document)
    yield from _override_complaints(document.assign, [STABLE, CANARY])
    for index, window in enumerate(document.freeze):
        yield from freeze_complaints(("freeze", index), window)
    for index, step in enumerate(document.steps):
        if isinstance(step, PromoteStepSettings) and step.promote.keep_stable_warm > max_window_s:
            at = ("steps", index, "promote", "keep_stable_warm")
            yield at, f"longer than rollouts.max_rollback_window_s allows, {duration_text(max_window_s)}"


def rollout_warnings(document: RolloutDocument) -> Iterator[Finding]:
    """Yield where, and what is odd; the file is taken all the same."""
    yield from _weight_warnings(document)
    used = {group for _, groups in _named_groups(document) for group in groups}
    for group in document.gates.keys() - used:
        yield ("gates", group), "no step names this group"
    for index, step in enumerate(document.steps):
        if isinstance(step, WeightStepSettings):
            for group in step.gates:
                if any(g.disagree and g.disagree.shadow == CANARY for g in document.gates.get(group, ())):
                    yield ("steps", index, "gates"), _NO_PAIRS.format(group)


def split_complaints(document: SplitDocument) -> Iterator[Finding]:
    """Yield where, and what is wrong; a file with any of it is refused."""
    if not document.split and not document.shadow:
        yield (), "give split, shadow or both"
    yield from share_complaints(document.split, document.shadow, ())
    yield from _override_complaints(document.assign, list(document.split))


def share_complaints(split: dict[str, int], shadow: dict[str, int], at: Location) -> Iterator[Finding]:
    """Yield what is wrong with the shares of a plain split that stand at `at`."""
    if split and (total := sum(split.values())) != PPM:
        yield (*at, "split"), f"the shares come to {percent_text(total)} instead of 100%"
    for version in split.keys() & shadow.keys():
        yield (
            (*at, "shadow"),
            f"version {version} is in the split as well: it would answer and be mirrored to",
        )


def _step_complaints(document: RolloutDocument) -> Iterator[Finding]:
    steps, targets = document.steps, document.targets
    if not steps:
        if targets.canary is not None:
            yield ("targets", "canary"), "a canary needs steps that give it traffic"
        elif not targets.shadows:
            yield ("steps",), "give steps for a canary, or shadows"
        return
    if targets.canary is None:
        yield ("targets",), "steps need a canary"
    elif targets.canary == targets.stable:
        yield ("targets", "canary"), f"stable and canary are both {targets.canary}"
    for index, step in enumerate(steps[:-1]):
        if isinstance(step, PromoteStepSettings):
            yield ("steps", index), "promote must be the last step"
    if not isinstance(steps[-1], PromoteStepSettings):
        yield ("steps", len(steps) - 1), "the last step must be promote: {promote: {keep_stable_warm: 24h}}"
    yield from _weight_complaints(document)


def _weight_complaints(document: RolloutDocument) -> Iterator[Finding]:
    most = PPM - document.assign.holdout
    for index, step in enumerate(document.steps):
        at = ("steps", index, "weight")
        if isinstance(step, WeightStepSettings) and step.weight >= PPM:
            yield at, "100% leaves nothing to compare with; promote gives everything"
        elif isinstance(step, WeightStepSettings) and step.weight > most:
            holdout = percent_text(document.assign.holdout)
            yield at, f"{percent_text(step.weight)} does not fit beside the holdout of {holdout}"


def _weight_warnings(document: RolloutDocument) -> Iterator[Finding]:
    highest = 0
    for index, step in enumerate(document.steps):
        if isinstance(step, WeightStepSettings):
            if step.weight < highest:
                less, more = percent_text(step.weight), percent_text(highest)
                text = f"{less} is less than the {more} of a step before: users go back to stable"
                yield ("steps", index, "weight"), text
            highest = max(highest, step.weight)
        elif isinstance(step, ShadowStepSettings) and highest:
            yield (
                ("steps", index, "shadow"),
                f"the canary already answers {percent_text(highest)} here; shadow steps come before weights",
            )


def _named_groups(document: RolloutDocument) -> Iterator[tuple[Location, Sequence[str]]]:
    for index, step in enumerate(document.steps):
        if isinstance(step, BakeSettings):
            yield ("steps", index, "gates"), step.gates
        elif isinstance(step, PromoteStepSettings):
            yield ("steps", index, "promote", "gates"), step.promote.gates


def _gate_complaints(document: RolloutDocument) -> Iterator[Finding]:
    known = list(document.gates)
    for at, groups in _named_groups(document):
        for group in groups:
            if group not in document.gates:
                there = f"there are {', '.join(known)}" if known else "gates names none"
                yield at, f"no group of gates '{group}'; {there}{suggestion(group, known)}"
        if len(set(groups)) < len(groups):
            yield at, "a group is named twice"
    shadows = [CANARY, *(shadow.name for shadow in document.targets.shadows)]
    for group, gates in document.gates.items():
        if not gates:
            yield ("gates", group), "a group without gates would let everything pass"
        for index, gate in enumerate(gates):
            if gate in gates[:index]:
                yield ("gates", group, index), "the same gate stands here twice"
            if gate.disagree and gate.disagree.shadow not in shadows:
                name = gate.disagree.shadow
                yield (
                    ("gates", group, index, "disagree", "shadow"),
                    f"no shadow '{name}'; there are {', '.join(shadows)}{suggestion(name, shadows)}",
                )


def _shadow_complaints(document: RolloutDocument) -> Iterator[Finding]:
    seen = {STABLE, CANARY}
    for index, shadow in enumerate(document.targets.shadows):
        if shadow.name in seen:
            yield ("targets", "shadows", index, "name"), f"the name '{shadow.name}' is taken"
        seen.add(shadow.name)


def _override_complaints(assign: AssignSettings, arms: list[str]) -> Iterator[Finding]:
    for index, override in enumerate(assign.overrides):
        for arm in override.arms:
            if arm not in arms:
                yield (
                    ("assign", "overrides", index, "in"),
                    f"no arm '{arm}'; there are {', '.join(arms) or 'none'}{suggestion(arm, arms)}",
                )


def freeze_complaints(at: Location, window: FreezeSettings) -> Iterator[Finding]:
    """Yield what is wrong with a window that recurs."""
    try:
        ZoneInfo(window.tz)
    except (OSError, ValueError, LookupError):
        yield (*at, "tz"), f"no time zone '{window.tz}'; expected a name such as Europe/Berlin or UTC"
    if len(window.cron.split()) != 5:
        yield (*at, "cron"), f"expected five fields such as '0 17 * * FRI', got '{window.cron}'"
        return
    try:
        CronSim(window.cron, _ANY_TIME)
    except CronSimError as exc:
        yield (*at, "cron"), f"'{window.cron}' is no cron expression: {exc}"
