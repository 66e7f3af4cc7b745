"""Slots: leave to send one attempt to one endpoint; given in turn when there is no room, given back once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic

from gateway.backends.remote.members import ConnectionT
from gateway.backends.remote.timing import TimeLimit
from gateway.core.errors import BackendUnavailable, DeadlineExceeded, Overloaded
from gateway.core.remote import EndpointState, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.backends.remote.members import Member, Members
    from gateway.backends.remote.policy import FleetPolicy
    from gateway.core.clock import Clock
    from gateway.core.remote import Address, RemoteObserver

MIN_LINE: Final = 64
"""So many requests may always wait for room; more where the endpoints together may have more under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request asks of a fleet.

    Attributes:
        key: names the model in errors, and what its latency is compared with.
        deadline_s: monotonic time by which somebody wants the answer, or None.
        among: endpoints that may answer; None: every one.
        affinity: requests that share it go to one endpoint while that is there; None: to any.
        repeatable: running it twice does no harm.
    """

    key: str
    deadline_s: float | None = None
    among: Collection[Address] | None = None
    affinity: str | None = None
    repeatable: bool = True


class Slot(Generic[ConnectionT]):
    """Leave for one attempt; to be ended exactly once.

    Attributes:
        address: where it goes.
        connection: by which.
        began_s: monotonic time at which it was given.
        open: not ended yet.
    """

    __slots__ = ("_slots", "address", "began_s", "connection", "member", "open")

    def __init__(self, slots: Slots[ConnectionT], member: Member[ConnectionT], began_s: float) -> None:
        self._slots = slots
        self.member = member
        self.address = member.address
        self.connection = member.connection
        self.began_s = began_s
        self.open = True

    def end(self, outcome: Outcome) -> float:
        """Give it back, saying what came of the attempt; return how many seconds it took."""
        assert self.open, "a slot is given back once"
        self.open = False
        return self._slots.ended(self, outcome)

    def abandon(self) -> None:
        """Give it back if nobody has."""
        if self.open:
            self.end(Outcome.CANCELLED)


class _Waiter(Generic[ConnectionT]):
    """A request in line; by identity."""

    __slots__ = ("exclude", "given", "wanted")

    def __init__(self, wanted: Wanted, exclude: Collection[Address]) -> None:
        self.wanted = wanted
        self.exclude = exclude
        self.given: asyncio.Future[Slot[ConnectionT]] = asyncio.get_running_loop().create_future()


class Slots(Generic[ConnectionT]):
    """Gives slots by a policy, first come, first served among requests that may go to the same endpoints.

    Event loop only. Invariants: nobody in line could be given a slot when `serve` last returned; every
    slot given is told to the policy by `began`, and once by `ended`.

    Args:
        name: the fleet's.
        policy: chooses.
        clock: time.
        observer: told of attempts and of requests that found no room.
        members: the endpoints that the policy chooses from, and their connections.
        ended: told how an attempt ended, before the next in line is served.
    """

    def __init__(  # noqa: PLR0913 - the parts of a fleet, put together once
        self,
        name: str,
        policy: FleetPolicy,
        clock: Clock,
        observer: RemoteObserver,
        *,
        members: Members[ConnectionT],
        ended: Callable[[Outcome], None],
    ) -> None:
        self._name = name
        self._policy = policy
        self._clock = clock
        self._observer = observer
        self._members = members
        self._ended = ended
        self._line: dict[_Waiter[ConnectionT], None] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    async def get(
        self, wanted: Wanted, exclude: Collection[Address], until_s: float | None
    ) -> Slot[ConnectionT]:
        """Return a slot, now or when it is this request's turn; cancelling leaves the line.

        Args:
            wanted: the request.
            exclude: endpoints that are taken only when there is no other one.
            until_s: monotonic time until which waiting makes sense.

        Raises:
            Overloaded: no endpoint has room, and as many wait already as may.
            BackendUnavailable: no endpoint may take it.
            DeadlineExceeded: there was no room in time.
        """
        if self._closed:
            raise BackendUnavailable(f"{wanted.key}: its servers are not used any more")
        slot = self.take(wanted, exclude)
        if slot is not None:
            return slot
        if self._hopeless(wanted):
            self._observer.on_decision(self._name, "no_endpoint")
            raise _unavailable(wanted)
        self._observer.on_decision(self._name, "limit_full")
        if len(self._line) >= max(MIN_LINE, self._policy.capacity):
            raise Overloaded(f"{wanted.key}: every endpoint that has it is busy, and {len(self._line)} wait")
        return await self._wait(_Waiter(wanted, exclude), until_s)

    def take(self, wanted: Wanted, exclude: Collection[Address] = ()) -> Slot[ConnectionT] | None:
        """Return a slot if there is room now."""
        address = self.other(wanted, exclude)
        if address is None and exclude and not self._has(wanted, EndpointState.HEALTHY, exclude):
            address = self.other(wanted, ())
        return None if address is None else self.begin(address)

    def other(self, wanted: Wanted, exclude: Collection[Address]) -> Address | None:
        """Return an endpoint with room that is not among `exclude`, without taking a slot."""
        return self._policy.pick(
            self._clock.now_s(), exclude=exclude, among=wanted.among, affinity=wanted.affinity
        )

    def begin(self, address: Address) -> Slot[ConnectionT]:
        """Take a slot of an endpoint just chosen."""
        now_s = self._clock.now_s()
        member = self._members.began(address)
        self._policy.began(address, now_s)
        return Slot(self, member, now_s)

    def ended(self, slot: Slot[ConnectionT], outcome: Outcome) -> float:
        """Take a slot back; called by the slot, once."""
        now_s = self._clock.now_s()
        seconds = now_s - slot.began_s
        self._policy.ended(slot.address, outcome, seconds, now_s)
        self._observer.on_attempt(self._name, slot.address, outcome, seconds)
        self._members.ended(slot.member, outcome)
        self._ended(outcome)
        self.serve()
        return seconds

    def serve(self) -> None:
        """Give what room there is to those in line; called whenever there may be more, or none at all."""
        full: set[int] = set()
        for waiter in tuple(self._line):
            among = waiter.wanted.among
            plain = not waiter.exclude and waiter.wanted.affinity is None
            if plain and id(among) in full:
                continue
            if waiter.given.done():
                continue
            slot = self.take(waiter.wanted, waiter.exclude)
            if slot is not None:
                waiter.given.set_result(slot)
            elif self._hopeless(waiter.wanted):
                self._observer.on_decision(self._name, "no_endpoint")
                waiter.given.set_exception(_unavailable(waiter.wanted))
            elif plain and among is None:
                return  # nothing has room: nobody behind can be helped
            elif plain:
                full.add(id(among))
                continue
            else:
                continue
            del self._line[waiter]

    def close(self) -> None:
        """Refuse those in line and whoever comes."""
        self._closed = True
        for waiter in self._line:
            if not waiter.given.done():
                error = BackendUnavailable(f"{waiter.wanted.key}: its servers are not used any more")
                waiter.given.set_exception(error)
        self._line.clear()

    async def _wait(self, waiter: _Waiter[ConnectionT], until_s: float | None) -> Slot[ConnectionT]:
        self._line[waiter] = None
        try:
            with TimeLimit(self._clock, until_s):
                return await waiter.given
        except BaseException as error:
            self._line.pop(waiter, None)
            if waiter.given.done() and not waiter.given.cancelled() and not waiter.given.exception():
                waiter.given.result().abandon()  # it came together with the end of the waiting
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"{waiter.wanted.key}: no endpoint had room before the deadline"
                ) from error
            raise

    def _hopeless(self, wanted: Wanted) -> bool:
        """Whether waiting would not help one who was just given no slot: none is full, none not known yet."""
        return self._policy.why_none == "no_endpoint" and not self._has(wanted, EndpointState.CONNECTING)

    def _has(self, wanted: Wanted, state: EndpointState, exclude: Collection[Address] = ()) -> bool:
        """Whether an endpoint that may answer, beside those, is in a state."""
        return self._policy.has(state, among=wanted.among, exclude=exclude)


def _unavailable(wanted: Wanted) -> BackendUnavailable:
    return BackendUnavailable(f"{wanted.key}: none of its endpoints is available")
