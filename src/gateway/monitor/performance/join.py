"""Joins labels with predictions, whichever came first. To join the same twice changes nothing."""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.answers import label_value
from gateway.monitor.performance.block import hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.labels.label import Label
    from gateway.monitor.labels.waiting import Waiting
    from gateway.monitor.performance.block import Block


class Outcome(enum.Enum):
    """What became of a label."""

    JOINED = "joined"
    REVISED = "revised"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    STALE = "stale"
    CLASS = "class"
    WAITING = "waiting"
    ABSENT = "absent"
    """No prediction has its key."""
    ERASED = "erased"
    """Nor will one have: its subject was erased."""


_RANK: Final = tuple(Outcome)
LATE_ROWS_S: Final = 600.0
"""A shadow's row may arrive so much after the row that it mirrors."""


def join(blocks: Sequence[Block], labels: Sequence[Label], now_s: float) -> list[tuple[Outcome, bool]]:
    """Give each label to every prediction of its key and row: each arm's and each version's.

    Args:
        blocks: of the labels' model.
        labels: checked.
        now_s: wall clock, the time of labels that state none.

    Returns:
        Of each label what became of it, and whether its prediction is so new that another of the same key, a
        shadow's, may be under way.
    """
    wanted = hashes([label.id for label in labels], np.array([label.row for label in labels], np.uint32))
    ascending = np.argsort(wanted, kind="stable")
    found: list[list[tuple[Block, int]]] = [[] for _ in labels]
    for block in blocks:
        for place, at in block.find(wanted[ascending]):
            index = int(ascending[place])
            label = labels[index]
            if block.keys[at] == label.id and block.rows["row"][at] == label.row:
                found[index].append((block, at))
    return [
        (
            min((give(*place, label, now_s) for place in places), key=_RANK.index, default=Outcome.ABSENT),
            any(block.rows["at_ns"][at] > (now_s - LATE_ROWS_S) * 1e9 for block, at in places),
        )
        for label, places in zip(labels, found, strict=True)
    ]


def join_waiting(waiting: Waiting, block: Block, begin: int, end: int) -> Counter[str]:
    """Give rows that have just been kept the labels that came before them; count what became of those."""
    model, counts = block.key.model, Counter[str]()
    if not waiting.has(model):
        return counts
    rows = block.rows["row"][begin:end].tolist()
    for at, row in enumerate(rows, begin):
        entry = waiting.find(model, block.keys[at], row)
        if entry is not None:
            outcome = give(block, at, entry.label, entry.since_s)
            counts[f"waited_{outcome.value}"] += 1
            waiting.matched(model, entry)
    return counts


def give(block: Block, at: int, label: Label, now_s: float) -> Outcome:
    """Give one prediction its label."""
    value = label_value(block.task, label.value)
    if value is None:
        return Outcome.CLASS
    held = block.labels[at]
    if held["weight"] > 0:
        if label.revision < held["revision"]:
            return Outcome.STALE
        if label.revision == held["revision"]:
            same = value == held["value"] and np.float32(label.weight) == held["weight"]
            return Outcome.DUPLICATE if same else Outcome.CONFLICT
    outcome = Outcome.REVISED if held["weight"] > 0 else Outcome.JOINED
    at_ns = label.at_ns or int(now_s * 1e9)
    block.labels[at] = (value, label.revision, at_ns, max(label.weight, 1e-6))
    block.changed()
    return outcome
