"""Named claims and their union: which versions must be served, whoever wants them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import VersionId

_log = logging.getLogger(__name__)


class Claims:
    """The complete wanted set of each claimant.

    Where two claimants want different content under one number, the one that came first has it, and the
    other is told in the log: a number can only lead to one version.
    """

    def __init__(self) -> None:
        self._claims: dict[str, tuple[WantedVersion, ...]] = {}
        self._told: frozenset[tuple[str, VersionId]] = frozenset()

    def replace(self, claim: str, wanted: Sequence[WantedVersion]) -> None:
        """Set the complete set of `claim`; an empty one withdraws it."""
        if wanted:
            self._claims[claim] = tuple(wanted)
        else:
            self._claims.pop(claim, None)

    def clear(self) -> None:
        """Withdraw everything."""
        self._claims.clear()

    def union(self) -> Mapping[tuple[str, int], WantedVersion]:
        """Return what is wanted, by model and number."""
        union: dict[tuple[str, int], WantedVersion] = {}
        refused: set[tuple[str, VersionId]] = set()
        for claim, versions in self._claims.items():
            for wanted in versions:
                first = union.setdefault(wanted.id[:2], wanted)
                if first.id != wanted.id:
                    refused.add((claim, wanted.id))
        self._tell(frozenset(refused))
        return union

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
