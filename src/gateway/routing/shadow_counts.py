"""Counts what becomes of the copies of one shadow, so that not one is unaccounted for."""

from __future__ import annotations

import enum
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.core.evidence import ShadowCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    _Slices: TypeAlias = Mapping[str, Mapping[str, tuple[int, int]]]

MOST_VALUES: Final = 50
"""Values told apart in one slice; all further ones count as OTHER."""
MOST_VALUE_CHARS: Final = 64
OTHER: Final = "other"
MISSING: Final = ""
"""The value of a slice for a request that has neither such a header nor such a parameter."""


class Dropped(enum.Enum):
    """Why a copy was not run to its end although nothing was wrong with it."""

    INFLIGHT = "inflight"
    """As many copies, or as many bytes, as are allowed were under way."""
    HEADROOM = "headroom"
    """The device had no room to spare until the copy's deadline."""
    NOT_READY = "not_ready"
    """The version was not loaded, another content was, or it was unloaded meanwhile."""
    REFUSED = "refused"
    """The version's queue was full."""
    CANCELLED = "cancelled"
    """The client cancelled the request before it was answered."""
    SHUTDOWN = "shutdown"
    """The gateway was stopped."""


class ShadowCounter:
    """The totals of one shadow for one step. Event loop only.

    Invariant, whenever anybody looks: mirrored = compared + failed + sum(dropped) + under_way. Each copy
    begun is ended once, by one of `compared`, `failed` and `dropped`.

    Args:
        slices: names of the slices, in the order in which `compared` is given their values.
    """

    __slots__ = (
        "_compared",
        "_disagreed",
        "_dropped",
        "_failed",
        "_failed_alone",
        "_slices",
        "_under_way",
    )

    def __init__(self, slices: Sequence[str] = ()) -> None:
        self._under_way = 0
        self._compared = 0
        self._disagreed = 0
        self._failed = 0
        self._failed_alone = 0
        self._dropped: Counter[str] = Counter()
        self._slices: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in slices}

    @property
    def under_way(self) -> int:
        """Copies begun and not ended."""
        return self._under_way

    def begin(self) -> None:
        """Count a request that is mirrored."""
        self._under_way += 1

    def compared(self, values: Sequence[str], *, disagreed: bool) -> None:
        """End a copy whose answer was compared.

        Args:
            values: of the slices, in their order; empty where there are none.
            disagreed: the answers differ beyond the rules.
        """
        self._under_way -= 1
        self._compared += 1
        self._disagreed += disagreed
        for counts, value in zip(self._slices.values(), values, strict=True):
            known = value[:MOST_VALUE_CHARS]
            if known not in counts and len(counts) - (OTHER in counts) >= MOST_VALUES:
                known = OTHER
            pairs, differing = counts.get(known, (0, 0))
            counts[known] = (pairs + 1, differing + disagreed)

    def failed(self, *, alone: bool) -> None:
        """End a copy that failed; `alone`: its primary did not."""
        self._under_way -= 1
        self._failed += 1
        self._failed_alone += alone

    def dropped(self, reason: Dropped) -> None:
        """End a copy that was given up."""
        self._under_way -= 1
        self._dropped[reason.value] += 1

    def counts(self) -> ShadowCounts:
        """Return the totals as they are now."""
        ended = self._compared + self._failed + sum(self._dropped.values())
        return ShadowCounts(
            mirrored=ended + self._under_way,
            compared=self._compared,
            disagreed=self._disagreed,
            failed=self._failed,
            failed_alone=self._failed_alone,
            dropped=MappingProxyType(dict(self._dropped)),
            slices=_frozen(self._slices),
            under_way=self._under_way,
        )


def _frozen(slices: _Slices) -> _Slices:
    return MappingProxyType({name: MappingProxyType(dict(values)) for name, values in slices.items()})
