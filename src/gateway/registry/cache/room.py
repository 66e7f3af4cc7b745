"""Whether the disk has room for what is to be fetched."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.registry.cache.faults import free_bytes
from gateway.registry.cache.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(slots=True)
class Promise:
    """Bytes that one fetch will still write."""

    left: int


class Room:
    """Free space of one disk, shared by the fetches of one event loop."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._promises: list[Promise] = []

    def free_bytes(self) -> int:
        """Return what may still be written. Blocking."""
        return free_bytes(self._directory)

    @contextmanager
    def promised(self, title: str, needed: int, free: int) -> Iterator[Promise]:
        """Set `needed` of `free` bytes aside; who writes counts the promise down.

        Raises:
            RegistryError: step `fetch`, may pass; that would leave less than the reserve.
        """
        others = sum(promise.left for promise in self._promises)
        if needed and free - others - self._reserve_bytes < needed:
            raise RegistryError("fetch", self._refusal(title, needed, free, others), may_pass=True)
        promise = Promise(needed)
        self._promises.append(promise)
        try:
            yield promise
        finally:
            self._promises = [other for other in self._promises if other is not promise]

    def _refusal(self, title: str, needed: int, free: int, others: int) -> str:
        also = f", {in_words(others)} are for other fetches" if others else ""
        return (
            f"{title} needs {in_words(needed)} more on the disk of the artifact cache, which has "
            f"{in_words(free)} free, of which {in_words(self._reserve_bytes)} stay in reserve{also}; free "
            "some, or lower the cache's free_disk_reserve, max_bytes or max_age_s"
        )
