"""Waiting by the gateway's own clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.clock import Clock


async def pause(clock: Clock, seconds: float) -> None:
    """Return so many seconds later."""
    over = asyncio.Event()
    timer = clock.call_at(clock.now_s() + seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
