"""Which versions of a fleet's models are offered, as endpoints get and lose them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_NOTHING: Final[Mapping[int, int]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the endpoints of a fleet have READY.

    Attributes:
        endpoints: how many there are.
        answered: how many of them are known to be up, and said what they have.
        models: model -> number -> how many of them have that version READY.
    """

    endpoints: int = 0
    answered: int = 0
    models: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered of one model.

    Attributes:
        numbers: its versions, ascending.
        problem: what is amiss, `resolve: ...`; empty when nothing is.
        due_s: when the offer changes though the listing does not; None: never.
    """

    numbers: tuple[int, ...] = ()
    problem: str = ""
    due_s: float | None = None


class Standing:
    """One model of a fleet over time.

    A version is offered once enough endpoints have it READY, and from then on as long as one has it: how
    many are enough says when it may begin, not when it ends. One that no endpoint has any more is offered
    for `grace_s` longer; while no endpoint answers at all, nothing is known and everything stays.

    Args:
        fleet: its name, for messages.
        model: the model's name there.
        enough: how many of so many endpoints must have a version for it to begin.
        grace_s: see above.
    """

    def __init__(self, fleet: str, model: str, enough: Callable[[int], int], grace_s: float) -> None:
        self._fleet = fleet
        self._model = model
        self._enough = enough
        self._grace_s = grace_s
        self._seen_s: dict[int, float] = {}

    def look(self, listing: Listing, now_s: float) -> Offer:
        """Take a listing in; return what is offered."""
        if not listing.answered:
            return Offer(
                tuple(sorted(self._seen_s)), f"resolve: no endpoint of fleet '{self._fleet}' answers"
            )
        there = listing.models.get(self._model, _NOTHING)
        needed = self._enough(listing.endpoints)
        for number, count in there.items():
            if count >= needed or (count and number in self._seen_s):
                self._seen_s[number] = now_s
        ends = {n: seen_s + self._grace_s for n, seen_s in self._seen_s.items() if not there.get(n)}
        for number in [n for n, end_s in ends.items() if end_s <= now_s]:
            del self._seen_s[number], ends[number]
        few = {n: count for n, count in there.items() if count and n not in self._seen_s}
        problem = self._problem(sorted(ends), few, listing, needed)
        return Offer(tuple(sorted(self._seen_s)), problem, min(ends.values(), default=None))

    def _problem(self, gone: Sequence[int], few: Mapping[int, int], listing: Listing, needed: int) -> str:
        if gone:
            return f"resolve: no endpoint of fleet '{self._fleet}' has version {_listed(gone)} any more"
        if few:
            number = max(few)
            return (
                f"resolve: {few[number]} of {listing.endpoints} endpoints of fleet '{self._fleet}' have "
                f"version {number} ready, {needed} are needed"
            )
        if not self._seen_s:
            return f"resolve: no endpoint of fleet '{self._fleet}' has model '{self._model}' ready"
        return ""


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
