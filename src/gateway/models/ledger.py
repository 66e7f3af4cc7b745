"""What is held on each device, by whom, and what is missing for another load. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.core.types import Device, VersionId
    from gateway.models.costs import Cost


class Holder(NamedTuple):
    """A version that holds memory on a device."""

    version: VersionId
    nbytes: int


@dataclass(slots=True)
class _Entry:
    memory: Cost
    leaving: bool = False


class Ledger:
    """The bytes held and reserved on each device, and its limit.

    A version may be entered twice, for one that is being unloaded can be loaded again meanwhile.

    Args:
        limits: bytes by `cpu`, `cuda:1`, or `cuda` for each device of the kind; a device not named has none.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = dict(limits)
        self._entries: dict[VersionId, list[_Entry]] = {}

    def limit(self, device: Device) -> int | None:
        """Return the most bytes that a device may hold; None: any number."""
        return self._limits.get(str(device), self._limits.get(device.kind))

    def held(self) -> Mapping[Device, int]:
        """Return the bytes held and reserved, by device."""
        totals: Counter[Device] = Counter()
        for entry in self._each():
            totals.update(entry.memory)
        return totals

    def missing(self, cost: Cost, *, leaving: bool = True) -> Cost:
        """Return what is missing, by device, for `cost` to be held as well; empty when there is room.

        Args:
            cost: bytes by device.
            leaving: count what is being unloaded as held still.
        """
        held: Counter[Device] = Counter()
        for entry in self._each():
            if leaving or not entry.leaving:
                held.update(entry.memory)
        missing: dict[Device, int] = {}
        for device in held.keys() | cost.keys():
            limit = self.limit(device)
            if limit is not None and (over := held[device] + cost.get(device, 0) - limit) > 0:
                missing[device] = over
        return missing

    def holders(self, device: Device) -> Sequence[Holder]:
        """Return who holds memory on a device, the greatest first."""
        found = [
            Holder(version, entry.memory[device])
            for version, entries in self._entries.items()
            for entry in entries
            if entry.memory.get(device)
        ]
        return sorted(found, key=lambda holder: (-holder.nbytes, holder.version))

    def has(self, version: VersionId) -> bool:
        """Whether a version holds something."""
        return version in self._entries

    def enter(self, version: VersionId, memory: Cost) -> None:
        """Reserve what a version is going to hold."""
        self._entries.setdefault(version, []).append(_Entry(memory))

    def settle(self, version: VersionId, memory: Cost) -> None:
        """Put what a version really holds in the place of what was reserved."""
        for entry in self._entries.get(version, [])[-1:]:
            entry.memory = memory

    def leave(self, version: VersionId) -> None:
        """Note that a version is being unloaded."""
        for entry in self._entries.get(version, []):
            if not entry.leaving:
                entry.leaving = True
                return

    def drop(self, version: VersionId) -> None:
        """Forget a version, the one being unloaded first; harmless when it holds nothing."""
        entries = self._entries.get(version)
        if entries is None:
            return
        entries.remove(next((e for e in entries if e.leaving), entries[0]))
        if not entries:
            del self._entries[version]

    def _each(self) -> Iterator[_Entry]:
        for entries in self._entries.values():
            yield from entries
