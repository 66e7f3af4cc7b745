"""The pure batch queue: refusing, ordering, forming, expiring."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batching.lanes import QueueItem
from gateway.batching.queue import DEADLINE_MARGIN_S, BatchQueue
from gateway.core.errors import InvalidRequest, Overloaded
from gateway.core.events import CloseReason
from gateway.core.options import BatchingOptions


def make(**options: Any) -> BatchQueue[QueueItem]:
    return BatchQueue("m", BatchingOptions(**options), single=options.get("enabled") is False)


def put(queue: BatchQueue[QueueItem], now_s: float = 0.0, rows: int = 1, **fields: Any) -> QueueItem:
    item = QueueItem(rows=rows, enqueued_s=now_s, **({"group": "g"} | fields))
    queue.check(item.rows, item.nbytes, now_s)
    queue.push(item, now_s)
    return item


def taken(queue: BatchQueue[QueueItem], now_s: float = 0.0) -> list[QueueItem] | None:
    formed = queue.take(now_s)
    return None if formed is None else formed.items


# -- forming -----------------------------------------------------------------------------------------------

FORMING = {
    "nothing": ({}, [], 0.0, None),
    "no delay takes what is there": ({}, [1, 2], 0.0, ([1, 2], CloseReason.IDLE)),
    "no delay stops at the most": ({"max_batch_rows": 4}, [2, 2, 1], 0.0, ([2, 2], CloseReason.FULL)),
    "what does not fit closes": ({"max_batch_rows": 4}, [3, 2, 1], 0.0, ([3], CloseReason.FULL)),
    "the last allowed is the most": ({"allowed_rows": (1, 2)}, [1, 1, 1], 0.0, ([1, 1], CloseReason.FULL)),
    "delay not over": ({"max_delay_s": 1.0}, [1, 1], 0.5, None),
    "delay over": ({"max_delay_s": 1.0}, [1, 1], 1.0, ([1, 1], CloseReason.DELAY)),
    "full in the delay": ({"max_delay_s": 1.0, "max_batch_rows": 2}, [1, 1], 0.0, ([1, 1], CloseReason.FULL)),
    "preferred before the delay": (
        {"max_delay_s": 1.0, "preferred_rows": (2, 4)}, [1, 1, 1], 0.0, ([1, 1], CloseReason.FULL),
    ),
    "the largest preferred wins": (
        {"max_delay_s": 1.0, "preferred_rows": (2, 4)}, [1] * 5, 0.0, ([1] * 4, CloseReason.FULL),
    ),
    "below the preferred": ({"max_delay_s": 1.0, "preferred_rows": (2,)}, [1], 0.0, None),
    "over the delay a preferred size is no limit": (
        {"max_delay_s": 1.0, "preferred_rows": (2,)}, [1] * 3, 1.0, ([1] * 3, CloseReason.DELAY),
    ),
    "alone": ({"enabled": False}, [1, 1], 0.0, ([1], CloseReason.SINGLE)),
    "alone without delay": ({"enabled": False, "max_delay_s": 1.0}, [1, 1], 0.0, ([1], CloseReason.SINGLE)),
}  # fmt: skip


@pytest.mark.parametrize(("options", "sizes", "now_s", "expected"), FORMING.values(), ids=FORMING.keys())
def test_when_and_how_a_batch_is_closed(
    options: dict[str, Any], sizes: list[int], now_s: float, expected: tuple[list[int], CloseReason] | None
) -> None:
    """Items that arrived at time 0 leave in the batch, and for the reason, that the table says."""
    queue = make(**options)
    for size in sizes:
        put(queue, rows=size)
    formed = queue.take(now_s)
    got = None if formed is None else ([item.rows for item in formed.items], formed.reason)
    assert got == expected
    assert queue.rows == sum(sizes) - (0 if expected is None else sum(expected[0]))


def test_the_most_bytes_close_a_batch_and_a_larger_request_runs_alone() -> None:
    """Bytes count at the widest row of the run, and no request is too large to run at all."""
    queue = make(max_batch_bytes=100)
    sizes = [(1, 500), (2, 30), (1, 40), (1, 1)]
    items = [put(queue, rows=rows, row_bytes=row_bytes) for rows, row_bytes in sizes]
    assert taken(queue) == items[:1]
    assert taken(queue) == items[1:2], "with the third, three rows of 40 bytes would be 120"
    assert taken(queue) == items[2:]


def test_the_delay_counts_from_the_oldest_item_and_not_from_the_newest() -> None:
    """Later arrivals do not put off a batch that is due."""
    queue = make(max_delay_s=1.0)
    first, second = put(queue, 0.0), put(queue, 0.9)
    assert queue.next_event_s() == 1.0
    assert queue.take(0.99) is None
    assert taken(queue, 1.0) == [first, second]


def test_cancelling_the_oldest_item_puts_the_delay_off_to_the_next() -> None:
    """The delay is measured from items that still wait."""
    queue = make(max_delay_s=1.0)
    first, second = put(queue, 0.0), put(queue, 0.9)
    queue.remove(first)
    assert queue.take(1.0) is None
    assert queue.next_event_s() == pytest.approx(1.9)
    assert taken(queue, 1.9) == [second]


def test_a_near_deadline_closes_a_batch_before_the_delay() -> None:
    """Nobody expires for the sake of company."""
    queue = make(max_delay_s=10.0)
    put(queue, 0.0)
    put(queue, 0.0, deadline_s=2.0)
    assert queue.take(1.9) is None
    assert queue.next_event_s() == 2.0 - DEADLINE_MARGIN_S
    formed = queue.take(2.0 - DEADLINE_MARGIN_S)
    assert formed is not None
    assert formed.reason is CloseReason.DEADLINE
    assert len(formed.items) == 2


def test_a_full_group_that_loses_rows_waits_again() -> None:
    """A group due because it was full is not due once a cancellation has made it smaller."""
    queue = make(max_delay_s=1.0, max_batch_rows=2)
    first, second = put(queue, 0.0), put(queue, 0.5)
    queue.remove(first)
    assert queue.take(0.6) is None
    assert taken(queue, 1.5) == [second]


def test_groups_never_mix_and_the_oldest_goes_first() -> None:
    """Each batch is of one group; among those due, the one whose head has waited longest leads."""
    queue = make()
    items = [put(queue, float(n), group="ab"[n % 2]) for n in range(4)]
    assert taken(queue, 9.0) == [items[0], items[2]]
    assert taken(queue, 9.0) == [items[1], items[3]]
    assert queue.take(9.0) is None


def test_a_group_whose_oldest_item_has_gone_is_as_old_as_its_next() -> None:
    """A cancelled request gives its group no advantage."""
    queue = make()
    first, second = put(queue, 0.0, group="a"), put(queue, 5.0, group="a")
    other = put(queue, 1.0, group="b")
    queue.remove(first)
    assert [taken(queue, 6.0), taken(queue, 6.0)] == [[other], [second]]


def test_a_group_that_is_not_due_does_not_hold_up_one_that_is() -> None:
    """An older group still waiting for company lets a full one pass."""
    queue = make(max_delay_s=5.0, max_batch_rows=2)
    old = put(queue, 0.0, group="old")
    full = [put(queue, 1.0, group="full") for _ in range(2)]
    assert taken(queue, 1.0) == full
    assert queue.take(1.0) is None
    assert taken(queue, 5.0) == [old]


# -- priorities and flows ----------------------------------------------------------------------------------


def test_higher_levels_go_first_until_a_lower_one_has_aged() -> None:
    """Level 1 passes level 2 only while it arrived less than one ageing time later."""
    queue = make(priority_levels=2, priority_ageing_s=1.0, max_batch_rows=1)
    low = put(queue, 0.0, level=2)
    soon, late = put(queue, 0.9, level=1), put(queue, 1.1, level=1)
    assert [taken(queue, 2.0) for _ in range(3)] == [[soon], [low], [late]]


PRIORITIES = [
    (0, 0, 0, 0),
    (0, 0, 7, 0),
    (3, 0, 0, 2),
    (4, 0, 0, 2),
    (3, 1, 0, 1),
    (3, 0, 1, 1),
    (3, 0, 3, 3),
]


@pytest.mark.parametrize(("levels", "default", "asked", "level"), PRIORITIES)
def test_the_level_of_a_priority(levels: int, default: int, asked: int, level: int) -> None:
    """1 is the highest, 0 the default, the middle when none is declared; without levels all are equal."""
    assert make(priority_levels=levels, default_priority=default).level_of(asked) == level


@pytest.mark.parametrize("asked", [4, -1, 2**64])
def test_a_level_that_is_not_offered_is_refused(asked: int) -> None:
    """The message says which levels there are."""
    with pytest.raises(InvalidRequest, match=r"'m'.*1 \(highest\) to 3"):
        make(priority_levels=3).level_of(asked)


def test_flows_of_one_level_take_turns() -> None:
    """A flow with a long backlog does not hold up another's few requests."""
    queue = make(max_batch_rows=1)
    for n in range(4):
        put(queue, float(n), flow="busy")
    put(queue, 10.0, flow="other")
    put(queue, 11.0, flow="other")
    order = [item.flow for _ in range(6) for item in taken(queue, 20.0) or ()]
    assert order == ["busy", "other", "busy", "other", "busy", "busy"]


ARRIVALS = st.lists(
    st.tuples(st.integers(1, 4), st.floats(0.0, 0.5, allow_nan=False), st.booleans()), min_size=1, max_size=60
)


@given(ARRIVALS, st.sampled_from([0.0, 0.1, 1.0]))
def test_no_request_is_passed_by_more_than_ageing_allows(
    arrivals: list[tuple[int, float, bool]], ageing_s: float
) -> None:
    """An item is passed only by higher levels' items that arrived within the ageing time between them."""
    queue = make(priority_levels=4, priority_ageing_s=ageing_s, max_batch_rows=1)
    now_s, waiting, left = 0.0, set[QueueItem](), 0
    for level, gap_s, serve in arrivals:
        now_s += gap_s
        waiting.add(put(queue, now_s, level=level))
        for item in (taken(queue, now_s) or ()) if serve else ():
            waiting.discard(item)
            left += 1
            for passed in waiting:
                head_start_s = (passed.level - item.level) * ageing_s
                assert item.enqueued_s <= passed.enqueued_s + head_start_s + 1e-9
    assert len(waiting) + left == len(arrivals)


def test_a_flood_of_the_highest_level_does_not_starve_the_lowest() -> None:
    """With one high-level arrival for every run for ever, a low-level item still runs after its ageing."""
    queue = make(priority_levels=3, priority_ageing_s=1.0, max_batch_rows=1)
    low = put(queue, 0.0, level=3)
    now_s = 0.0
    put(queue, now_s, level=1)
    while low not in (taken(queue, now_s) or ()):
        now_s += 0.1
        put(queue, now_s, level=1)
        assert now_s < 2.5


# -- refusing ----------------------------------------------------------------------------------------------


def test_beyond_the_most_rows_a_request_is_refused_at_once() -> None:
    """The message names the model, what waits and the limit; removal makes room again."""
    queue = make(max_queue_rows=3)
    first = put(queue, rows=2)
    with pytest.raises(Overloaded, match=r"'m' is full: 2 rows wait, limit 3"):
        put(queue, rows=2)
    put(queue, rows=1)
    queue.remove(first)
    put(queue, rows=2)


def test_beyond_the_most_bytes_a_request_is_refused_at_once() -> None:
    """Bytes are those that requests keep alive, not those of a run."""
    queue = make(max_queue_bytes=100)
    put(queue, nbytes=60)
    with pytest.raises(Overloaded, match="60 bytes wait, limit 100"):
        put(queue, nbytes=41)
    put(queue, nbytes=40)


def test_while_the_oldest_has_waited_too_long_requests_are_refused() -> None:
    """Age is that of the oldest item still waiting."""
    queue = make(max_queue_age_s=1.0)
    first = put(queue, 0.0)
    put(queue, 1.0)
    with pytest.raises(Overloaded, match=r"waited 1\.500 s, limit 1 s"):
        put(queue, 1.5)
    queue.remove(first)
    put(queue, 1.5)


def test_an_empty_queue_takes_any_one_request() -> None:
    """A request larger than the whole queue is not refused for ever."""
    queue = make(max_queue_rows=1, max_queue_bytes=1)
    item = put(queue, rows=50, nbytes=50)
    assert taken(queue) == [item]


def test_a_refusal_says_when_to_come_back_from_the_measured_rate() -> None:
    """Ten rows waiting at 20 ms each are 0.2 s; before anything was measured it says nothing."""
    queue = make(max_queue_rows=10)
    put(queue, rows=10)
    with pytest.raises(Overloaded) as unknown:
        put(queue)
    assert unknown.value.retry_after_s is None
    queue.served(5, 0.1)
    with pytest.raises(Overloaded) as known:
        put(queue)
    assert known.value.retry_after_s == pytest.approx(0.2)


# -- everything at once ------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), st.integers(1, 5), st.sampled_from("ab"), st.integers(1, 3),
            st.sampled_from("xy"), st.none() | st.floats(0.0, 2.0),
        ),
        st.tuples(st.just("remove"), st.integers(0, 50)),
        st.tuples(st.just("take"), st.floats(0.0, 0.5)),
    ),
    max_size=60,
)  # fmt: skip

OPTIONS = st.fixed_dictionaries(
    {
        "max_delay_s": st.sampled_from([0.0, 0.3]),
        "max_batch_rows": st.integers(1, 8),
        "preferred_rows": st.sampled_from([(), (2, 4)]),
        "max_queue_age_s": st.none() | st.just(1e9),
    }
)


@given(OPTIONS, STEPS)
def test_every_item_leaves_exactly_once_and_sums_stay_right(
    options: dict[str, Any], steps: list[tuple[Any, ...]]
) -> None:
    """Over random arrivals, removals, expiries and takes nothing is lost, doubled, mixed or oversized."""
    queue = make(priority_levels=3, **options)
    now_s, waiting = 0.0, dict[int, QueueItem]()
    for number, step in enumerate(steps):
        if step[0] == "put":
            _, rows, group, level, flow, patience_s = step
            deadline_s = None if patience_s is None else now_s + patience_s
            waiting[number] = put(
                queue, now_s, rows, group=group, level=level, flow=flow, deadline_s=deadline_s, nbytes=rows
            )
        elif step[0] == "remove":
            item = waiting.pop(step[1], None)
            assert item is None or (queue.remove(item) and not queue.remove(item))
        else:
            now_s += step[1]
            expired = queue.expire(now_s)
            due = [
                n for n, item in waiting.items() if item.deadline_s is not None and item.deadline_s <= now_s
            ]
            assert {id(item) for item in expired} == {id(waiting.pop(n)) for n in due}
            formed = queue.take(now_s)
            if formed is None:
                oldest_s = min((item.enqueued_s for item in waiting.values()), default=now_s)
                assert not waiting or now_s < oldest_s + options["max_delay_s"]
                assert (
                    not waiting or now_s < (queue.next_event_s() or 0.0) <= oldest_s + options["max_delay_s"]
                )
                continue
            assert len({item.group for item in formed.items}) == 1
            assert formed.rows == sum(item.rows for item in formed.items)
            assert formed.rows <= options["max_batch_rows"] or len(formed.items) == 1
            numbers = {id(item): n for n, item in waiting.items()}
            for item in formed.items:
                del waiting[numbers.pop(id(item))]
        assert queue.requests == len(waiting)
        assert queue.rows == queue.nbytes == sum(item.rows for item in waiting.values())
    assert {id(item) for item in queue.drain()} == {id(item) for item in waiting.values()}
    assert (queue.rows, queue.requests, queue.nbytes, queue.next_event_s()) == (0, 0, 0, None)
