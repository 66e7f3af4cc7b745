"""Single versions of a registry's models, as rollouts name them. Pure."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.registry import RegistryVersion
from gateway.core.targets import ResolvedTarget
from gateway.registry.reference import Selector, SelectorKind
from gateway.registry.selection import select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.options import VersionPolicy
    from gateway.core.registry import RegisteredModel
    from gateway.core.rollout import Target
    from gateway.models.desired import DesiredVersion


def select_target(registered: RegisteredModel, policy: VersionPolicy, target: Target) -> RegistryVersion:
    """Return the version that `target` names.

    Raises:
        NotFound: it names none; the message says what there is.
    """
    selector = (
        Selector(SelectorKind.ALIAS, target.alias)
        if target.alias
        else Selector(SelectorKind.LABEL, target.text)
    )
    selection = select(registered, selector, policy)
    if not selection.versions:
        raise NotFound(selection.problem)
    return selection.versions[0]


def resolved_target(wanted: DesiredVersion, version: RegistryVersion) -> ResolvedTarget:
    """Return a version with what `pinned_version` makes it from again; lineage is the registry's to tell."""
    pin = {field.name: getattr(version, field.name) for field in fields(version) if field.name != "lineage"}
    return ResolvedTarget(wanted=wanted, label=version.label, digest=wanted.artifact.digest, pin=pin)


def pinned_version(pin: Mapping[str, Any]) -> RegistryVersion:
    """Return the version that a pin was made of.

    Raises:
        ModelLoadError: it is no pin of a registry's version: the model has another source by now.
    """
    try:
        return RegistryVersion(**pin)
    except TypeError as error:
        raise ModelLoadError("it was resolved while the model had another source") from error
