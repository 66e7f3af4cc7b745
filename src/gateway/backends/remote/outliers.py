"""When an endpoint is taken out for what attempts met there, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.remote import EjectionOptions

_OUTLIER: Final = 2.0
_CHANCE: Final = 1e-6
OPEN_S: Final = 0.25
MAX_OPEN_S: Final = 5.0


class Record:
    """What attempts met at one endpoint.

    Attributes:
        in_row: failures since the last good answer.
        refused_in_row: refusals since the last good answer.
        attempts: in this interval.
        failures: in this interval.
        before: attempts and failures of the interval before.
        ejections: how many ejections count for the length of the next; calm intervals take one off each.
        opened: how often its circuit was opened since the last good answer.
    """

    __slots__ = ("attempts", "before", "ejections", "failures", "in_row", "opened", "refused_in_row")

    def __init__(self) -> None:
        self.in_row = self.refused_in_row = 0
        self.attempts = self.failures = 0
        self.before = (0, 0)
        self.ejections = self.opened = 0

    def good(self) -> None:
        """An attempt was answered."""
        self.in_row = self.refused_in_row = self.opened = 0
        self.attempts += 1

    def failed(self) -> None:
        """An attempt failed."""
        self.in_row += 1
        self.attempts += 1
        self.failures += 1

    def refused(self) -> None:
        """An attempt was refused."""
        self.refused_in_row += 1

    def on_probation(self, consecutive: int) -> None:
        """It is back in use: a first failure is one too many, a first good answer clears it."""
        self.in_row = consecutive - 1
        self.attempts = self.failures = 0
        self.before = (0, 0)

    def half_open(self, consecutive: int) -> None:
        """Its circuit closes: a first refusal opens it again."""
        self.refused_in_row = consecutive - 1

    def end_interval(self, calm: bool) -> None:
        """Begin to count anew."""
        if calm and self.ejections:
            self.ejections -= 1
        self.before = (self.attempts, self.failures)
        self.attempts = self.failures = 0

    @property
    def recent(self) -> tuple[int, int]:
        """Attempts and failures of this interval and the one before."""
        return self.attempts + self.before[0], self.failures + self.before[1]


def is_outlier(options: EjectionOptions, record: Record, attempts: int, failures: int) -> bool:
    """Return whether an endpoint failed so much more than the others that it is better left out.

    Its share must be at least `failure_share`, and twice that of the others: what fails everywhere alike
    is the requests' fault or that of something behind all endpoints, and leaving one out would not mend it.

    Args:
        options: thresholds.
        record: of the endpoint in this interval.
        attempts: of the whole fleet in this interval.
        failures: of the whole fleet in this interval.
    """
    if record.attempts < max(1, options.min_volume):
        return False
    share = record.failures / record.attempts
    others = attempts - record.attempts
    others_share = (failures - record.failures) / others if others else 0.0
    return share >= options.failure_share and share >= _OUTLIER * others_share


def stands_out(record: Record, others: Iterable[Record]) -> bool:
    """Return whether so many failures in a row would be no chance if the endpoint were like the others.

    If attempts at the others failed lately with share p, then p to the power of the row's length is how
    likely such a row is. Where the others are well, any row is too long; a bad canary with half of the
    requests makes rows of five all the time, by no fault of an endpoint.
    """
    attempts = failures = 0
    for other in others:
        more_attempts, more_failures = other.recent
        attempts += more_attempts
        failures += more_failures
    return not attempts or (failures / attempts) ** record.in_row <= _CHANCE


def most_ejected(options: EjectionOptions, endpoints: int) -> int:
    """Return how many of the endpoints may be ejected at once: one of several in any case, never the only."""
    if endpoints < 2:
        return 0
    return max(1, int(options.max_share * endpoints))


def is_panic(options: EjectionOptions, in_use: int, endpoints: int) -> bool:
    """Return whether so few are left that those ejected are used, too."""
    return in_use < options.panic_share * endpoints


def ejection_s(options: EjectionOptions, ejections: int, random: Callable[[], float]) -> float:
    """Return how long the ejection with this number, from 1, lasts."""
    longest_s = min(options.max_s, options.base_s * max(1, ejections))
    return longest_s * (1.0 + options.jitter_share * random())


def open_s(options: EjectionOptions, opened: int, random: Callable[[], float]) -> float:
    """Return how long a circuit that opens for the time with this number, from 1, stays open.

    0.25 s, doubled each time until 5 s: an endpoint that is full says so at once, trying costs it little.
    """
    longest_s = min(MAX_OPEN_S, OPEN_S * 2.0 ** min(opened - 1, 30))
    return longest_s * (1.0 + options.jitter_share * random())
