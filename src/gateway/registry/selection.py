"""Chooses, of what a registry says there is of a model, the versions to serve. Pure.

What a registry no longer has can be a decision or an accident, so a choice says which of its gaps are
what: `Hold` tells whether versions served before may fill them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.models.policy import served_numbers
from gateway.registry.labels import matches, number_of
from gateway.registry.reference import Selector, SelectorKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.options import VersionPolicy
    from gateway.core.registry import RegisteredModel, RegistryVersion


class Hold(enum.Enum):
    """What becomes of versions that were served before and that a selection does not name."""

    NONE = "none"
    """They go: the registry has what was asked for."""
    MISSING = "missing"
    """What was asked for is not in the registry: the operator's policy decides."""
    UNUSABLE = "unusable"
    """It is there and cannot be served now: they stay, as after a version that fails to load."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to serve of one model.

    Attributes:
        versions: chosen, ascending numbers without repeats.
        problem: what was asked for and is not among them, for people; empty when nothing is amiss.
        hold: what becomes of versions served before.
        numbers: with `hold`, those of them that may stay; None: any.
    """

    versions: tuple[RegistryVersion, ...]
    problem: str = ""
    hold: Hold = Hold.NONE
    numbers: frozenset[int] | None = None


def select(
    model: RegisteredModel,
    selector: Selector,
    policy: VersionPolicy,
    before: Sequence[RegistryVersion] = (),
) -> Selection:
    """Return which versions of a model to serve.

    Args:
        model: what the registry says.
        selector: what the reference names; SelectorKind.POLICY leaves it to `policy`.
        policy: the model's `versions:`.
        before: what is served now. A version whose files are being replaced, which the registry calls
            unusable for that while, stays a candidate as it was.
    """
    model = _with_standing(model, before)
    if selector.kind is SelectorKind.ALIAS:
        return _alias(model, selector.value)
    if selector.kind is SelectorKind.LABEL:
        return _named(model, selector.value, f"version '{selector.value}'")
    if selector.kind is SelectorKind.POLICY and policy.specific and not policy.all:
        return _specific(model, policy.specific)
    chosen = _set(model, selector, policy)
    return Selection(chosen) if chosen else _nothing(model, selector)


def served(
    selection: Selection, before: Sequence[RegistryVersion], *, unload_missing: bool
) -> tuple[RegistryVersion, ...]:
    """Return the versions to serve from now on, given those served before.

    Args:
        selection: what the registry leads to.
        before: what is served now.
        unload_missing: whether a version goes when what named it is no longer in the registry.
    """
    if selection.hold is Hold.NONE or (selection.hold is Hold.MISSING and unload_missing):
        return selection.versions
    chosen = {v.number: v for v in selection.versions}
    for version in before:
        if selection.numbers is None or version.number in selection.numbers:
            chosen.setdefault(version.number, version)
    # Of a list none of which is there, and that never served, nothing can take over from what does.
    chosen = chosen or {v.number: v for v in before}
    return tuple(chosen[number] for number in sorted(chosen))


def _with_standing(model: RegisteredModel, before: Sequence[RegistryVersion]) -> RegisteredModel:
    """Return the model with the versions of `before` that it calls unusable, one version for each number."""
    usable: dict[int, RegistryVersion] = {}
    for version in model.versions:
        usable.setdefault(version.number, version)
    unusable = dict(model.unusable)
    for version in before:
        if version.label in unusable and version.number not in usable:
            usable[version.number] = version
            del unusable[version.label]
    return replace(model, versions=tuple(usable[n] for n in sorted(usable)), unusable=unusable)


def _alias(model: RegisteredModel, alias: str) -> Selection:
    label = model.aliases.get(alias)
    if label is None:
        there = _listed(sorted(model.aliases)) or "none"
        return Selection((), f"'{model.name}' has no alias '{alias}' (there are: {there})", Hold.MISSING)
    return _named(model, label, f"alias '{alias}' names version '{_short(label)}'")


def _named(model: RegisteredModel, label: str, what: str) -> Selection:
    """Return the version of a label, or what keeps it from being served."""
    number = number_of(label)
    exact = [v for v in model.versions if v.label == label] or [
        v for v in model.versions if number is not None and v.number == number
    ]
    if exact:
        return Selection((exact[0],))
    if (why := _why_unusable(model, label)) is not None:
        return Selection(
            (), f"{what} of '{model.name}', which cannot be served: {_short(why)}", Hold.UNUSABLE
        )
    there = _listed([v.label for v in model.versions]) or "none"
    return Selection((), f"{what}, which '{model.name}' does not have (there are: {there})", Hold.MISSING)


def _specific(model: RegisteredModel, numbers: Sequence[int]) -> Selection:
    """Return the versions of a list of numbers; those that are not there leave a gap each."""
    found = {v.number: v for v in model.versions if v.number in numbers}
    gaps = sorted(set(numbers) - found.keys())
    versions = tuple(found[n] for n in sorted(found))
    if not gaps:
        return Selection(versions)
    unusable = {number_of(label): why for label, why in model.unusable.items()}
    words = [f"{n} ({_short(unusable[n])})" if n in unusable else str(n) for n in gaps]
    hold = Hold.UNUSABLE if any(n in unusable for n in gaps) else Hold.MISSING
    problem = f"of the versions asked for '{model.name}' does not have, or cannot serve: {_listed(words)}"
    return Selection(versions, problem, hold, frozenset(gaps))


def _set(model: RegisteredModel, selector: Selector, policy: VersionPolicy) -> tuple[RegistryVersion, ...]:
    """Return the versions of a selector that means whatever there is."""
    if selector.kind is SelectorKind.ALL:
        return model.versions
    if selector.kind is SelectorKind.LATEST:
        return model.versions[-1:]
    if selector.kind is SelectorKind.PREFIX:
        return tuple(v for v in model.versions if matches(selector.value, v.label))[-1:]
    numbers = served_numbers(policy, (v.number for v in model.versions))
    return tuple(v for v in model.versions if v.number in numbers)


def _nothing(model: RegisteredModel, selector: Selector) -> Selection:
    """Say that a selector which means whatever there is leads to no version."""
    which = f"no version '{selector}'" if selector.kind is SelectorKind.PREFIX else "no version"
    relevant: Mapping[str, str] = model.unusable
    if selector.kind is SelectorKind.PREFIX:
        relevant = {label: why for label, why in model.unusable.items() if matches(selector.value, label)}
    if relevant:
        reasons = _listed([f"'{_short(label)}': {why}" for label, why in sorted(relevant.items())])
        return Selection((), f"'{model.name}' has {which} that can be served ({reasons})", Hold.UNUSABLE)
    there = _listed([v.label for v in model.versions])
    problem = f"'{model.name}' has {which}" + (f" (there are: {there})" if there else "")
    return Selection((), problem, Hold.MISSING)


def _why_unusable(model: RegisteredModel, label: str) -> str | None:
    number = number_of(label)
    for other, why in model.unusable.items():
        if other == label or (number is not None and number_of(other) == number):
            return why
    return None


def _listed(words: Sequence[str]) -> str:
    """Return the last few words, which of versions are the newest, joined by commas."""
    shown = ", ".join(_short(word) for word in words[-8:])
    return f"..., {shown}" if len(words) > 8 else shown


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
