"""A min-heap whose members can be re-keyed and removed at once."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T", bound="Hashable")

_SLACK: Final = 64
"""Dead entries tolerated beyond the live ones before the heap is rebuilt."""


class KeyedHeap(Generic[T]):
    """Members ordered by a float key; equal keys come out in the order they were set.

    Removal forgets the member at once (nothing keeps it alive) and leaves a dead entry of two numbers, which
    is dropped when it surfaces. The heap is rebuilt once dead entries outnumber the live, so it holds at most
    twice its members plus a constant, whatever is set and discarded in between.
    """

    __slots__ = ("_entries", "_member_of", "_order", "_serial_of")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []
        self._serial_of: dict[T, int] = {}
        self._member_of: dict[int, T] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._serial_of)

    def set(self, member: T, key: float) -> None:
        """Add `member` with `key`, or give it a new key."""
        self.discard(member)
        self._order = serial = self._order + 1
        self._serial_of[member] = serial
        self._member_of[serial] = member
        heapq.heappush(self._entries, (key, serial))
        if len(self._entries) > 2 * len(self._serial_of) + _SLACK:
            self._rebuild()

    def discard(self, member: T) -> None:
        """Remove `member` if it is there."""
        serial = self._serial_of.pop(member, None)
        if serial is not None:
            del self._member_of[serial]

    def first(self) -> tuple[float, T] | None:
        """Return the smallest key with its member, which stays; None when empty."""
        entries = self._entries
        while entries:
            key, serial = entries[0]
            member = self._member_of.get(serial)
            if member is not None:
                return key, member
            heapq.heappop(entries)
        return None

    def first_key(self) -> float | None:
        """Return the smallest key, or None when empty."""
        first = self.first()
        return None if first is None else first[0]

    def pop_until(self, key: float) -> list[T]:
        """Remove and return the members whose key is at most `key`, smallest first."""
        taken: list[T] = []
        while (first := self.first()) is not None and first[0] <= key:
            self.discard(first[1])
            taken.append(first[1])
        return taken

    def _rebuild(self) -> None:
        live = self._member_of
        self._entries = [entry for entry in self._entries if entry[1] in live]
        heapq.heapify(self._entries)
