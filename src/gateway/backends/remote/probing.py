"""Asks one endpoint, time and again, whether it is ready and how long requests wait there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.backends.remote.timing import TimeLimit, wait_set
from gateway.core.errors import GatewayError
from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.backends.remote.connection import Connection, QueueReport
    from gateway.core.clock import Clock
    from gateway.core.remote import FleetOptions

T = TypeVar("T")

JITTER_SHARE: Final = 0.1
"""Pauses differ by up to this share either way, so that gateways do not ask all at once."""
SOONEST_SHARE: Final = 0.1
"""However often it is hinted at, an endpoint is not asked again before this share of the interval."""

_log = logging.getLogger(__name__)


class Prober:
    """Probes one endpoint until cancelled. The first question is asked at once.

    A connection that is half open never answers: the time limit is what finds it.

    Args:
        connection: the endpoint's.
        options: intervals and limits.
        clock: time.
        random: gives numbers in [0, 1), for jitter.
        probed: told of every answer: ready or not, and if not, why.
        reported: told of what the endpoint says about its queue.
    """

    def __init__(  # noqa: PLR0913 - one constructor call, in the fleet
        self,
        connection: Connection,
        options: FleetOptions,
        clock: Clock,
        random: Callable[[], float],
        *,
        probed: Callable[[bool, str], None],
        reported: Callable[[QueueReport], None],
    ) -> None:
        self._connection = connection
        self._options = options
        self._clock = clock
        self._random = random
        self._probed = probed
        self._reported = reported
        self._hint = asyncio.Event()
        self._connected = False

    def hint(self) -> None:
        """Ask soon: something failed there."""
        self._hint.set()

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            self._hint.clear()
            began_s = self._clock.now_s()
            reason = await self._ask()
            self._connected = self._connected or not reason
            self._probed(not reason, reason)
            if not reason and self._options.concurrency.adaptive:
                await self._report()
            await self._rest(began_s)

    async def _ask(self) -> str:
        """Return why the endpoint is not ready; empty: it is."""
        timeout_s = self._options.probe_timeout_s
        if not self._connected:
            timeout_s = max(timeout_s, self._options.connect_timeout_s)
        try:
            await self._limited(self._connection.ready(timeout_s), timeout_s)
        except TimeoutError:
            return f"no answer to a probe in {timeout_s:g} s"
        except GatewayError as error:
            return str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - logged; a probe that fails oddly is a probe that failed
            _log.exception("a probe failed")
            return f"probe failed: {type(error).__name__}"
        return ""

    async def _limited(self, question: Awaitable[T], timeout_s: float) -> T:
        with TimeLimit(self._clock, self._clock.now_s() + timeout_s) as limit:
            try:
                return await question
            except asyncio.CancelledError as error:
                if limit.ending():
                    raise
                # grpc.aio cancels what is under way on a channel that is closed.
                raise AttemptError("the connection was closed", Outcome.FAILED) from error

    async def _report(self) -> None:
        timeout_s = self._options.probe_timeout_s
        try:
            report = await self._limited(self._connection.queue_report(), timeout_s)
        except (GatewayError, TimeoutError) as error:
            _log.debug("no report of the queue: %s", error)
        except Exception:  # noqa: BLE001 - logged; limits stay as they are
            _log.exception("asking for the queue failed")
        else:
            if report is not None and report.count > 0:
                self._reported(report)

    async def _rest(self, began_s: float) -> None:
        interval_s = self._options.probe_interval_s
        now_s = self._clock.now_s()
        jittered_s = interval_s * (1 + JITTER_SHARE * (2 * self._random() - 1))
        if await wait_set(self._clock, self._hint, now_s + jittered_s):
            soonest_s = began_s + SOONEST_SHARE * interval_s
            await wait_set(self._clock, asyncio.Event(), soonest_s)
