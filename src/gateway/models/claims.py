"""Named claims and their union: which versions must be served, whoever wants them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import VersionId

    _ByNumber: TypeAlias = dict[tuple[str, int], WantedVersion]

_log = logging.getLogger(__name__)


class Claims:
    """The complete wanted set of each claimant.

    Where two claimants want different content under one number, the one that came first has it, and the
    other is told in the log: a number can only lead to one version.

    A version whose spec is lazy counts only while its model is awake (see `wake`), or while somebody claims
    the same version with a spec that is not.
    """

    def __init__(self) -> None:
        self._claims: dict[str, tuple[WantedVersion, ...]] = {}
        self._told: frozenset[tuple[str, VersionId]] = frozenset()
        self._awake: frozenset[str] = frozenset()
        self._known: tuple[_ByNumber, _ByNumber] | None = None

    def replace(self, claim: str, wanted: Sequence[WantedVersion]) -> None:
        """Set the complete set of `claim`; an empty one withdraws it."""
        if wanted:
            self._claims[claim] = tuple(wanted)
        else:
            self._claims.pop(claim, None)
        self._known = None

    def wake(self, models: Collection[str]) -> None:
        """Set the models whose lazy versions are wanted now."""
        self._awake = frozenset(models)

    def clear(self) -> None:
        """Withdraw everything."""
        self._claims.clear()
        self._known = None

    def union(self) -> Mapping[tuple[str, int], WantedVersion]:
        """Return what must be loaded, by model and number."""
        chosen, eager = self._chosen()
        return {
            key: eager.get(key, wanted)
            for key, wanted in chosen.items()
            if key in eager or wanted.id.model in self._awake
        }

    def lazy(self) -> Mapping[str, Sequence[WantedVersion]]:
        """Return the versions that are loaded on first use, by model and ascending number, awake or not."""
        chosen, eager = self._chosen()
        lazy: dict[str, list[WantedVersion]] = {}
        for key in sorted(chosen.keys() - eager.keys()):
            lazy.setdefault(key[0], []).append(chosen[key])
        return lazy

    def claimants(self) -> Mapping[VersionId, Sequence[str]]:
        """Return the names of the claims on each version, in the order in which they were made."""
        claimants: dict[VersionId, list[str]] = {}
        for claim, wanted in self._each():
            claimants.setdefault(wanted.id, []).append(claim)
        return claimants

    def _chosen(self) -> tuple[_ByNumber, _ByNumber]:
        """Return the version that each number leads to, and those of them that are wanted unconditionally."""
        if self._known is None:
            self._known = self._choose()
        return self._known

    def _choose(self) -> tuple[_ByNumber, _ByNumber]:
        chosen: _ByNumber = {}
        eager: _ByNumber = {}
        refused: set[tuple[str, VersionId]] = set()
        for claim, wanted in self._each():
            key = wanted.id[:2]
            if chosen.setdefault(key, wanted).id != wanted.id:
                refused.add((claim, wanted.id))
            elif not wanted.spec.lazy:
                eager.setdefault(key, wanted)
        self._tell(frozenset(refused))
        return chosen, eager

    def _each(self) -> Iterator[tuple[str, WantedVersion]]:
        for claim, versions in self._claims.items():
            for wanted in versions:
                yield claim, wanted

    def _tell(self, refused: frozenset[tuple[str, VersionId]]) -> None:
        for claim, version in sorted(refused - self._told):
            _log.warning(
                "claim %r on model %r version %d is not served: an earlier claim holds that number with "
                "other content",
                claim,
                version.model,
                version.number,
            )
        self._told = refused
