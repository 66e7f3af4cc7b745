"""The endpoints of a fleet, each with its connection and its probes, until it is gone and idle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.backends.remote.probing import Prober
from gateway.core.remote import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from gateway.backends.remote.connection import Connection, QueueReport
    from gateway.core.clock import Clock, Timer
    from gateway.core.remote import Address, FleetOptions

ConnectionT = TypeVar("ConnectionT", bound="Connection")

_HARM = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_log = logging.getLogger(__name__)


class Member(Generic[ConnectionT]):
    """One endpoint.

    Attributes:
        address: where it is.
        connection: to it; closed when the endpoint is gone and idle.
        inflight: attempts under way on this connection.
        asked: it was probed at least once.
        leaving: it is no longer among the endpoints.
    """

    __slots__ = ("address", "asked", "connection", "inflight", "leaving", "limit", "prober", "probing")

    def __init__(self, address: Address, connection: ConnectionT) -> None:
        self.address = address
        self.connection = connection
        self.inflight = 0
        self.asked = False
        self.leaving = False
        self.prober: Prober | None = None
        self.probing: asyncio.Task[None] | None = None
        self.limit: Timer | None = None


class Members(Generic[ConnectionT]):
    """Owns connections and their probes; event loop only.

    An endpoint that is taken out is probed no more and keeps its connection until its last attempt has
    ended, `drain_s` at most: then the connection is closed under those that are left. One that comes back
    before that goes on with the connection it has.

    Args:
        options: of the fleet.
        connect: makes a connection; it need not be up.
        clock: time.
        random: gives numbers in [0, 1).
        probed: told of every answer of an endpoint: ready or not, and if not, why.
        reported: told of what an endpoint says about its queue.
    """

    def __init__(  # noqa: PLR0913 - the parts of a fleet, put together once
        self,
        options: FleetOptions,
        connect: Callable[[Address], ConnectionT],
        clock: Clock,
        random: Callable[[], float],
        *,
        probed: Callable[[Address, bool, str], None],
        reported: Callable[[Address, QueueReport], None],
    ) -> None:
        self._options = options
        self._connect = connect
        self._clock = clock
        self._random = random
        self._probed = probed
        self._reported = reported
        self._members: dict[Address, Member[ConnectionT]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def present(self) -> Mapping[Address, Member[ConnectionT]]:
        """The endpoints, those that leave included."""
        return self._members

    @property
    def all_asked(self) -> bool:
        """Whether every endpoint has been probed at least once."""
        return all(member.asked for member in self._members.values() if not member.leaving)

    def set(self, addresses: Collection[Address]) -> None:
        """Begin with new ones and part with those that are gone."""
        for address in addresses:
            member = self._members.get(address)
            if member is None:
                member = self._members[address] = Member(address, self._connect(address))
                self._probe(member)
            elif member.leaving:
                self._stay(member)
        for address, member in tuple(self._members.items()):
            if address not in addresses and not member.leaving:
                self._leave(member)

    def began(self, address: Address) -> Member[ConnectionT]:
        """Note an attempt; return where it goes."""
        member = self._members[address]
        member.inflight += 1
        return member

    def ended(self, member: Member[ConnectionT], outcome: Outcome) -> None:
        """Note its end; an endpoint that did harm is probed soon, one that has left is closed when idle."""
        member.inflight -= 1
        if member.leaving and member.inflight == 0:
            self._close(member)
        elif outcome in _HARM and member.prober is not None:
            member.prober.hint()

    async def aclose(self) -> None:
        """Stop every probe and close every connection, whatever is under way on it."""
        for member in tuple(self._members.values()):
            self._quiet(member)
            self._close(member)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _probe(self, member: Member[ConnectionT]) -> None:
        def probed(ready: bool, reason: str) -> None:
            member.asked = True
            self._probed(member.address, ready, reason)

        member.prober = Prober(
            member.connection,
            self._options,
            self._clock,
            self._random,
            probed=probed,
            reported=lambda report: self._reported(member.address, report),
        )
        member.probing = self._start(member.prober.run(), f"probe {member.address}")

    def _quiet(self, member: Member[ConnectionT]) -> None:
        if member.probing is not None:
            member.probing.cancel()
        member.prober = member.probing = None

    def _leave(self, member: Member[ConnectionT]) -> None:
        member.leaving = True
        self._quiet(member)
        if member.inflight == 0:
            self._close(member)
        else:
            until_s = self._clock.now_s() + self._options.drain_s
            member.limit = self._clock.call_at(until_s, lambda: self._close(member))

    def _stay(self, member: Member[ConnectionT]) -> None:
        member.leaving = member.asked = False
        if member.limit is not None:
            member.limit.cancel()
            member.limit = None
        self._probe(member)

    def _close(self, member: Member[ConnectionT]) -> None:
        """Forget an endpoint and close its connection; once."""
        if member.limit is not None:
            member.limit.cancel()
            member.limit = None
        if self._members.get(member.address) is member:
            del self._members[member.address]
            self._start(self._disconnect(member), f"close {member.address}")

    async def _disconnect(self, member: Member[ConnectionT]) -> None:
        try:
            await member.connection.aclose()
        except Exception:  # noqa: BLE001 - logged; it is not used any more
            _log.exception("closing the connection to %s failed", member.address)

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s ended", task.get_name(), exc_info=error)
