"""The seam by which a rollout gets single versions of a model's source, whatever its version policy wants."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.core.interfaces import WantedVersion
    from gateway.core.rollout import Target
    from gateway.core.types import VersionId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTarget:
    """What a target names now.

    Attributes:
        wanted: the version, ready to be claimed.
        label: the source's own id of it; its number as text in a local repository.
        digest: tells its files from any others of the source; equal on every gateway that follows the source.
        pin: JSON types that `restore_target` makes the same version from, without asking a registry.
    """

    wanted: WantedVersion
    label: str
    digest: str
    pin: Mapping[str, Any]


class TargetSource(Protocol):
    """A source of models that finds single versions of them."""

    async def models(self) -> Collection[str]:
        """Return the names of its models."""

    async def resolve_target(self, model: str, target: Target) -> ResolvedTarget:
        """Find what `target` names now.

        Raises:
            NotFound: there is no such model, version or alias; the message names what there is.
            ModelLoadError: it is there and can never be loaded as it is.
            RegistryError: the registry could not say; step `resolve`.
        """

    async def restore_target(self, model: str, pin: Mapping[str, Any]) -> ResolvedTarget:
        """Make what was resolved earlier, perhaps by another process; raises as `resolve_target`."""

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        """Name the complete set of resolved versions that are still needed; the files of others may go."""
