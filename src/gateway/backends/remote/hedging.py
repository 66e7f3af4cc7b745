"""When a slow request gets a second attempt beside its first, and how many may have one."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.remote import HedgingOptions

KEPT: Final = 512
"""Latest times of a key that are looked at."""
LEAST: Final = 64
"""With fewer nothing is known of what is slow."""
_EVERY: Final = 32
MAX_KEYS: Final = 1024
"""Keys whose times are kept; the one not used for the longest goes first."""
MAX_SAVED: Final = 10.0
"""Hedges that may be saved up: more would be sent in one burst, when everything is slow at once."""


class _Times:
    """The latest times of one key and their quantile, computed every so often."""

    __slots__ = ("_new", "_quantile", "_times", "_value")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._times: deque[float] = deque(maxlen=KEPT)
        self._new = 0
        self._value: float | None = None

    def note(self, seconds: float) -> None:
        self._times.append(seconds)
        self._new += 1

    def quantile(self) -> float | None:
        if len(self._times) < LEAST:
            return None
        if self._value is None or self._new >= _EVERY:
            ordered = sorted(self._times)
            self._value = ordered[min(len(ordered) - 1, int(self._quantile * len(ordered)))]
            self._new = 0
        return self._value


class Hedging:
    """Says after how long to hedge, from what requests of the same key took lately.

    Bound: over its life it allows at most `max_share` times the requests.
    """

    def __init__(self, options: HedgingOptions) -> None:
        self._options = options
        self._keys: OrderedDict[str, _Times] = OrderedDict()
        self._saved = 0.0

    @property
    def tokens(self) -> float:
        """Hedges allowed now."""
        return self._saved

    def request(self) -> None:
        """A request was begun."""
        self._saved = min(MAX_SAVED, self._saved + self._options.max_share)

    def note(self, key: str, seconds: float) -> None:
        """Take note of how long a request took."""
        if not self._options.enabled:
            return
        times = self._keys.get(key)
        if times is None:
            times = self._keys[key] = _Times(self._options.quantile)
            if len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(key)
        times.note(seconds)

    def after_s(self, key: str) -> float | None:
        """Return how long a first attempt may take alone; None: hedging is off, or too little is known."""
        times = self._keys.get(key) if self._options.enabled else None
        usual_s = None if times is None else times.quantile()
        return None if usual_s is None else max(self._options.min_delay_s, usual_s)

    def take(self) -> bool:
        """Return whether a request may be hedged, counting it if so."""
        if self._saved < 1.0 - 1e-9:
            return False
        self._saved = max(0.0, self._saved - 1.0)
        return True
