"""Take locks that others may hold without holding up the event loop or a thread meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.registry.cache.locks import FileLock
    from gateway.registry.cache.resources import Resources

_FIRST_PAUSE_S: Final = 0.005


async def _nothing() -> None:
    pass


async def take(
    lock: FileLock, resources: Resources, *, shared: bool, meanwhile: Callable[[], Awaitable[None]] = _nothing
) -> None:
    """Wait until `lock` is held; cancelling leaves it to its owner to close.

    Args:
        lock: taken in a thread; looked at again and again, for the kernel tells nobody when it becomes free.
        resources: of the cache.
        shared: beside others who share it; else alone.
        meanwhile: awaited before each pause.
    """
    pause_s = _FIRST_PAUSE_S
    while not await resources.workers.run(lock.try_shared if shared else lock.try_exclusive):
        await meanwhile()
        await resources.options.pause(min(pause_s, resources.options.lock_poll_s))
        pause_s *= 2
