"""What the fetches of one cache share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.registry.cache.layout import Layout
    from gateway.registry.cache.options import CacheOptions
    from gateway.registry.cache.room import Room
    from gateway.registry.cache.workers import Workers


@dataclass(frozen=True, slots=True)
class Resources:
    """The directory, the settings, the threads and the disk's free space."""

    layout: Layout
    options: CacheOptions
    workers: Workers
    room: Room
