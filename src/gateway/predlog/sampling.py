"""Which rows are kept, and how many each of them stands for.

A request is kept when the hash of its join key is below p * 2**64: then the request, its shadow's copy and
its label agree, and a smaller p keeps a part of what a larger one keeps. A row that is kept with probability
p weighs 1/p; what is always kept weighs 1 (Horvitz and Thompson 1952), so that weighted sums are unbiased.

Beyond `max_rows_per_s`, p is halved, and doubled again when there is room, at most once a second: within a
second it is one figure, and weights follow it. What is always kept has the same limit and the same remedy of
its own: a storm of errors is sampled as well, by its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import Cancelled
from gateway.predlog.join_keys import MAX_KEY_BYTES, REQUEST_ID, Source, arms_of, key_hashes, subject_hash
from gateway.predlog.rows import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from gateway.core.errors import GatewayError
    from gateway.core.types import Array, InferRequest

CANARY: Final = "canary"
"""The arm whose rows are always kept."""

MAX_HALVINGS: Final = 20
"""Below a millionth of the declared ratio p does not fall."""

LEAST_PROBABILITY: Final = 2.0**-40
"""Less counts as none: nobody sees so many rows."""

_HASHES: Final = 1 << 64
_ROOM: Final = 0.4
"""Share of the limit below which p is doubled: twice as much is still well below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How one model's rows are sampled and named.

    Attributes:
        ratio: share of the keys that is kept, 0 to 1.
        max_rows_per_s: limit of the rows kept, and of those always kept, each; 0: none.
        key: where the join key is.
        subject: where it says whom a row is about; None: nobody knows.
        pinned: a request that has this is always kept; None: none is.
        keep_errors: whether rows of failed requests are always kept.
        keep_canary: likewise those of the arm `canary`.
        secret: of the subjects' hash, 1 to 64 bytes; only needed with `subject`.
    """

    ratio: float = 1.0
    max_rows_per_s: int = 0
    key: Source = REQUEST_ID
    subject: Source | None = None
    pinned: Source | None = None
    keep_errors: bool = True
    keep_canary: bool = True
    secret: bytes = b""


class Budget:
    """One probability that follows a limit of rows per second.

    Args:
        ratio: the largest probability.
        max_rows_per_s: 0: no limit.
    """

    def __init__(self, ratio: float, max_rows_per_s: int) -> None:
        self._ratio = ratio
        self._most = max_rows_per_s
        self._halvings = 0
        self._second = 0
        self._rows = 0
        self._hint = 1.0
        self._set()

    def _set(self) -> None:
        probability = min(self._ratio, self._hint) / (1 << self._halvings)
        self.probability = probability if probability > LEAST_PROBABILITY else 0.0
        # One below: hashes are compared as 64-bit numbers, and all of them are kept at a probability of 1.
        self._most_hash = np.uint64(max(0, int(self.probability * _HASHES) - 1))
        self.weight = 1 / self.probability if self.probability > 0 else 1.0

    def takes(self, hashes: Array) -> npt.NDArray[np.bool_]:
        """Return which hashes are kept."""
        if self.probability <= 0:
            return np.zeros(len(hashes), np.bool_)
        return np.asarray(hashes <= self._most_hash, np.bool_)

    def hint(self, ratio: float) -> None:
        """Keep no more than this share from the next second on; 1 says nothing."""
        self._hint = ratio

    def turn(self, now_s: float) -> None:
        """Decide on the probability of the second that it is, if that is another one."""
        second = int(now_s)
        if second != self._second:
            self._next(max(1, second - self._second))
            self._second = second

    def spend(self, rows: int) -> None:
        """Count rows kept."""
        self._rows += rows

    def _next(self, seconds: int) -> None:
        rate, self._rows = self._rows / seconds, 0
        while self._most and rate > self._most and self._halvings < MAX_HALVINGS:
            self._halvings += 1
            rate /= 2
        if self._halvings and rate < _ROOM * self._most:
            self._halvings -= 1
        self._set()


class Offered:
    """The requests of one entry; one element of each list per request.

    Attributes:
        requests: as they were sent; none where keys and arms are known, and nothing else is asked for.
        rows: of each.
        errors: why each failed, or None; None in place of the list where none did.
        first_rows: of each within its request; None in place of the list where all are 0.
        keys: join keys, where they are known.
        arms: likewise.
    """

    __slots__ = ("arms", "errors", "first_rows", "keys", "requests", "rows")

    def __init__(
        self,
        requests: list[InferRequest],
        rows: list[int],
        errors: Sequence[GatewayError | None] | None = None,
        first_rows: list[int] | None = None,
    ) -> None:
        self.keys: list[bytes] | None = None
        self.arms: list[str] | None = None
        self.requests = requests
        self.rows = rows
        self.errors = errors
        self.first_rows = first_rows


class Picked:
    """The requests of one entry that are kept; one element of each list or array per request.

    Attributes:
        places: index within the requests offered; None: all are kept.
        keys: join keys, empty where a row cannot be joined.
        hashes: of the join keys; random without one; uint64.
        arms: names.
        reasons: values of Reason, uint8.
        weights: 1/p, float32.
        subjects: hashes, 0 where nobody is known; uint64.
        produced: arm -> rows offered.
        left_out: rows that were sampled away.
    """

    __slots__ = ("arms", "hashes", "keys", "left_out", "places", "produced", "reasons", "subjects", "weights")

    def __init__(self, keys: list[bytes], hashes: Array, arms: list[str]) -> None:
        self.places: list[int] | None = None
        self.keys = keys
        self.hashes = hashes
        self.arms = arms
        self.reasons: Array = np.zeros(len(keys), np.uint8)
        self.weights: Array = np.ones(len(keys), np.float32)
        self.subjects: Array = np.zeros(len(keys), np.uint64)
        self.produced: dict[str, int] = {}
        self.left_out = 0

    def choose(self, kept: npt.NDArray[np.bool_], rows: list[int]) -> None:
        """Leave only those that are kept; before subjects are known.

        Args:
            kept: whether each is.
            rows: of each.
        """
        places: list[int] = np.flatnonzero(kept).tolist()
        if len(places) == len(rows):
            return
        self.places = places
        self.left_out = sum(rows) - sum([rows[place] for place in places])
        self.keys = [self.keys[place] for place in places]
        self.arms = [self.arms[place] for place in places]
        self.hashes, self.reasons = self.hashes[kept], self.reasons[kept]
        self.weights, self.subjects = self.weights[kept], self.subjects[kept]


class Sampler:
    """Picks the rows of one model. One thread.

    Args:
        options: how.
        seed: of the hashes of requests without a key.
    """

    def __init__(self, options: SamplingOptions, seed: int = 0) -> None:
        self._options = options
        self._sampled = Budget(options.ratio, options.max_rows_per_s)
        self._forced = Budget(1.0, options.max_rows_per_s)
        self._random = partial(Random(seed).getrandbits, 64)  # noqa: S311 - spreads rows, keeps no secret

    def hint(self, ratio: float) -> None:
        """Keep no more than this share: what the reader can follow; 1 says nothing."""
        self._sampled.hint(ratio)

    def pick(self, offered: Offered, now_s: float, outliers: Sequence[bool] | None = None) -> Picked:
        """Decide about the requests of one entry.

        Args:
            offered: the requests.
            now_s: monotonic time of the entry.
            outliers: whether each holds a value that was declared unusual; None: none does.
        """
        requests, rows = offered.requests, offered.rows
        sampled, forced = self._sampled, self._forced
        sampled.turn(now_s)
        forced.turn(now_s)
        keys = offered.keys
        if keys is None:
            keys = self._options.key.values(requests)
        hashes = np.array(key_hashes(keys, self._random), np.uint64)
        picked = Picked(keys, hashes, arms_of(requests) if offered.arms is None else offered.arms)
        _count(picked.produced, picked.arms, rows)
        reasons = self._reasons(offered, picked, outliers)
        if reasons is None:
            picked.weights.fill(sampled.weight)
            picked.choose(sampled.takes(hashes), rows)
            sampled.spend(sum(rows) - picked.left_out)
        else:
            picked.reasons = np.array(reasons, np.uint8)
            must = picked.reasons > 0
            picked.weights = np.where(must, forced.weight, sampled.weight).astype(np.float32)
            kept = np.where(must, forced.takes(hashes), sampled.takes(hashes))
            counts = np.array(rows, np.int64)
            forced.spend(int(counts[kept & must].sum()))
            sampled.spend(int(counts[kept & ~must].sum()))
            picked.choose(kept, rows)
        if (subject := self._options.subject) is not None:
            found = requests if picked.places is None else [requests[place] for place in picked.places]
            picked.subjects = np.array([self._subject(subject, request) for request in found], np.uint64)
        if max(map(len, picked.keys), default=0) > MAX_KEY_BYTES:
            picked.keys = [key if len(key) <= MAX_KEY_BYTES else b"" for key in picked.keys]
        return picked

    def _reasons(self, offered: Offered, picked: Picked, outliers: Sequence[bool] | None) -> list[int] | None:
        """Return why each request would be kept; None: none has any other reason than being sampled."""
        options, errors = self._options, offered.errors
        canary = options.keep_canary and CANARY in picked.produced
        if not canary and errors is None and outliers is None and options.pinned is None:
            return None
        reasons: list[int] = [Reason.SAMPLED] * len(offered.rows)
        if outliers is not None:
            _mark(reasons, outliers, Reason.OUTLIER)
        if (pinned := options.pinned) is not None:
            _mark(reasons, map(pinned.value, offered.requests), Reason.PINNED)
        if canary:
            _mark(reasons, [arm == CANARY for arm in picked.arms], Reason.CANARY)
        if errors is not None and options.keep_errors:
            failed = [error is not None and not isinstance(error, Cancelled) for error in errors]
            _mark(reasons, failed, Reason.ERROR)
        return reasons

    def _subject(self, source: Source, request: InferRequest) -> int:
        value = source.value(request)
        return subject_hash(self._options.secret, value) if value else 0


def _mark(reasons: list[int], marks: Iterable[object], reason: Reason) -> None:
    for place, marked in enumerate(marks):
        if marked:
            reasons[place] = reason


def _count(produced: dict[str, int], arms: list[str], rows: list[int]) -> None:
    if arms.count(arms[0]) == len(arms):
        produced[arms[0]] = sum(rows)
        return
    for arm, count in zip(arms, rows, strict=True):
        produced[arm] = produced.get(arm, 0) + count
