"""All blocks of kept predictions: by stream, bounded by rows, searched by time and by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.block import Block, Selection
from gateway.monitor.values import ALL, StreamKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.performance.block import Extract
    from gateway.monitor.profile.reference import Task

MAX_STREAMS: Final = 64
"""Versions times arms of one model."""

_STRETCH_NS: Final = 3600 * 10**9
"""A block holds about an hour at most, so that retention and windows touch few of them."""


class Records:
    """Blocks by id, oldest first; of each stream the newest is open."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self.blocks: dict[int, Block] = {}
        self.rows = 0
        self._by_key: dict[StreamKey, dict[int, Block]] = {}
        self._next = 1

    def adopt(self, block: Block) -> None:
        """Take a block in that was read from the database."""
        self.blocks[block.id] = block
        self._by_key.setdefault(block.key, {})[block.id] = block
        self.rows += block.count
        self._next = max(self._next, block.id + 1)

    def append(self, key: StreamKey, task: Task, part: Extract) -> list[tuple[Block, int, int]]:
        """Keep rows; return where they lie: block, first row, end."""
        placed = []
        start = 0
        while start < len(part.keys):
            block = self._open(key, task, part, int(part.rows["at_ns"][start]))
            begin, end = block.append(part, start)
            placed.append((block, begin, end))
            start += end - begin
            self.rows += end - begin
        return placed

    def make_room(self, key: StreamKey) -> int:
        """Drop, of a model with too many streams, that longest without a new block; return its rows."""
        if key in self._by_key:
            return 0
        same = [other for other in self._by_key if other.model == key.model]
        if len(same) < MAX_STREAMS:
            return 0
        oldest = min(same, key=lambda other: next(reversed(self._by_key[other])))
        return sum(self._remove(block) for block in list(self._by_key[oldest].values()))

    def evict(self) -> int:
        """Drop the oldest blocks until the bound holds, the newest excepted; return how many rows."""
        gone = 0
        while self.rows > self._most_rows and len(self.blocks) > 1:
            gone += self._remove(next(iter(self.blocks.values())))
        return gone

    def expire(self, before_ns: int) -> int:
        """Drop rows from before; return how many."""
        gone = 0
        for block in list(self.blocks.values()):
            if block.high_ns < before_ns:
                gone += self._remove(block)
            elif block.low_ns < before_ns:
                gone += self._keep(block, block.rows["at_ns"][: block.count] >= before_ns)
        return gone

    def erase(self, subjects: frozenset[int]) -> tuple[int, set[tuple[str, bytes]]]:
        """Drop rows of these subjects; return how many, and the models and keys that they had."""
        wanted = np.array(sorted(subjects - {0}), np.uint64)
        gone, keys = 0, set()
        for block in list(self.blocks.values()):
            hit = np.isin(block.rows["subject"][: block.count], wanted)
            if hit.any():
                keys |= {(block.key.model, block.keys[i]) for i in np.flatnonzero(hit) if block.keys[i]}
                gone += self._keep(block, ~hit)
        return gone, keys

    def of_model(self, model: str) -> list[Block]:
        """Return a model's blocks, newest first."""
        return [block for block in reversed(self.blocks.values()) if block.key.model == model]

    def keys(self) -> list[StreamKey]:
        """Return the streams, in order."""
        return sorted(self._by_key)

    def segments(self, key: StreamKey) -> list[str]:
        """Return the segments that a stream's rows are in, in order."""
        found = {
            f"{column}={value}"
            for block in self._of(key)
            for column, values in zip(block.columns, block.values, strict=True)
            for value in values
        }
        return sorted(found)

    def generations(self, key: StreamKey, start_s: float, end_s: float) -> tuple[tuple[int, int], ...]:
        """Return what identifies the rows of a window: blocks and their generations."""
        blocks = self._between(key, int(start_s * 1e9), int(end_s * 1e9))
        return tuple((block.id, block.generation) for block in blocks)

    def select(self, key: StreamKey, start_ns: int, end_ns: int) -> Selection | None:
        """Return a stream's or segment's rows in [start, end), of the newest task; None without any."""
        blocks = self._between(key, start_ns, end_ns)
        if not blocks:
            return None
        task, width = blocks[-1].task, blocks[-1].rows["scores"].shape[1]
        same = [b for b in blocks if b.task == task and b.rows["scores"].shape[1] == width]
        chosen = [(block, block.mask(start_ns, end_ns, key.segment)) for block in same]
        chosen = [(block, mask) for block, mask in chosen if mask.any()]
        return _joined(task, chosen) if chosen else None

    def _open(self, key: StreamKey, task: Task, part: Extract, at_ns: int) -> Block:
        mine = self._by_key.setdefault(key, {})
        newest = next(reversed(mine.values()), None)
        if newest is not None and newest.fits(task, part) and abs(at_ns - newest.low_ns) < _STRETCH_NS:
            return newest
        block = Block.empty(self._next, key, task, part)
        if newest is not None and newest.columns == block.columns:
            # A stream's segments are bounded over all its blocks: the first that came, then `other`.
            block.values = [list(values) for values in newest.values]
        self._next += 1
        self.blocks[block.id] = mine[block.id] = block
        return block

    def _of(self, key: StreamKey) -> Sequence[Block]:
        return list(self._by_key.get(key._replace(segment=ALL), {}).values())

    def _between(self, key: StreamKey, start_ns: int, end_ns: int) -> list[Block]:
        return [b for b in self._of(key) if b.count and b.low_ns < end_ns and b.high_ns >= start_ns]

    def _keep(self, block: Block, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
        gone = block.keep(mask)
        self.rows -= gone
        if not block.count:
            self._remove(block)
        return gone

    def _remove(self, block: Block) -> int:
        del self.blocks[block.id]
        mine = self._by_key[block.key]
        del mine[block.id]
        if not mine:
            del self._by_key[block.key]
        self.rows -= block.count
        return block.count


def _joined(task: Task, chosen: list[tuple[Block, np.ndarray[tuple[int], np.dtype[np.bool_]]]]) -> Selection:
    rows = np.concatenate([
        block.rows[["at_ns", "subject", "row", "weight", "prediction", "scores"]][: block.count][mask]
        for block, mask in chosen
    ])  # fmt: skip
    labels = np.concatenate([block.labels[: block.count][mask] for block, mask in chosen])
    keys = [block.keys[i] for block, mask in chosen for i in np.flatnonzero(mask).tolist()]
    return Selection(task, rows, labels, keys, _columns(chosen))


def _columns(
    chosen: list[tuple[Block, np.ndarray[tuple[int], np.dtype[np.bool_]]]],
) -> dict[str, tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    found = {}
    for column in dict.fromkeys(name for block, _ in chosen for name in block.columns):
        names: dict[str, int] = {}
        codes = []
        for block, mask in chosen:
            if column not in block.columns:
                codes.append(np.full(int(mask.sum()), -1, np.int64))
                continue
            at = block.columns.index(column)
            table = [names.setdefault(value, len(names)) for value in block.values[at]]
            codes.append(np.array([*table, -1], np.int64)[block.rows["segments"][: block.count, at][mask]])
        found[column] = (list(names), np.concatenate(codes))
    return found
