"""Which of several endpoints a request goes to: the less loaded of two, or always the same one."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.core.remote import Address

_GAIN: Final = 0.1
_FORGIVEN_AFTER_S: Final = 10.0
MIN_GOOD: Final = 0.05
"""However bad its answers, an endpoint in use keeps this share: only answers tell that it is well again."""


class Loaded(Protocol):
    """What is compared."""

    inflight: int

    def weight(self, now_s: float) -> float:
        """Return the share, in (0, 1], of the usual load that it should have."""


LoadedT = TypeVar("LoadedT", bound=Loaded)


def choice_of_two(candidates: Sequence[LoadedT], now_s: float, random: Callable[[], float]) -> LoadedT | None:
    """Return the less loaded of two candidates taken at random; None without candidates.

    Load is `(inflight + 1) / weight`. Two that are idle are chosen between by their weights, so that one
    with little weight still gets its share when there is little to do. Two choices spread load almost as
    well as the least of all does (Mitzenmacher, "The power of two choices", 2001), and unlike it do not
    make several gateways rush to the same endpoint.
    """
    count = len(candidates)
    if count < 2:
        return candidates[0] if count else None
    first = int(random() * count)
    second = int(random() * (count - 1))
    return less_loaded(candidates[first], candidates[second + (second >= first)], now_s, random)


def less_loaded(one: LoadedT, other: LoadedT, now_s: float, random: Callable[[], float]) -> LoadedT:
    """Return the less loaded of two; the first when they are alike."""
    weight, other_weight = one.weight(now_s), other.weight(now_s)
    if one.inflight == other.inflight == 0:
        return one if random() * (weight + other_weight) < weight else other
    return one if (one.inflight + 1) * other_weight <= (other.inflight + 1) * weight else other


def by_affinity(affinity: str, addresses: Iterable[Address]) -> list[Address]:
    """Return addresses in the order in which requests of an affinity prefer them.

    Rendezvous hashing (Thaler, Ravishankar 1998): every gateway finds the same order, and an endpoint that
    goes moves the requests that preferred it and no others.
    """
    key = affinity.encode("utf-8", "surrogatepass")

    def rank(address: Address) -> bytes:
        return hashlib.blake2b(str(address).encode() + b"\0" + key, digest_size=8).digest()

    return sorted(addresses, key=rank)


class GoodShare:
    """The share of good answers lately; bad ones are forgiven with time.

    Without it the least loaded endpoint is the one that fails fastest. A bad answer counts a tenth;
    what is left of it after 10 s without answers is a third.
    """

    __slots__ = ("_at_s", "_share")

    def __init__(self) -> None:
        self._share = 1.0
        self._at_s = 0.0

    def note(self, good: bool, now_s: float) -> None:
        """Take note of an answer."""
        share = self.share(now_s)
        self._share = share + _GAIN * (good - share)
        self._at_s = now_s

    def forgive(self, share: float, now_s: float) -> None:
        """Think at least so well of it."""
        self._share = max(share, self.share(now_s))
        self._at_s = now_s

    def share(self, now_s: float) -> float:
        """Return the share, in [0, 1]."""
        if self._share > 0.999:
            return self._share
        return 1.0 - (1.0 - self._share) * math.exp(min(0.0, self._at_s - now_s) / _FORGIVEN_AFTER_S)
