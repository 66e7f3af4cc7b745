"""Makes what a source offers of one model: desired versions with providers, and what must be kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gateway.core.types import Artifact, VersionId, VersionOrigin, VersionState
from gateway.models.desired import DesiredVersion, desired
from gateway.registry.cache.manifest import is_sha256
from gateway.registry.provider import ArtifactRules, ArtifactStore, CachedProvider, Wanted
from gateway.registry.resolutions import ReadyVersion, rollback_window

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.core.registry import ModelRegistry, RegistryVersion
    from gateway.core.types import VersionStatus
    from gateway.registry.following import Following, SourcedModel
    from gateway.registry.model_specs import ModelDescription
    from gateway.registry.verification.policy import SignatureReport


@dataclass(frozen=True, slots=True)
class _Offer:
    """One version that is offered."""

    version: RegistryVersion
    provider: CachedProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferParts:
    """What offers of a registry are made from.

    Attributes:
        registry: where the files are.
        cache: where they are put.
        rules: what they must be like.
        keep_previous: versions no longer wanted whose files are kept for a rollback, those READY last.
    """

    registry: ModelRegistry
    cache: ArtifactStore
    rules: ArtifactRules
    keep_previous: int


class Offers:
    """The versions of one model as its source offers them. Event loop only.

    An offer keeps its identity, and its provider, as long as the registry means the same files and the model
    is served alike; a move of an alias alone changes neither. A version that serves on although it is no
    longer offered has the same provider when it is offered again.
    """

    def __init__(self, model: SourcedModel, parts: OfferParts) -> None:
        self._model = model
        self._parts = parts
        self._offers: dict[VersionId, _Offer] = {}
        # As long as anybody has them: also of versions that are no longer offered, and serve on.
        self._providers: WeakValueDictionary[VersionId, CachedProvider] = WeakValueDictionary()
        self._targets: dict[VersionId, DesiredVersion] = {}
        self._made_from: tuple[object, ...] = ()
        self._last: list[DesiredVersion] = []

    def make(self, following: Following) -> list[DesiredVersion]:
        """Return what is wanted now, by ascending number, and forget what no longer is.

        Made anew only when something has changed: the digest of a spec takes a tenth of a millisecond.
        """
        description = following.description
        if description is None:
            return []
        made_from = (following.offered, description, following.aliases)
        if made_from != self._made_from:
            self._last = self._made(following.offered, description, following.aliases, forget=True)
            self._made_from = made_from
        return list(self._last)

    def make_otherwise(
        self,
        versions: Sequence[RegistryVersion],
        description: ModelDescription,
        aliases: Mapping[str, str],
    ) -> list[DesiredVersion]:
        """Return versions described in another way than the model is; what `make` returned stays known."""
        return self._made(versions, description, aliases, forget=False)

    def make_target(
        self, version: RegistryVersion, description: ModelDescription, aliases: Mapping[str, str]
    ) -> DesiredVersion:
        """Return one version, wanted or not; it stays known until `keep_targets` leaves it out."""
        (target,) = self._made([version], description, aliases, forget=False)
        self._targets[target.id] = target
        return target

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        """Forget all versions made by `make_target` but these."""
        wanted = {v.id for v in self._last}
        for gone in self._targets.keys() - set(versions):
            del self._targets[gone]
            if gone not in wanted:
                self._offers.pop(gone, None)

    def note(self, status: VersionStatus, following: Following, wall_s: float) -> bool:
        """Take a version that is READY into the history; return whether other versions are offered now."""
        offer = self._offers.get(status.id)
        if offer is None or status.state not in {VersionState.READY, VersionState.FAILED}:
            return False
        version, before, is_ready = offer.version, following.offered, status.state is VersionState.READY
        following.settled(version, is_ready=is_ready)
        if is_ready and is_sha256(status.content_digest):
            entry = ReadyVersion(
                label=version.label,
                revision=version.revision,
                digest=status.content_digest,
                ready_s=wall_s,
                location=version.location,
            )
            following.ready = self._window((*following.ready, entry), following)
        return before != following.offered

    def keep_digests(self, following: Following) -> set[str]:
        """Return the content digests of what is wanted now, or was READY and may be wanted back."""
        kept = {entry.digest for entry in self._window(following.ready, following)}
        kept |= {offer.provider.digest for offer in self._offers.values()}
        return (kept | {self._model.digest}) - {""}

    def signature(self, version: VersionId) -> SignatureReport | None:
        """Return what checking a version's signature found; None when nobody has looked."""
        provider = self._providers.get(version)
        return provider.signature if provider is not None else None

    def _window(self, ready: Sequence[ReadyVersion], following: Following) -> tuple[ReadyVersion, ...]:
        wanted = {(v.label, v.revision) for v in (*following.versions, *following.standing_in)}
        return rollback_window(ready, wanted, self._parts.keep_previous)

    def _made(
        self,
        versions: Sequence[RegistryVersion],
        description: ModelDescription,
        aliases: Mapping[str, str],
        *,
        forget: bool,
    ) -> list[DesiredVersion]:
        offers: dict[VersionId, _Offer] = {}
        made: list[DesiredVersion] = []
        for version in versions:
            artifact = Artifact(Path(), Path(), self._digest(version))
            plain = desired(version.number, artifact, description.spec)
            offer = self._offers.get(plain.id)
            if offer is None:
                offer = _Offer(version, self._provider(plain.id, version, description))
            offers[plain.id] = offer
            made.append(replace(plain, provider=offer.provider, origin=self._origin(version, aliases)))
        standing = [*self._targets] if forget else [*self._targets, *(v.id for v in self._last)]
        self._offers = {**{known: self._offers[known] for known in standing}, **offers}
        return made

    def _provider(
        self, version_id: VersionId, version: RegistryVersion, description: ModelDescription
    ) -> CachedProvider:
        provider = self._providers.get(version_id)
        if provider is None:
            wanted = Wanted(
                registry=self._parts.registry,
                version=version,
                model_filename=description.model_filename,
                pinned_digest=self._model.digest,
            )
            provider = CachedProvider(self._parts.cache, wanted, self._parts.rules)
            self._providers[version_id] = provider
        return provider

    def _origin(self, version: RegistryVersion, aliases: Mapping[str, str]) -> VersionOrigin:
        return VersionOrigin(
            registry=self._parts.registry.name,
            source=str(self._model.reference),
            label=version.label,
            aliases=tuple(sorted(alias for alias, label in aliases.items() if label == version.label)),
            lineage=version.lineage,
        )

    def _digest(self, version: RegistryVersion) -> str:
        """Return what tells this version's files from others before they are here."""
        parts = (self._parts.registry.identity, version.model, version.label, version.revision)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
