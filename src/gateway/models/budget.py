"""Room for loaded models: what a memory budget is asked before a load, and told after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import Artifact, Device, VersionId


class LoadBudget(Protocol):
    """Decides what may be loaded beside what is. Every method is called on the event loop.

    Each `admit`, however it ends, is followed by one `released`. A version that is being unloaded, while it
    is leased, may be loaded again: it is then admitted twice before it is released.
    """

    async def admit(self, wanted: WantedVersion, artifact: Artifact) -> None:
        """Wait for, or refuse, room before a load; what is admitted counts as held from here on.

        Other loads wait meanwhile, as for any load. Cancelled when the version is withdrawn.

        Args:
            wanted: what is to be loaded, and how.
            artifact: its files, on the local disk.

        Raises:
            ModelLoadError: it does not fit; the message has the numbers.
        """

    def loaded(self, version: VersionId, memory: Sequence[tuple[Device, int]]) -> None:
        """Take note of what a version that was admitted holds, now that it is READY, in bytes by device."""

    def released(self, version: VersionId) -> None:
        """Take note that a version holds nothing any more.

        Also called when it was not admitted, and when its load failed or was given up.
        """


class Unlimited:
    """A LoadBudget that admits everything."""

    async def admit(self, wanted: WantedVersion, artifact: Artifact) -> None:
        """Admit it at once."""

    def loaded(self, version: VersionId, memory: Sequence[tuple[Device, int]]) -> None:
        """Take no note."""

    def released(self, version: VersionId) -> None:
        """Take no note."""
