"""The versions that a line of rollouts was resolved to: found, kept over restarts, and claimed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import NotFound
from gateway.core.state import RevisionConflict
from gateway.core.types import VersionId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gateway.core.evidence import RoutePlan
    from gateway.core.interfaces import WantedVersion
    from gateway.core.rollout import Target
    from gateway.core.state import StateStore
    from gateway.core.targets import ResolvedTarget, TargetSource

PREFIX: Final = "pins/"


@dataclass(frozen=True, slots=True)
class Pin:
    """One version.

    Attributes:
        id: as it was resolved; what rollouts know it by.
        label: the source's own id.
        data: what the source makes it from again.
    """

    id: VersionId
    label: str
    data: Mapping[str, Any]


class Pins:
    """The versions of one line, by the identity that they were resolved with.

    A restart may find a version's model served by other settings: its identity is another then, and its files
    are the same. `present` and `original` translate.

    Args:
        name: of the line.
        store: where pins are kept.
        sources: where versions come from.
    """

    def __init__(self, name: str, store: StateStore, sources: Sequence[TargetSource]) -> None:
        self._key = PREFIX + name
        self._store = store
        self._sources = sources
        self._pins: dict[VersionId, Pin] = {}
        self._wanted: dict[VersionId, WantedVersion] = {}
        self._revision = 0

    async def load(self) -> None:
        """Read what an earlier process pinned."""
        document = await self._store.read(self._key)
        if document is None:
            return
        self._revision = document.revision
        self._pins.clear()
        for row in document.value["pins"]:
            version = VersionId(*row["id"])
            self._pins[version] = Pin(version, row["label"], row["pin"])

    async def resolve(self, model: str, target: Target) -> ResolvedTarget:
        """Find what a target names now; raises as `TargetSource.resolve_target`."""
        return await (await self._source(model)).resolve_target(model, target)

    async def keep(self, resolved: Iterable[ResolvedTarget], still: Collection[VersionId]) -> None:
        """Pin what was resolved, durably, beside those of `still`; all others are forgotten.

        Raises:
            StateUnavailable: it could not be written; nothing is pinned.
            RevisionConflict: the store has other pins than were known; they are by now.
        """
        pins = {version: pin for version, pin in self._pins.items() if version in still}
        wanted = {version: self._wanted[version] for version in pins if version in self._wanted}
        for one in resolved:
            pins[one.wanted.id] = Pin(one.wanted.id, one.label, one.pin)
            wanted[one.wanted.id] = one.wanted
        rows = [{"id": list(pin.id), "label": pin.label, "pin": dict(pin.data)} for pin in pins.values()]
        try:
            document = await self._store.write(self._key, {"pins": rows}, self._revision)
        except RevisionConflict:
            await self.load()
            raise
        self._revision, self._pins, self._wanted = document.revision, pins, wanted

    async def restore(self, version: VersionId) -> None:
        """Make a pinned version claimable again; raises as `TargetSource.restore_target`."""
        if version in self._wanted:
            return
        if version not in self._pins:
            raise NotFound(f"nothing is known of version {version.number} of '{version.model}' any more")
        source = await self._source(version.model)
        restored = await source.restore_target(version.model, self._pins[version].data)
        self._wanted[version] = restored.wanted

    def wanted(self, versions: Collection[VersionId]) -> list[WantedVersion]:
        """Return those of `versions` that can be claimed."""
        return [self._wanted[version] for version in sorted(versions) if version in self._wanted]

    def present(self, version: VersionId) -> VersionId:
        """Return the identity that a pinned version has now."""
        wanted = self._wanted.get(version)
        return version if wanted is None else wanted.id

    def original(self, version: VersionId) -> VersionId:
        """Return the identity that a version was pinned with."""
        return next((pinned for pinned, wanted in self._wanted.items() if wanted.id == version), version)

    def pinned(self) -> frozenset[VersionId]:
        """Return every version pinned, as it was resolved."""
        return frozenset(self._pins)

    def translated(self, plan: RoutePlan) -> RoutePlan:
        """Return a plan with the identities that its versions have now."""
        return replace(
            plan,
            arms=tuple(replace(arm, version=self.present(arm.version)) for arm in plan.arms),
            shadows=tuple(replace(one, version=self.present(one.version)) for one in plan.shadows),
        )

    async def _source(self, model: str) -> TargetSource:
        for source in self._sources:
            if model in await source.models():
                return source
        raise NotFound(f"there is no model '{model}' here")
