"""The choice of what gives way, against a plain simulation and by its rules."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.types import CPU, Device
from gateway.models.lru import Resident, eviction

GPU = Device("cuda", 0)


def resident(model: str, used_s: float, *, busy: bool = False, cpu: int = 10, gpu: int = 0) -> Resident:
    return Resident(model=model, used_s=used_s, busy=busy, memory={CPU: cpu, GPU: gpu})


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    """Two of three cover 15 bytes; the newest stays."""
    found = eviction([resident("c", 3), resident("a", 1), resident("b", 2)], {CPU: 15})
    assert found == (("a", "b"), True, True)


def test_what_holds_nothing_where_it_is_short_stays() -> None:
    """The oldest is on the other device."""
    found = eviction([resident("a", 1), resident("b", 2, cpu=0, gpu=10)], {GPU: 1})
    assert found == (("b",), True, True)


def test_busy_models_are_passed_over_but_count_as_hope() -> None:
    """One that is idle goes at once although that is not enough; the busy one may follow later."""
    found = eviction([resident("a", 1, busy=True), resident("b", 2)], {CPU: 20})
    assert found == (("b",), False, True)


def test_nobody_goes_in_vain() -> None:
    """What could never be covered costs nobody its place."""
    assert eviction([resident("a", 1)], {CPU: 11}) == ((), False, False)
    assert eviction([], {CPU: 1}) == ((), False, False)


@given(
    trace=st.lists(st.integers(0, 9), max_size=60),
    sizes=st.lists(st.integers(1, 5), min_size=10, max_size=10),
)
def test_a_trace_evicts_as_a_textbook_cache_does(trace: list[int], sizes: list[int]) -> None:
    """Hits and contents equal an ordered dictionary's, whatever the sizes."""
    limit = 12
    cache: OrderedDict[int, int] = OrderedDict()
    used: dict[int, int] = {}
    for now, model in enumerate(trace):
        assert (model in used) == (model in cache)
        if model in cache:
            cache.move_to_end(model)
        else:
            while sum(cache.values()) + sizes[model] > limit:
                cache.popitem(last=False)
            cache[model] = sizes[model]
            short = sum(sizes[m] for m in used) + sizes[model] - limit
            loaded = [Resident(model=str(m), used_s=at, memory={CPU: sizes[m]}) for m, at in used.items()]
            for name in eviction(loaded, {CPU: short} if short > 0 else {}).models:
                del used[int(name)]
        used[model] = now
        assert used.keys() == cache.keys()
