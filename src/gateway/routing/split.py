"""Which buckets belong to which arm: exact to a part per million, and still while weights change.

Arms but the first own fixed places, so that no boundary is ever derived from another arm's weight. Sorted by
name, arm j of k has the section [j * PPM / k, (j + 1) * PPM / k) and grows in it from its lower end upwards.
What does not fit spills over into the free tails of the sections that follow its own, in a circle, from their
ends downwards; arms spill in the order of their names, after all of them have what fits. The first arm gets
the rest, and so the holdout: the buckets from PPM - holdout on, which no other gets while the first has any.

What is promised where one arm's weight is raised and the first pays for it:

- Nobody leaves that arm.
- If no other arm spills, before or after, nobody leaves any other arm but the first. One canary never
  spills, and k arms of at most 1/k each (less the holdout) never do.
- Which of several arms a spilled key belongs to may change when an arm grows into the place where it was.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from gateway.core.rollout import PPM

if TYPE_CHECKING:
    from collections.abc import Sequence


class Split:
    """The owner of every bucket; immutable.

    Attributes:
        starts: the first bucket of each piece, ascending from 0.
        owners: to whom each piece belongs: the arm's place in the list that the split was made of.
    """

    __slots__ = ("owners", "starts")

    def __init__(self, starts: Sequence[int], owners: Sequence[int]) -> None:
        self.starts = tuple(starts)
        self.owners = tuple(owners)

    def arm(self, bucket: int) -> int:
        """Return the place in the list of the arm that owns a bucket of 0 to PPM - 1."""
        return self.owners[bisect_right(self.starts, bucket) - 1]


def split(names: Sequence[str], weights: Sequence[int], holdout_ppm: int = 0) -> Split:
    """Give every bucket to an arm. The order of all but the first arm makes no difference.

    Args:
        names: of the arms; the first is the one that others take from.
        weights: parts per million, in the same order; together PPM.
        holdout_ppm: buckets from the end that only the first arm gets; of no effect once it has weight 0.

    Raises:
        ValueError: a name comes twice, weights are negative or not PPM together, or there is no room for
            them beside the holdout.
    """
    _check(names, weights, holdout_ppm)
    usable = PPM - holdout_ppm if weights[0] else PPM
    others = sorted(range(1, len(names)), key=names.__getitem__)
    places = _place([weights[arm] for arm in others], usable)
    pieces = sorted((start, end, others[index]) for start, end, index in places)
    starts, owners, reached = list[int](), list[int](), 0
    for start, end, arm in pieces:
        if start > reached:
            starts.append(reached)
            owners.append(0)
        starts.append(start)
        owners.append(arm)
        reached = end
    if reached < PPM:
        starts.append(reached)
        owners.append(0)
    return Split(starts, owners)


def _place(weights: Sequence[int], usable: int) -> list[tuple[int, int, int]]:
    """Return the pieces [start, end) of each weight, by its index; none of them empty, none overlapping."""
    count = len(weights)
    starts = [min(index * PPM // count, usable) for index in range(count)]
    ends = [min((index + 1) * PPM // count, usable) for index in range(count)]
    pieces, left = list[tuple[int, int, int]](), list[int]()
    for index, weight in enumerate(weights):
        own = min(weight, ends[index] - starts[index])
        if own:
            pieces.append((starts[index], starts[index] + own, index))
        starts[index] += own
        left.append(weight - own)
    for index in range(count):
        for step in range(1, count):
            other = (index + step) % count
            taken = min(left[index], ends[other] - starts[other])
            if taken:
                pieces.append((ends[other] - taken, ends[other], index))
                ends[other] -= taken
                left[index] -= taken
    return pieces


def _check(names: Sequence[str], weights: Sequence[int], holdout_ppm: int) -> None:
    if not names or len(set(names)) != len(names) or len(names) != len(weights):
        raise ValueError(f"a split needs arms of different names with a weight each, got {list(names)}")
    if min(weights) < 0 or sum(weights) != PPM:
        raise ValueError(f"the weights of a split must be 0 or more and {PPM} together, got {list(weights)}")
    if not 0 <= holdout_ppm <= PPM or (weights[0] and weights[0] < holdout_ppm):
        raise ValueError(
            f"a holdout of {holdout_ppm} ppm leaves no room beside it: '{names[0]}' has {weights[0]} ppm"
        )
