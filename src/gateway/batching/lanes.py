"""The order in which queued items of one group leave: levels with ageing, flows in turn, arrival order."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable


class QueueItem:
    """One request, or one part of a large one, waiting to be run.

    Attributes:
        rows: rows it takes in a run; at least 1, so that a request of no rows counts too.
        row_bytes: bytes of one of its rows in a run, padding of variable axes included.
        nbytes: bytes it keeps alive while it waits.
        group: only items with equal groups may share a run.
        level: priority level, 1 the highest; 0 where priorities are not used.
        flow: fairness unit; flows of one level take turns.
        enqueued_s: when it arrived, monotonic.
        deadline_s: when it must have left the queue, or None.
        sort_key: `enqueued_s + level * ageing_s`; written by the queue.
        queued: whether it waits; written by the queue.
    """

    __slots__ = (
        "deadline_s",
        "enqueued_s",
        "flow",
        "group",
        "level",
        "nbytes",
        "queued",
        "row_bytes",
        "rows",
        "sort_key",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one per request: a record of the fields would double its cost
        self,
        rows: int,
        group: Hashable,
        enqueued_s: float,
        row_bytes: int = 0,
        nbytes: int = 0,
        level: int = 0,
        flow: str = "",
        deadline_s: float | None = None,
    ) -> None:
        self.rows = rows
        self.row_bytes = row_bytes
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.flow = flow
        self.enqueued_s = enqueued_s
        self.deadline_s = deadline_s
        self.sort_key = enqueued_s
        self.queued = False


ItemT = TypeVar("ItemT", bound=QueueItem)


class Lane(Generic[ItemT]):
    """The items of one level: a ring of flows, each in arrival order. Every operation is O(1)."""

    __slots__ = ("_flows",)

    def __init__(self) -> None:
        self._flows: OrderedDict[str, OrderedDict[ItemT, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def only_flow(self) -> OrderedDict[ItemT, None] | None:
        """Return the items if they are all of one flow: then they leave in this order."""
        return next(iter(self._flows.values())) if len(self._flows) == 1 else None

    def push(self, item: ItemT) -> None:
        """Add at the end of its flow; a new flow joins the end of the ring."""
        flow = self._flows.get(item.flow)
        if flow is None:
            self._flows[item.flow] = flow = OrderedDict()
        flow[item] = None

    def head(self) -> ItemT:
        """Return the item that leaves next: the oldest of the flow whose turn it is."""
        return next(iter(next(iter(self._flows.values()))))

    def pop(self) -> ItemT:
        """Take the head; its flow goes to the end of the ring."""
        name, flow = next(iter(self._flows.items()))
        item, _ = flow.popitem(last=False)
        if flow:
            self._flows.move_to_end(name)
        else:
            del self._flows[name]
        return item

    def remove(self, item: ItemT) -> None:
        """Take out an item that is somewhere in it."""
        flow = self._flows[item.flow]
        del flow[item]
        if not flow:
            del self._flows[item.flow]


class Lanes(Generic[ItemT]):
    """The levels of one group, each a `Lane`; the head is the lane head with the smallest sort key.

    An item of level L that is at its lane's head is passed only by items of a higher level l that arrived
    less than `(L - l) * ageing_s` after it: their keys are smaller. Whatever comes later waits, so no level
    starves. Within its level an item with p older ones in its flow lets at most p + 1 rounds of the ring go
    first: one item of each other flow per round.
    """

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[int, Lane[ItemT]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def only_flow(self) -> OrderedDict[ItemT, None] | None:
        """Return the items if they are all of one level and flow: then they leave in this order."""
        return next(iter(self._lanes.values())).only_flow() if len(self._lanes) == 1 else None

    def clear(self) -> None:
        """Take everything out."""
        self._lanes.clear()

    def push(self, item: ItemT) -> None:
        """Add an item behind those of its level and flow."""
        lane = self._lanes.get(item.level)
        if lane is None:
            self._lanes[item.level] = lane = Lane()
        lane.push(item)

    def head(self) -> ItemT:
        """Return the item that leaves next."""
        if len(self._lanes) == 1:
            for lane in self._lanes.values():
                return lane.head()
        return min((lane.head() for lane in self._lanes.values()), key=_by_sort_key)

    def pop(self, item: ItemT) -> None:
        """Take `item`, which is what `head` returned."""
        lane = self._lanes[item.level]
        lane.pop()
        if not lane:
            del self._lanes[item.level]

    def remove(self, item: ItemT) -> None:
        """Take out an item that is somewhere in it."""
        lane = self._lanes[item.level]
        lane.remove(item)
        if not lane:
            del self._lanes[item.level]


def _by_sort_key(item: QueueItem) -> float:
    return item.sort_key
