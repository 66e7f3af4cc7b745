"""A whole monitor with real data, by a clock of the test's own, and the gateway that it listens to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np

from gateway.config.monitor import MonitorConfig
from gateway.monitor.app import Monitor
from tests.monitor import car_loans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.monitor.engine import Receipt

START_S: Final = 1_790_000_040.0
"""Begin of a minute."""
ROWS: Final = 400
"""Of each minute."""


@dataclass(slots=True)
class Clock:
    """A wall clock."""

    now_s: float = START_S

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass(slots=True)
class Watched:
    """A running monitor and the gateway that it listens to."""

    monitor: Monitor
    clock: Clock
    api: httpx.AsyncClient
    log: car_loans.Log = field(default_factory=lambda: car_loans.Log(epoch=int(START_S * 1e9)))
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    async def minute(self, first: int, last: int, **given: Any) -> np.ndarray[Any, Any]:
        """Serve one minute of rows drawn from the data's [first, last), and let it close; return which."""
        rows = self.generator.integers(first, last, ROWS)
        await self.serve(rows, **given)
        await self.close_minute()
        return rows

    async def serve(self, rows: np.ndarray[Any, Any], **given: Any) -> None:
        """Hand rows over, in the middle of the minute."""
        self.clock.now_s = self.clock.now_s // 60 * 60 + 30
        frame = self.log.frame(car_loans.batch(rows, self.clock.now_s, **given))
        done = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def told(receipt: Receipt) -> None:
            loop.call_soon_threadsafe(done.set_result, receipt)

        assert self.monitor.engine.offer(frame.data, told)
        assert not (await done).refused

    async def close_minute(self) -> None:
        """Let a minute pass and be looked at."""
        self.clock.now_s = self.clock.now_s // 60 * 60 + 60
        await self.monitor.engine.call(lambda: None)
        await self.monitor.engine.call(lambda: None)

    async def get(self, path: str) -> Any:
        """Return the API's answer."""
        answer = await self.api.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()


@asynccontextmanager
async def watched(directory: Path, **settings: Any) -> AsyncIterator[Watched]:
    """Run a monitor of windows of one minute, with the profile that `make models` made."""
    config = MonitorConfig.model_validate(
        {
            "data": str(directory / "monitor"),
            "pages": {"port": 0},
            "engine": {"settle": "0s"},
            "profiles": {"directories": [str(car_loans.ROOT / "models")]},
            "detection": {"windows": {"1m": 60, "5m": 300}, "settle": "0s"},
            "performance": {"window": "5m", "settle": "0s"},
            "log": {"level": "error"},
            **settings,
        }
    )
    clock = Clock()
    async with Monitor(config, clock) as monitor, httpx.AsyncClient(base_url=monitor.pages_url) as api:
        yield Watched(monitor, clock, api)
