"""A fleet of endpoints that serve the same models: finds them, probes them, and sends requests to them."""

from __future__ import annotations

import asyncio
import logging
import random as randomness
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from gateway.backends.remote.calling import Caller
from gateway.backends.remote.discovery import address_source
from gateway.backends.remote.members import ConnectionT, Members
from gateway.backends.remote.policy import FleetPolicy
from gateway.backends.remote.slots import Slots, Wanted
from gateway.core.remote import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Sequence
    from types import TracebackType

    from gateway.backends.remote.attempts import Operation, StreamOperation
    from gateway.backends.remote.connection import QueueReport
    from gateway.core.clock import Clock, Timer
    from gateway.core.remote import (
        Address,
        AddressSource,
        EndpointState,
        EndpointView,
        FleetOptions,
        RemoteObserver,
    )

T = TypeVar("T")

_SOONEST_TICK_S: Final = 0.001
_log = logging.getLogger(__name__)


class Fleet(Generic[ConnectionT]):
    """The endpoints of one fleet as one backend; an async context, event loop only.

    Entering waits for nothing: a fleet none of whose endpoints is there fails its requests and goes on
    looking. Leaving ends every task and closes every connection; requests still under way fail.

    Attributes:
        options: as given.

    Args:
        options: names, limits and intervals.
        connect: makes a connection to an endpoint; it need not be up, and reconnects by itself.
        clock: time and timers.
        observer: told of attempts, decisions and changes of endpoints.
        source: says which endpoints there are; None: what `options` name.
        random: gives numbers in [0, 1), for choices and jitter.
    """

    def __init__(  # noqa: PLR0913 - constructed in one place
        self,
        options: FleetOptions,
        connect: Callable[[Address], ConnectionT],
        clock: Clock,
        observer: RemoteObserver,
        *,
        source: AddressSource | None = None,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.options = options
        self._clock = clock
        self._observer = observer
        self._source = source if source is not None else address_source(options, clock)
        self._policy = FleetPolicy(
            options,
            random,
            on_endpoint=self._on_endpoint,
            on_decision=partial(observer.on_decision, options.name),
        )
        self._members = Members(options, connect, clock, random, probed=self._probed, reported=self._reported)
        self._slots = Slots(
            options.name, self._policy, clock, observer, members=self._members, ended=self._ended
        )
        self._caller = Caller(options, self._policy, self._slots, clock, observer, random)
        self._discovery: asyncio.Task[None] | None = None
        self._known = False
        self._changed = asyncio.Event()
        self._timer: Timer | None = None
        self._due_s: float | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Begin to look for endpoints and to probe them."""
        self._discovery = asyncio.create_task(self._discover(), name=f"endpoints of {self.options.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self._closed = True
        self._slots.close()
        if self._discovery is not None:
            self._discovery.cancel()
            await asyncio.gather(self._discovery, return_exceptions=True)
        await self._members.aclose()
        self._plan()

    @property
    def capacity(self) -> int:
        """How many requests the available endpoints may have under way together."""
        return self._policy.capacity

    def views(self) -> Sequence[EndpointView]:
        """Return every endpoint as it is now."""
        return self._policy.views()

    def addresses(self) -> Sequence[Address]:
        """Return the endpoints, without those that are no longer among them."""
        return [address for address, member in self._members.present.items() if not member.leaving]

    def connection(self, address: Address) -> ConnectionT:
        """Return the connection to an endpoint, for questions that are no requests.

        Raises:
            KeyError: there is no such endpoint.
        """
        return self._members.present[address].connection

    async def wait_probed(self) -> None:
        """Wait until the endpoints are known and each has been probed, with whatever result."""
        while not (self._known and self._members.all_asked):
            await self._changed.wait()

    async def call(  # noqa: PLR0913 - what a request asks of a fleet
        self,
        operation: Operation[ConnectionT, T],
        *,
        key: str,
        deadline_s: float | None,
        among: Collection[Address] | None = None,
        affinity: str | None = None,
        repeatable: bool = True,
    ) -> T:
        """Return what `operation(connection, timeout_s)` returns at some endpoint.

        Nothing of it is under way when this returns or raises; cancelling cancels it and waits for that.

        Args:
            operation: raises AttemptError when another endpoint may do better; any other GatewayError is
                the answer. `timeout_s` is what is left, less a margin; None: no limit.
            key: names the model in errors, and what its latency is compared with.
            deadline_s: monotonic time by which somebody wants the answer.
            among: endpoints that have just the version wanted; retries stay among them. None: all.
            affinity: requests that share it go to one endpoint while that is there.
            repeatable: running it twice does no harm.

        Raises:
            BackendUnavailable: it failed at each endpoint tried, or none is available.
            Overloaded: no endpoint has room and too many wait, or each one tried was full.
            DeadlineExceeded: the deadline is over.
            GatewayError: an endpoint's answer.
        """
        wanted = Wanted(key=key, deadline_s=deadline_s, among=among, affinity=affinity, repeatable=repeatable)
        return await self._caller.call(operation, wanted)

    def stream(  # noqa: PLR0913 - what a request asks of a fleet
        self,
        operation: StreamOperation[ConnectionT, T],
        *,
        key: str,
        deadline_s: float | None,
        among: Collection[Address] | None = None,
        affinity: str | None = None,
        repeatable: bool = True,
    ) -> AsyncGenerator[T, None]:
        """Give the items of `operation(connection, timeout_s)`, in order; as `call`.

        It is sent to another endpoint only before its first item. Closing the iterator cancels it.
        """
        wanted = Wanted(key=key, deadline_s=deadline_s, among=among, affinity=affinity, repeatable=repeatable)
        return self._caller.stream(operation, wanted)

    async def _discover(self) -> None:
        try:
            async for addresses in self._source.watch():
                self._set(addresses)
        except Exception:  # noqa: BLE001 - logged; the endpoints known so far go on serving
            _log.exception("the endpoints of %s are not followed any more", self.options.name)

    def _set(self, addresses: Sequence[Address]) -> None:
        _log.info("fleet %s: endpoints %s", self.options.name, ", ".join(map(str, addresses)))
        self._policy.set_addresses(addresses, self._clock.now_s())
        self._members.set(addresses)
        self._known = True
        self._tell()

    def _probed(self, address: Address, ready: bool, reason: str) -> None:
        self._policy.probed(address, ready, self._clock.now_s(), reason)
        self._tell()

    def _reported(self, address: Address, report: QueueReport) -> None:
        self._policy.queue_reported(
            address, report.wait_s, report.compute_s, report.count, self._clock.now_s()
        )

    def _on_endpoint(self, address: Address, state: EndpointState, reason: str) -> None:
        why = f": {reason}" if reason else ""
        _log.info("fleet %s: %s is %s%s", self.options.name, address, state.value, why)
        self._observer.on_endpoint(self.options.name, address, state, reason)

    def _ended(self, outcome: Outcome) -> None:
        if outcome is not Outcome.OK:  # what goes well brings nothing forward
            self._plan()

    def _tell(self) -> None:
        """Let those who wait look again, and plan the next tick."""
        self._plan()
        self._slots.serve()
        self._changed.set()
        self._changed = asyncio.Event()

    def _plan(self) -> None:
        """Have the policy's next event, if it is another one than before, met in time."""
        now_s = self._clock.now_s()
        due_s = None if self._closed else self._policy.next_event_s(now_s)
        if due_s == self._due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = (
            None if due_s is None else self._clock.call_at(max(due_s, now_s + _SOONEST_TICK_S), self._tick)
        )

    def _tick(self) -> None:
        self._due_s = self._timer = None
        self._policy.tick(self._clock.now_s())
        self._tell()
