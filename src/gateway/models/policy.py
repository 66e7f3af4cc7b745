"""Version policy as pure functions: which numbers are served, and which old version may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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
