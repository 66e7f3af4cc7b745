"""The keyed heap."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.batching.heap import KeyedHeap

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "discard", "pop"]), st.integers(0, 5), st.integers(0, 9))
)


@given(OPERATIONS)
def test_it_agrees_with_a_sorted_dictionary(operations: list[tuple[str, int, int]]) -> None:
    """Whatever is set, re-keyed, discarded and popped, the first member is the one with the smallest key."""
    heap: KeyedHeap[int] = KeyedHeap()
    model: dict[int, int] = {}
    for operation, member, key in operations:
        if operation == "set":
            heap.set(member, key)
            model[member] = key
        elif operation == "discard":
            heap.discard(member)
            model.pop(member, None)
        else:
            taken = heap.pop_until(key)
            assert sorted(taken) == sorted(m for m, k in model.items() if k <= key)
            keys = [model.pop(m) for m in taken]
            assert keys == sorted(keys)
        assert heap.first_key() == min(model.values(), default=None)
        assert len(heap) == len(model)


def test_members_come_out_smallest_first() -> None:
    """Popping gives members in the order of their keys, equal keys in the order they were set."""
    heap: KeyedHeap[str] = KeyedHeap()
    for member, key in [("c", 3.0), ("a", 1.0), ("b", 3.0), ("d", 2.0)]:
        heap.set(member, key)
    assert heap.pop_until(3.0) == ["a", "d", "c", "b"]


def test_it_stays_small_whatever_is_set_and_discarded() -> None:
    """Entries of discarded members do not pile up."""
    heap: KeyedHeap[int] = KeyedHeap()
    heap.set(-1, 0.0)
    for member in range(10_000):
        heap.set(member, float(member + 1))
        heap.discard(member)
    assert len(heap._entries) < 100
    assert heap.first() == (0.0, -1)
