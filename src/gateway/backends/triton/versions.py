"""Which endpoint of a fleet has which model versions ready, as the probes and the requests found it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from gateway.core.remote import Address

_NONE: Final[frozenset[Address]] = frozenset()


class Loaded(NamedTuple):
    """One version on Triton: its model's name there, and its number."""

    model: str
    version: int


class Versions:
    """The versions that each endpoint of one fleet has ready; kept by the connections, read by the models.

    What an endpoint said last is in force until it says something else, or is forgotten: whether it is up is
    not asked here. Everything is synchronous and belongs to one event loop's thread.
    """

    def __init__(self) -> None:
        self._of: dict[Address, frozenset[Loaded]] = {}
        self._having: dict[Loaded, frozenset[Address]] = {}
        self._changed = asyncio.Event()
        self._watched: dict[Loaded, int] = {}

    def note(self, address: Address, ready: Collection[Loaded]) -> None:
        """Take note of all that an endpoint has ready."""
        now = frozenset(ready)
        before = self._of.get(address)
        if now == before:
            return
        self._of[address] = now
        for loaded in now.symmetric_difference(before or ()):
            others = self._having.get(loaded, _NONE) - {address}
            self._set(loaded, others | {address} if loaded in now else others)
        self._tell()

    def lose(self, address: Address, loaded: Loaded) -> None:
        """Take note that a request found a version missing; the next probe may find it again."""
        if loaded in self._of.get(address, ()):
            self._of[address] -= {loaded}
            self._set(loaded, self._having[loaded] - {address})
            self._tell()

    def forget(self, address: Address) -> None:
        """Take note that an endpoint is gone."""
        self.note(address, ())
        self._of.pop(address, None)

    def having(self, loaded: Loaded) -> frozenset[Address]:
        """Return the endpoints that have a version ready; the same object until that changes."""
        return self._having.get(loaded, _NONE)

    def of(self, address: Address) -> tuple[Loaded, ...]:
        """Return what an endpoint has ready, in order."""
        return tuple(sorted(self._of.get(address, ())))

    def numbers(self, model: str) -> dict[int, int]:
        """Return version -> how many endpoints have it ready, of one model, ascending."""
        found = {key.version: len(having) for key, having in self._having.items() if key.model == model}
        return dict(sorted(found.items()))

    def models(self) -> tuple[str, ...]:
        """Return the names of every model that some endpoint has a version of ready."""
        return tuple(sorted({loaded.model for loaded in self._having}))

    def asked(self) -> int:
        """Return how many endpoints have said what they have."""
        return len(self._of)

    def watch(self, loaded: Loaded) -> None:
        """Have a version asked for by name at endpoints that do not list what they have."""
        self._watched[loaded] = self._watched.get(loaded, 0) + 1

    def unwatch(self, loaded: Loaded) -> None:
        """Take one `watch` back."""
        self._watched[loaded] -= 1
        if not self._watched[loaded]:
            del self._watched[loaded]

    def watched(self) -> tuple[Loaded, ...]:
        """Return the versions watched."""
        return tuple(self._watched)

    async def changes(self) -> AsyncIterator[None]:
        """Give None at once, and whenever something has changed since; changes in between are one."""
        while True:
            changed = self._changed
            yield
            await changed.wait()

    def _set(self, loaded: Loaded, having: frozenset[Address]) -> None:
        if having:
            self._having[loaded] = having
        else:
            self._having.pop(loaded, None)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
