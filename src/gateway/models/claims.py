"""Named claims and their union: which versions must be served, whoever wants them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import VersionId

    _ByNumber: TypeAlias = dict[tuple[str, int], WantedVersion]

_log = logging.getLogger(__name__)


class _Choice(NamedTuple):
    """What the claims come to, found out once after each change: it is asked for at every step of a load.

    Attributes:
        chosen: the version that each number leads to.
        eager: those of them that are wanted unconditionally.
        lazy: the others, by model and ascending number.
        claimants: the names of the claims on each version.
    """

    chosen: _ByNumber
    eager: _ByNumber
    lazy: Mapping[str, Sequence[WantedVersion]]
    claimants: Mapping[VersionId, Sequence[str]]


class Claims:
    """The complete wanted set of each claimant.

    Where two claimants want different content under one number, the one that came first has it, and the
    other is told in the log: a number can only lead to one version.

    A version whose spec is lazy counts only while its model is awake (see `wake`), or while somebody claims
    the same version with a spec that is not. A model that nobody claims falls asleep, and stays so when it
    comes back.
    """

    def __init__(self) -> None:
        self._claims: dict[str, tuple[WantedVersion, ...]] = {}
        self._told: frozenset[tuple[str, VersionId]] = frozenset()
        self._named: frozenset[str] = frozenset()
        self._awake: frozenset[str] = frozenset()
        self._known: _Choice | None = None

    def replace(self, claim: str, wanted: Sequence[WantedVersion]) -> None:
        """Set the complete set of `claim`; an empty one withdraws it."""
        if wanted:
            self._claims[claim] = tuple(wanted)
        else:
            self._claims.pop(claim, None)
        self._known = None

    def wake(self, models: Collection[str]) -> None:
        """Set the models whose lazy versions are wanted now.

        One that was named the last time as well is left as it is: asleep, if it was gone in between.
        """
        named = frozenset(models)
        self._awake = (self._awake | (named - self._named)) & named & _models(self._choice().chosen)
        self._named = named

    def clear(self) -> None:
        """Withdraw everything."""
        self._claims.clear()
        self._known = None

    def union(self) -> Mapping[tuple[str, int], WantedVersion]:
        """Return what must be loaded, by model and number."""
        choice = self._choice()
        return {
            key: choice.eager.get(key, wanted)
            for key, wanted in choice.chosen.items()
            if key in choice.eager or wanted.id.model in self._awake
        }

    def lazy(self) -> Mapping[str, Sequence[WantedVersion]]:
        """Return the versions that are loaded on first use, by model and ascending number, awake or not."""
        return self._choice().lazy

    def claimants(self) -> Mapping[VersionId, Sequence[str]]:
        """Return the names of the claims on each version, in the order in which they were made."""
        return self._choice().claimants

    def _choice(self) -> _Choice:
        if self._known is None:
            self._known = self._choose()
        return self._known

    def _choose(self) -> _Choice:
        chosen: _ByNumber = {}
        eager: _ByNumber = {}
        lazy: dict[str, list[WantedVersion]] = {}
        claimants: dict[VersionId, list[str]] = {}
        refused: set[tuple[str, VersionId]] = set()
        for claim, wanted in self._each():
            key = wanted.id[:2]
            claimants.setdefault(wanted.id, []).append(claim)
            if chosen.setdefault(key, wanted).id != wanted.id:
                refused.add((claim, wanted.id))
            elif not wanted.spec.lazy:
                eager.setdefault(key, wanted)
        for key in sorted(chosen.keys() - eager.keys()):
            lazy.setdefault(key[0], []).append(chosen[key])
        self._tell(frozenset(refused))
        self._awake &= _models(chosen)
        return _Choice(chosen, eager, lazy, claimants)

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


def _models(versions: _ByNumber) -> frozenset[str]:
    return frozenset(model for model, _ in versions)
