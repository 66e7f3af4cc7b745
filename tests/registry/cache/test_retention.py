"""Which artifacts go: pure decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.cache.options import CacheOptions
from gateway.registry.cache.retention import Stored, to_remove

NOW_S = 1_000_000.0


def stored(digest: str, age_s: float, *, size: int = 10, models: str = "m", pinned: bool = False) -> Stored:
    return Stored(digest, size, NOW_S - age_s, frozenset(("r", model) for model in models), pinned)


def test_age() -> None:
    """What was not used for longer than the limit goes, and what is in use or wanted stays."""
    options = CacheOptions(max_age_s=100, grace_s=0)
    several = [stored("old", 101), stored("new", 99), stored("kept", 200), stored("used", 200, pinned=True)]
    assert to_remove(several, {"kept"}, options, NOW_S) == {"old": "age"}


def test_count_per_model() -> None:
    """Of each model the last ones used stay; one of two models stays while either wants it."""
    options = CacheOptions(keep_versions=2, grace_s=0)
    several = [
        stored("a", 1),
        stored("b", 2),
        stored("c", 3),
        stored("d", 4, models="mn"),
        stored("e", 5, models="mn"),
        stored("f", 6, models="mn"),
    ]
    assert to_remove(several, set(), options, NOW_S) == {"f": "count", "c": "count"}


def test_bytes() -> None:
    """What was used longest ago goes first, until the rest is within the limit; what stays anyway counts."""
    options = CacheOptions(max_bytes=25, grace_s=50)
    several = [
        stored("a", 400),
        stored("b", 300, pinned=True),
        stored("c", 200),
        stored("d", 100),
        stored("e", 1),
    ]
    assert list(to_remove(several, set(), options, NOW_S).items()) == [
        ("a", "bytes"),
        ("c", "bytes"),
        ("d", "bytes"),
    ]
    assert to_remove(several, set(), CacheOptions(max_bytes=50, grace_s=50), NOW_S) == {}


def test_what_nothing_leads_to_goes_and_the_young_stays() -> None:
    """An artifact without an index entry goes, but not while it is young."""
    several = [stored("a", 100, models=""), stored("b", 1, models="")]
    assert to_remove(several, set(), CacheOptions(grace_s=50), NOW_S) == {"a": "unknown"}


DIGESTS = st.sampled_from("abcdefgh")


@given(
    st.lists(
        st.builds(
            stored,
            DIGESTS,
            st.floats(0, 1000),
            size=st.integers(0, 100),
            models=st.text("mno", max_size=3),
            pinned=st.booleans(),
        ),
        unique_by=lambda one: one.digest,
    ),
    st.sets(DIGESTS),
    st.builds(
        CacheOptions,
        max_bytes=st.none() | st.integers(0, 500),
        max_age_s=st.none() | st.floats(0, 1000),
        keep_versions=st.none() | st.integers(0, 4),
        grace_s=st.floats(0, 500),
    ),
)
def test_what_must_stay_stays_and_limits_hold(
    several: list[Stored], keep: set[str], options: CacheOptions
) -> None:
    """Nothing pinned, wanted or young goes, and what is left of the rest breaks no limit."""
    removed = to_remove(several, keep, options, NOW_S)
    left = [one for one in several if one.digest not in removed]
    free = [
        one
        for one in left
        if not one.pinned and one.digest not in keep and NOW_S - one.used_s > options.grace_s
    ]
    assert len(several) - len(left) == len(removed)
    for one in several:
        if one.pinned or one.digest in keep or NOW_S - one.used_s <= options.grace_s:
            assert one.digest not in removed
    if options.max_bytes is not None and free:
        assert sum(one.size for one in left) <= options.max_bytes
    assert all(one.models for one in free)
    if options.max_age_s is not None:
        assert all(NOW_S - one.used_s <= options.max_age_s for one in free)
    if (options.max_bytes, options.max_age_s, options.keep_versions) == (None, None, None):
        assert set(removed.values()) <= {"unknown"}
