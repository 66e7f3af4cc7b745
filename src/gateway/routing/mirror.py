"""Mirrors requests to shadows when their clients have been answered, from capacity that nobody else wants.

A copy's way: it is chosen while the request goes to its arm, by a hash of its own. Nothing more happens until
the request is answered. One turn of the loop later the copy is due: it is submitted to the shadow's version
when the device has the headroom asked for, waits for that until its deadline at most, and is run once. Its
answer is compared with the client's and thrown away. So a request never shares the device with its own copy.
On a device with several slots copies never take the last free one, so that others need not wait for them. On
a device with one they begin only while it is idle, one copy to a run, and hold others up by that run at most.
While a device is busy they wait and are then dropped.

A copy takes the request's tensors as they are, views over the received buffer: nobody writes to them, since
batches are assembled by copying. The buffer stays alive for as long as the copy is under way, and is charged
to `MirrorOptions.max_bytes`; the request's own charges end with its answer. The lease is the copy's own.

Copies pass none of the layers, for they are no client's requests: request metrics, traces and the access log
do not know them. The version that runs them counts them in its statistics and batch metrics, for its batches
are made of them; observers of batches know them by their `flow_key`, SHADOW_FLOW.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from gateway.core.errors import GatewayError
from gateway.core.rollout import PPM
from gateway.routing.comparison import agree, comparison_bytes
from gateway.routing.shadow_copies import SHADOW_FLOW as SHADOW_FLOW  # noqa: PLC0414 - what observers know them by
from gateway.routing.shadow_copies import Copy
from gateway.routing.shadow_counts import Dropped
from gateway.routing.shadow_lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.core.clock import Clock, Timer
    from gateway.core.evidence import RoutePlan, ShadowCounts
    from gateway.core.interfaces import ModelCatalog, ServedVersion
    from gateway.core.pending import Pending
    from gateway.core.types import Device, InferRequest, Tensor
    from gateway.routing.shadow_lanes import Lane, ShadowLoad

_log = logging.getLogger(__name__)

OFF_LOOP_BYTES: Final = 64 << 10
"""Outputs from this size on are compared in a thread: it takes about 0.1 ms, as long as the way there."""


SEVERAL: Final = 2
"""Slots of which a copy leaves one to others."""


class DeviceSlots(Protocol):
    """How busy one device is; its scheduler.

    Attributes:
        slots: runs that it may have under way at once.
    """

    slots: int

    @property
    def spare_slots(self) -> int:
        """Runs that could start now; 0 while anybody waits for one."""

    def when_spare(self, callback: Callable[[], object]) -> None:
        """Call back once, in a turn of the loop of its own, when a slot has become spare."""


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    """What copies may take.

    Attributes:
        deadline_s: how long a copy may wait, from the request's answer on, until it is run.
        max_bytes: received bytes that all copies under way keep alive.
        max_together: copies given to a version at once, so that they share a run; more save CPU time, fewer
            let others have the device back sooner.
    """

    deadline_s: float = 1.0
    max_bytes: int = 256 << 20
    max_together: int = 4


class ShadowMirror:
    """A ShadowSink. Event loop only, but for large comparisons, which one thread makes.

    Invariants: of every shadow, mirrored = compared + failed + sum(dropped) + under_way at all times; at most
    `max_inflight` of its copies are under way, and `MirrorOptions.max_bytes` of all together. Whatever the
    shadow does, the request, its answer and its outcome are not touched.

    Args:
        catalog: where leases come from.
        clock: deadlines.
        slots_of: the devices; None for one that nothing is known of, which always has room.
        options: what copies may take.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        clock: Clock,
        slots_of: Callable[[Device], DeviceSlots | None],
        options: MirrorOptions | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._slots_of = slots_of
        self._options = options or MirrorOptions()
        self._lanes = Lanes()
        self._under_way: set[Copy] = set()
        self._bytes = 0
        self._due: list[Copy] = []
        self._scheduled = False
        self._awaited: set[Device] = set()
        self._timer: Timer | None = None
        self._threads = ThreadPoolExecutor(1, "shadow-compare")
        self._closed = False

    # -- what others see -----------------------------------------------------------------------------------

    def mirror(self, request: InferRequest, plan: RoutePlan, pending: Pending) -> None:
        """Mirror a request that has just been dispatched to the plan's shadows that want it; never raises.

        Args:
            request: as it was dispatched; kept until its copies have ended.
            plan: what the request was routed by.
            pending: its answer, perhaps complete already.
        """
        if self._closed:
            return
        try:
            for lane in self._lanes.of(plan):
                if lane.takes(request):
                    self._mirror(request, lane, pending)
        except Exception:  # noqa: BLE001 - whatever is wrong with a shadow, its primary must not feel it
            _log.exception("a request for model %r could not be mirrored", request.model_name)

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        """Count for these plans, which are all that is in force, and forget the totals of all others.

        Totals go on where model, rollout_id, step, shadow, its version, rules and slices are the same. Copies
        under way end in the totals that they began in.
        """
        self._lanes.apply(plans)

    def evidence(self) -> Mapping[tuple[str, int], Mapping[str, ShadowCounts]]:
        """Return the totals of every rollout by (rollout_id, step) and shadow."""
        return {(rollout, step): counts for (_, rollout, step), counts in self.totals().items() if rollout}

    def totals(self) -> Mapping[tuple[str, str, int], Mapping[str, ShadowCounts]]:
        """Return all totals by (model, rollout_id, step) and shadow; a plain split has no rollout_id."""
        return self._lanes.totals()

    async def aclose(self) -> None:
        """Give up every copy under way, each counted as dropped by `shutdown`; mirror nothing from now on.

        Native runs of copies finish unseen. Returns when the last comparison has.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for copy in tuple(self._under_way):
            copy.give_up()
        self._due.clear()
        shut_down = partial(self._threads.shutdown, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, shut_down)

    # -- the beginning of a copy ---------------------------------------------------------------------------

    def _mirror(self, request: InferRequest, lane: Lane, pending: Pending) -> None:
        nbytes = request.received_bytes or sum([tensor.array.nbytes for tensor in request.inputs])
        full = lane.load.copies >= lane.spec.max_inflight
        if full or self._bytes + nbytes > self._options.max_bytes:
            lane.counter.begin()
            lane.counter.dropped(Dropped.INFLIGHT)
            return
        copy = Copy(self, lane, request, nbytes)
        lane.counter.begin()
        lane.load.copies += 1
        self._bytes += nbytes
        self._under_way.add(copy)
        pending.add_done_callback(copy.answered)

    def due(self, copy: Copy) -> None:
        """Run a copy whose primary has been answered, when there is room."""
        copy.deadline_s = self._clock.now_s() + self._options.deadline_s
        self._due.append(copy)
        self.look()

    def look(self) -> None:
        """Look at what is due, on the next turn of the loop: the answers of this one go out first."""
        if self._due and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._launch_due)

    # -- the run -------------------------------------------------------------------------------------------

    def _launch_due(self) -> None:
        self._scheduled = False
        launch = _Launch()
        now_s = self._clock.now_s()
        due, self._due = self._due, []
        for copy in due:
            if copy.ended:
                continue
            if copy.deadline_s <= now_s:
                copy.drop(Dropped.HEADROOM)
            elif not self._launched(copy, launch):
                self._due.append(copy)
        if launch.refused:
            self.look()
        self._set_timer()

    def _launched(self, copy: Copy, launch: _Launch) -> bool:
        """Run a copy, or end it if it cannot be; False if it must wait."""
        lane = copy.lane
        try:
            version = self._catalog.get(lane.version.model, lane.number)
        except GatewayError:
            copy.drop(Dropped.NOT_READY)
            return True
        if version.id != lane.version:
            copy.drop(Dropped.NOT_READY)
            return True
        if not launch.has_turn(lane, self._most_together(version)):
            return False
        if not launch.given(lane) and not self._has_room(lane, version):
            return False
        launch.gives(lane)
        copy.run(self._catalog.lease(lane.version.model, lane.number))
        launch.refused |= copy.ended
        return True

    def _most_together(self, version: ServedVersion) -> int:
        """Return how many copies may share a run; one where those who come meanwhile have no other slot."""
        devices = [self._slots_of(device) for device, _ in version.devices]
        if any(slots is not None and slots.slots < SEVERAL for slots in devices):
            return 1
        return (
            self._options.max_together if version.spec.batching.enabled and version.signature.batchable else 1
        )

    def _has_room(self, lane: Lane, version: ServedVersion) -> bool:
        """Whether each device of a version has the headroom asked for, and a slot besides the copy's.

        It asks to be told when one has not. A device with one slot must be idle. A copy that was submitted
        just now wants its device, so that other shadows find no room there.
        """
        for device, _ in version.devices:
            slots = self._slots_of(device)
            if slots is None:
                continue
            spare = slots.spare_slots
            least = min(slots.slots, SEVERAL)
            if spare < least or spare * PPM < lane.spec.headroom_ppm * slots.slots:
                if device not in self._awaited:
                    self._awaited.add(device)
                    slots.when_spare(partial(self._room_in, device))
                return False
        return True

    def _room_in(self, device: Device) -> None:
        self._awaited.discard(device)
        self.look()

    def _set_timer(self) -> None:
        """Have the timer ring at the first deadline, the first copy's: all have the same time."""
        if self._timer is None and self._due:
            self._timer = self._clock.call_at(self._due[0].deadline_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.look()

    # -- the end -------------------------------------------------------------------------------------------

    def compare(self, copy: Copy, shadow: tuple[Tensor, ...]) -> None:
        """End a copy by comparing its answer with the primary's."""
        if copy.ended:
            return
        if comparison_bytes(copy.outputs) < OFF_LOOP_BYTES:
            try:
                agreed = agree(copy.outputs, shadow, copy.lane.spec.rules)
            except Exception as exc:  # noqa: BLE001 - logged: it is counted as the shadow's failure
                copy.incomparable(exc)
            else:
                copy.compared(agreed=agreed)
            return
        loop = asyncio.get_running_loop()
        comparing = loop.run_in_executor(self._threads, agree, copy.outputs, shadow, copy.lane.spec.rules)
        comparing.add_done_callback(copy.compared_aside)

    def left(self, copy: Copy) -> None:
        """Take note of a copy that has ended."""
        self._under_way.discard(copy)
        self._bytes -= copy.nbytes
        copy.lane.load.copies -= 1


class _Launch:
    """What has been given out in one look at the copies that are due.

    Attributes:
        refused: some of it was not taken, so that others may have their turn.
    """

    def __init__(self) -> None:
        self.refused = False
        self._given: dict[ShadowLoad, int] = {}

    def has_turn(self, lane: Lane, most_together: int) -> bool:
        """Whether one more copy may run: all of its shadow's are of this look, and may share a run."""
        given = self.given(lane)
        return lane.load.running <= given < most_together

    def given(self, lane: Lane) -> int:
        """Return how many copies of a shadow have been submitted."""
        return self._given.get(lane.load, 0)

    def gives(self, lane: Lane) -> None:
        """Note that a copy is submitted."""
        self._given[lane.load] = self.given(lane) + 1
