"""Version policy as pure functions: what is served, what may go, and whose clients a new version gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gateway.core.options import VersionPolicy


def served_numbers(policy: VersionPolicy, available: Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of `available` that `policy` serves, ascending. Pure and idempotent.

    `all` goes before `specific`, which goes before `latest`; a specific number that is not available is
    left out, so that it is served as soon as it appears.
    """
    numbers = sorted(set(available))
    if policy.all:
        return tuple(numbers)
    if policy.specific:
        return tuple(n for n in numbers if n in policy.specific)
    return tuple(numbers[-max(1, policy.latest) :])


def may_retire(number: int, *, wanted: Collection[int], ready: Collection[int]) -> bool:
    """Whether a READY version that nobody claims any more may be withdrawn. Preserves availability.

    Args:
        number: the version's number.
        wanted: numbers of its model that are claimed now; `number` among them means with other content.
        ready: the numbers of `wanted` whose claimed content is READY.

    A version replaced under its own number goes when the replacement is READY; any other goes when the
    model is not wanted at all or some wanted version is READY. So a failed load leaves the old one serving.
    """
    if number in wanted:
        return number in ready
    return not wanted or bool(ready)


class ReadyVersion(NamedTuple):
    """A READY version of a model.

    Attributes:
        number: its number.
        since: when it became READY, on any count of events.
        withdrawn: nobody wants it any more.
    """

    number: int
    since: int
    withdrawn: bool


def clients_taken_over(number: int, wanted_since: int, ready: Sequence[ReadyVersion]) -> list[ReadyVersion]:
    """Return those of `ready` whose clients a version that is coming will answer.

    They are the one of its number, and the highest, which clients without an explicit version get, if the
    coming one takes its place. What became READY only after the coming one was wanted has no clients to speak
    of: versions that are wanted together, as at start, do not stand in each other's way, whichever is first.

    Args:
        number: the coming version's number.
        wanted_since: when it was first wanted, on the same count.
        ready: the READY versions of its model; of a number only one.
    """
    before = [version for version in ready if version.since < wanted_since]
    highest = max((v.number for v in before), default=0)
    stays = any(v.number > number and not v.withdrawn for v in before)
    return [v for v in before if v.number == number or (v.number == highest and not stays)]
