"""Which artifacts garbage collection removes: by age, by count per model, by bytes. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.registry.cache.options import CacheOptions


@dataclass(frozen=True, slots=True)
class Stored:
    """One artifact in the cache.

    Attributes:
        digest: of its content.
        size: bytes of its files.
        used_s: when it was of use last, in seconds since the epoch.
        models: what it was fetched for, a registry's identity and a model's name there; none once nothing
            leads to it any more.
        pinned: somebody uses it now.
    """

    digest: str
    size: int
    used_s: float
    models: frozenset[tuple[str, str]] = frozenset()
    pinned: bool = False


def to_remove(
    stored: Sequence[Stored], keep: Collection[str], options: CacheOptions, now_s: float
) -> Mapping[str, str]:
    """Return digest -> why, of what is to go; what was used longest ago comes first.

    Pinned, wanted and young artifacts stay, and count for the limits none the less. One that several models
    use goes by count when it is beyond the count of each. One that nothing leads to goes.
    """
    by_use = sorted(stored, key=lambda one: (one.used_s, one.digest))
    free = [
        one
        for one in by_use
        if not one.pinned and one.digest not in keep and now_s - one.used_s > options.grace_s
    ]
    beyond = _beyond_count(by_use, options.keep_versions)
    reasons: dict[str, str] = {}
    for one in free:
        if reason := _reason(one, beyond, options, now_s):
            reasons[one.digest] = reason
    left = sum(one.size for one in stored if one.digest not in reasons)
    for one in free:
        if options.max_bytes is not None and left > options.max_bytes and one.digest not in reasons:
            reasons[one.digest] = "bytes"
            left -= one.size
    return reasons


def _reason(one: Stored, beyond: Collection[str], options: CacheOptions, now_s: float) -> str:
    if not one.models:
        return "unknown"
    if options.max_age_s is not None and now_s - one.used_s > options.max_age_s:
        return "age"
    return "count" if one.digest in beyond else ""


def _beyond_count(by_use: Sequence[Stored], count: int | None) -> frozenset[str]:
    """Return the digests that in none of their models are among the `count` used last."""
    if count is None:
        return frozenset()
    models: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in reversed(by_use):
        for model in one.models:
            models[model].append(one.digest)
    within = {digest for digests in models.values() for digest in digests[:count]}
    return frozenset(one.digest for one in by_use) - within
