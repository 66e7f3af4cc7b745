"""The batch queue: decides what waits, what is refused, what has expired and what runs next.

Pure and synchronous: no clock, no tasks; every method that needs the time is told it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic

from gateway.batching.heap import KeyedHeap
from gateway.batching.lanes import ItemT, Lanes
from gateway.core.errors import InvalidRequest, Overloaded
from gateway.core.events import CloseReason

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.core.options import BatchingOptions

DEADLINE_MARGIN_S: Final = 0.005
"""How long before a deadline a batch closes for its sake: timers have 1 ms, the loop lags by up to 5."""

_RATE_WEIGHT: Final = 0.1
"""Weight of the newest run in the service rate: the last ten runs or so decide."""

_MOST_RETRY_AFTER_S: Final = 60.0


class FormedBatch(Generic[ItemT]):
    """What `BatchQueue.take` decided to run.

    Attributes:
        items: in row order; they no longer wait.
        rows: their rows together.
        reason: why the batch was closed.
    """

    __slots__ = (
        "items",
        "reason",
        "rows",
    )

    def __init__(
        self,
        items: list[ItemT],
        rows: int,
        reason: CloseReason,
    ) -> None:
        self.items = items
        self.rows = rows
        self.reason = reason


class _Group(Generic[ItemT]):
    """The items that may share runs, with their sums.

    Attributes:
        arrivals: every item, oldest first; kept only where a delay is declared.
        deadlines: likewise.
        row_bytes: no item that has been in it has larger rows.
        ready_key: its key among the ready groups: a lower bound of its head's; None while it is not there.
    """

    __slots__ = ("arrivals", "deadlines", "lanes", "nbytes", "ready_key", "row_bytes", "rows")

    def __init__(self) -> None:
        self.lanes: Lanes[ItemT] = Lanes()
        self.arrivals: OrderedDict[ItemT, None] = OrderedDict()
        self.deadlines: KeyedHeap[ItemT] = KeyedHeap()
        self.rows = 0
        self.nbytes = 0
        self.row_bytes = 0
        self.ready_key: float | None = None


class BatchQueue(Generic[ItemT]):
    """Requests waiting for one model version on one device, a group for each grouping key.

    Forming: the group whose head has the smallest key (`enqueued_s + level * ageing_s`) goes first among
    those that are due. A group is due when it can fill a run, when it holds a preferred number of rows, when
    no delay is declared, when its oldest item has waited the delay, or when waiting longer would let an item
    expire. A run takes items in the order of `Lanes` and stops at the first that does not fit: nothing
    looks past it, so a large request is never overtaken by smaller ones behind it, at the price of rows left
    free in that run.

    Waiting is bounded: an item of level L is passed only by items of a higher level l that arrived less than
    `(L - l) * ageing_s` after it, and by its turn among the flows of its own level (see `Lanes`).

    Refusing: at most `max_queue_rows` rows and `max_queue_bytes` bytes wait; an empty queue takes any one
    request, so that none is too large for ever.
    """

    def __init__(self, model: str, options: BatchingOptions, *, single: bool = False) -> None:
        """Make an empty queue.

        Args:
            model: the model's name, for messages.
            options: limits, delay, sizes, priorities.
            single: each item runs alone; delay and preferred sizes do not apply.
        """
        self._model = model
        self._options = options
        self._single = single
        self._delay_s = 0.0 if single else options.max_delay_s
        self._max_rows = most_rows(options)
        self._groups: dict[Hashable, _Group[ItemT]] = {}
        self._ready: KeyedHeap[_Group[ItemT]] = KeyedHeap()
        self._waiting: KeyedHeap[_Group[ItemT]] = KeyedHeap()
        self._deadlines: KeyedHeap[ItemT] = KeyedHeap()
        self._arrivals: OrderedDict[ItemT, None] | None = (
            OrderedDict() if options.max_queue_age_s is not None else None
        )
        self._keeps_times = self._arrivals is not None or self._delay_s > 0
        self._row_s: float | None = None
        self.rows = 0
        self.requests = 0
        self.nbytes = 0

    # -- coming and going ----------------------------------------------------------------------------------

    def level_of(self, priority: int) -> int:
        """Return the level of a protocol priority: 1 is the highest, 0 asks for the default.

        Raises:
            InvalidRequest: there is no such level.
        """
        levels = self._options.priority_levels
        if levels == 0:
            return 0
        if priority == 0:
            return self._options.default_priority or (levels + 1) // 2
        if not 0 < priority <= levels:
            raise InvalidRequest(
                f"priority {priority} is not offered by model '{self._model}': "
                f"expected 1 (highest) to {levels}, or 0 for the default"
            )
        return priority

    def check(self, rows: int, nbytes: int, now_s: float) -> None:
        """See whether a request of so many rows and bytes may wait.

        Raises:
            Overloaded: the queue is full, or its oldest item has waited too long.
        """
        options = self._options
        if self.rows and self.rows + rows > options.max_queue_rows:
            raise self._overloaded(f"{self.rows} rows wait, limit {options.max_queue_rows}")
        if self.nbytes and self.nbytes + nbytes > options.max_queue_bytes:
            raise self._overloaded(f"{self.nbytes} bytes wait, limit {options.max_queue_bytes}")
        if self._arrivals and options.max_queue_age_s is not None:
            waited_s = now_s - next(iter(self._arrivals)).enqueued_s
            if waited_s > options.max_queue_age_s:
                raise self._overloaded(
                    f"its oldest request has waited {waited_s:.3f} s, limit {options.max_queue_age_s:g} s"
                )

    def push(self, item: ItemT, now_s: float) -> None:
        """Add an item that `check` has passed."""
        item.sort_key = item.enqueued_s + item.level * self._options.priority_ageing_s
        item.queued = True
        group = self._groups.get(item.group)
        if group is None:
            self._groups[item.group] = group = _Group()
        group.lanes.push(item)
        group.rows += item.rows
        group.nbytes += item.rows * item.row_bytes
        group.row_bytes = max(group.row_bytes, item.row_bytes)
        self.rows += item.rows
        self.nbytes += item.nbytes
        self.requests += 1
        if item.deadline_s is not None or self._keeps_times:
            self._note_times(group, item)
        if group.ready_key is None or item.sort_key < group.ready_key:
            self._place(group, now_s)

    def remove(self, item: ItemT) -> bool:
        """Take out a cancelled item, in O(1); False if it does not wait."""
        if not item.queued:
            return False
        group = self._groups[item.group]
        group.lanes.remove(item)
        self._forget(group, item)
        if not group.lanes:
            self._drop(item.group, group)
        elif group.ready_key is not None and group.lanes.head().sort_key < group.ready_key:
            self._make_ready(group)  # the turn went to a flow whose head is older
        return True

    def expire(self, now_s: float) -> list[ItemT]:
        """Take out and return the items whose deadline has come, earliest first."""
        expired = self._deadlines.pop_until(now_s)
        for item in expired:
            self.remove(item)
        return expired

    def drain(self) -> list[ItemT]:
        """Take out and return everything, in no particular order."""
        drained: list[ItemT] = []
        for group in list(self._groups.values()):
            while group.lanes:
                drained.append(item := group.lanes.head())
                self.remove(item)
        return drained

    # -- forming -------------------------------------------------------------------------------------------

    def take(self, now_s: float) -> FormedBatch[ItemT] | None:
        """Form the next batch, or None when nothing is due.

        Nothing expired is formed as long as `expire` was called with the same `now_s` before.
        """
        for group in self._waiting.pop_until(now_s):
            self._make_ready(group)
        while (first := self._ready.first()) is not None:
            key, group = first
            head_key = group.lanes.head().sort_key
            if head_key > key:
                self._make_ready(group)
                continue
            reason, rows = self._due(group, now_s)
            if reason is not None:
                return self._fill(group, reason, rows, now_s)
            self._place(group, now_s)
        return None

    def next_event_s(self) -> float | None:
        """Return when something may expire or become due if nothing else happens; None: never."""
        expiry_s, due_s = self._deadlines.first_key(), self._waiting.first_key()
        if expiry_s is None or due_s is None:
            return expiry_s if due_s is None else due_s
        return min(expiry_s, due_s)

    def next_expiry_s(self) -> float | None:
        """Return the earliest deadline of what waits."""
        return self._deadlines.first_key()

    def served(self, rows: int, seconds: float) -> None:
        """Take note that `rows` rows took `seconds` of the model's time: the rate behind `retry_after_s`."""
        row_s = seconds / max(rows, 1)
        old_s = self._row_s
        self._row_s = row_s if old_s is None else old_s + _RATE_WEIGHT * (row_s - old_s)

    # -- inside --------------------------------------------------------------------------------------------

    def _overloaded(self, why: str) -> Overloaded:
        retry_after_s = None
        if self._row_s is not None:
            retry_after_s = min(self.rows * self._row_s, _MOST_RETRY_AFTER_S)
        return Overloaded(f"queue of model '{self._model}' is full: {why}", retry_after_s=retry_after_s)

    def _note_times(self, group: _Group[ItemT], item: ItemT) -> None:
        if item.deadline_s is not None:
            self._deadlines.set(item, item.deadline_s)
        if self._arrivals is not None:
            self._arrivals[item] = None
        if self._delay_s > 0:
            group.arrivals[item] = None
            if item.deadline_s is not None:
                group.deadlines.set(item, item.deadline_s)

    def _forget(self, group: _Group[ItemT], item: ItemT) -> None:
        item.queued = False
        group.rows -= item.rows
        group.nbytes -= item.rows * item.row_bytes
        self.rows -= item.rows
        self.nbytes -= item.nbytes
        self.requests -= 1
        if item.deadline_s is not None or self._keeps_times:
            self._forget_times(group, item)

    def _forget_times(self, group: _Group[ItemT], item: ItemT) -> None:
        if item.deadline_s is not None:
            self._deadlines.discard(item)
        if self._arrivals is not None:
            del self._arrivals[item]
        if self._delay_s > 0:
            del group.arrivals[item]
            group.deadlines.discard(item)

    def _drop(self, key: Hashable, group: _Group[ItemT]) -> None:
        del self._groups[key]
        self._ready.discard(group)
        self._waiting.discard(group)

    def _place(self, group: _Group[ItemT], now_s: float) -> None:
        """Put a group among the ready ones if it is due, else among the waiting ones."""
        if self._delay_s <= 0 or self._due(group, now_s)[0] is not None:
            self._make_ready(group)
            return
        group.ready_key = None
        self._ready.discard(group)
        self._waiting.set(group, self._due_s(group))

    def _make_ready(self, group: _Group[ItemT]) -> None:
        self._waiting.discard(group)
        group.ready_key = group.lanes.head().sort_key
        self._ready.set(group, group.ready_key)

    def _due_s(self, group: _Group[ItemT]) -> float:
        """Return when a group is due for the sake of its oldest item or its earliest deadline."""
        due_s = next(iter(group.arrivals)).enqueued_s + self._delay_s
        deadline_s = group.deadlines.first_key()
        return due_s if deadline_s is None else min(due_s, deadline_s - DEADLINE_MARGIN_S)

    def _due(self, group: _Group[ItemT], now_s: float) -> tuple[CloseReason | None, int]:
        """Return why a group is due (None if it is not) and the most rows its run may have."""
        most = self._max_rows
        if self._single:
            return CloseReason.SINGLE, 0
        if group.rows >= most or group.nbytes >= self._options.max_batch_bytes:
            return CloseReason.FULL, most
        if self._delay_s <= 0:
            return CloseReason.IDLE, most
        if now_s >= next(iter(group.arrivals)).enqueued_s + self._delay_s:
            return CloseReason.DELAY, most
        if now_s >= self._due_s(group):
            return CloseReason.DEADLINE, most
        reached = [size for size in self._options.preferred_rows if size <= group.rows]
        return (CloseReason.FULL, reached[-1]) if reached else (None, most)

    def _fill(
        self, group: _Group[ItemT], reason: CloseReason, most_rows: int, now_s: float
    ) -> FormedBatch[ItemT]:
        """Take the head, whatever its size, and then what fits behind it."""
        if self._takes_all(group, most_rows):
            return self._empty(group, reason)
        items: list[ItemT] = []
        rows = row_bytes = 0
        lanes, most_bytes = group.lanes, self._options.max_batch_bytes
        while lanes:
            item = lanes.head()
            row_bytes = max(row_bytes, item.row_bytes)
            if items and (rows + item.rows > most_rows or (rows + item.rows) * row_bytes > most_bytes):
                reason = reason if self._single else CloseReason.FULL
                break
            lanes.pop(item)
            self._forget(group, item)
            items.append(item)
            rows += item.rows
        if lanes:
            self._place(group, now_s)
        else:
            self._drop(items[0].group, group)
        return FormedBatch(items, rows, reason)

    def _takes_all(self, group: _Group[ItemT], most_rows: int) -> bool:
        """Return whether everything in a group fits into one run, in an order that needs no looking up."""
        if self._single or group.rows > most_rows or group.lanes.only_flow() is None:
            return False
        return group.rows * group.row_bytes <= self._options.max_batch_bytes

    def _empty(self, group: _Group[ItemT], reason: CloseReason) -> FormedBatch[ItemT]:
        items = list(group.lanes.only_flow() or ())
        rows = group.rows
        group.lanes.clear()
        for item in items:
            self._forget(group, item)
        self._drop(items[0].group, group)
        return FormedBatch(items, rows, reason)


def most_rows(options: BatchingOptions) -> int:
    """Return the most rows of one run: `max_batch_rows`, or the last allowed size if that is less."""
    return min((options.max_batch_rows, *options.allowed_rows[-1:]))
