"""Differences between running totals, and their sums over replicas."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.core.evidence import ArmCounts, ShadowCounts
from gateway.core.rollout import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.core.evidence import Evidence

    Combine = Callable[[int, int], int]

_ARM: Final = tuple(f.name for f in fields(ArmCounts) if f.name != "exceeded")
_SHADOW: Final = tuple(f.name for f in fields(ShadowCounts) if f.name not in {"dropped", "slices"})
_Counts = TypeVar("_Counts")


def _no_arms() -> Mapping[str, ArmCounts]:
    return MappingProxyType({})


def _no_shadows() -> Mapping[str, ShadowCounts]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Delta:
    """What was counted between two looks.

    Attributes:
        arms: by arm; an arm that is not there counted nothing.
        shadows: by shadow, likewise; `under_way` is meaningless in a difference.
    """

    arms: Mapping[str, ArmCounts] = field(default_factory=_no_arms)
    shadows: Mapping[str, ShadowCounts] = field(default_factory=_no_shadows)

    def arm(self, name: str) -> ArmCounts:
        """Return an arm's counts, zeros when it counted nothing."""
        return self.arms.get(name, _NO_COUNTS)

    def shadow(self, name: str) -> ShadowCounts:
        """Return a shadow's counts, zeros when it counted nothing."""
        return self.shadows.get(name, _NO_PAIRS)


_NO_COUNTS: Final = ArmCounts()
_NO_PAIRS: Final = ShadowCounts()
CRASH: Final = Delta(arms={CANARY: ArmCounts(crashes=1)})
"""One crash of the canary that its replica could not count any more."""


def delta(old: Evidence | None, new: Evidence) -> Delta:
    """Return what a replica counted from one report to a later one of the same boot.

    Totals never shrink within a boot; where they seem to, nothing was counted.

    Args:
        old: its report before; None when there is none of this boot, rollout and step.
        new: its report.
    """
    arms = old.arms if old else {}
    shadows = old.shadows if old else {}
    return Delta(
        {name: _arms(counts, arms.get(name, _NO_COUNTS), _since) for name, counts in new.arms.items()},
        {
            name: _shadows(counts, shadows.get(name, _NO_PAIRS), _since)
            for name, counts in new.shadows.items()
        },
    )


def merge(*deltas: Delta) -> Delta:
    """Return the sum; the order does not matter."""
    return Delta(
        _sum((d.arms for d in deltas), lambda a, b: _arms(a, b, int.__add__)),
        _sum((d.shadows for d in deltas), lambda a, b: _shadows(a, b, int.__add__)),
    )


def _since(new: int, old: int) -> int:
    return max(new - old, 0)


def _sum(
    parts: Iterable[Mapping[str, _Counts]], add: Callable[[_Counts, _Counts], _Counts]
) -> dict[str, _Counts]:
    total: dict[str, _Counts] = {}
    for part in parts:
        for name, counts in part.items():
            total[name] = add(total[name], counts) if name in total else counts
    return total


def _arms(a: ArmCounts, b: ArmCounts, combine: Combine) -> ArmCounts:
    plain = {name: combine(getattr(a, name), getattr(b, name)) for name in _ARM}
    exceeded = tuple(combine(x, y) for x, y in zip_longest(a.exceeded, b.exceeded, fillvalue=0))
    return ArmCounts(exceeded=exceeded, **plain)


def _shadows(a: ShadowCounts, b: ShadowCounts, combine: Combine) -> ShadowCounts:
    plain = {name: combine(getattr(a, name), getattr(b, name)) for name in _SHADOW}
    dropped = {k: combine(a.dropped.get(k, 0), b.dropped.get(k, 0)) for k in {*a.dropped, *b.dropped}}
    slices = {
        name: _slice(a.slices.get(name, {}), b.slices.get(name, {}), combine)
        for name in sorted({*a.slices, *b.slices})
    }
    return ShadowCounts(dropped=dropped, slices=slices, **plain)


def _slice(
    a: Mapping[str, tuple[int, int]], b: Mapping[str, tuple[int, int]], combine: Combine
) -> dict[str, tuple[int, int]]:
    none = (0, 0)
    pairs = ((value, a.get(value, none), b.get(value, none)) for value in sorted({*a, *b}))
    return {value: (combine(x[0], y[0]), combine(x[1], y[1])) for value, x, y in pairs}
