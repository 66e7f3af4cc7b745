"""How a request of the replay ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

_REJECTED_GRPC: Final = (8, 14)  # RESOURCE_EXHAUSTED, UNAVAILABLE
_REJECTED_HTTP: Final = (429, 503)


class End(IntEnum):
    """See tally.Tally."""

    GOOD = 0
    REJECTED = 1
    EXPIRED = 2
    FAILED = 3


def of_grpc_status(status: int) -> End:
    """Return how a call with this status ended."""
    if status == 0:
        return End.GOOD
    if status in _REJECTED_GRPC:
        return End.REJECTED
    return End.EXPIRED if status == 4 else End.FAILED


def of_http_status(status: int) -> End:
    """Return how a request with this status ended."""
    if status == 200:
        return End.GOOD
    if status in _REJECTED_HTTP:
        return End.REJECTED
    return End.EXPIRED if status == 504 else End.FAILED


@dataclass(slots=True)
class Answers:
    """What connections have received and the loop has not looked at yet, and what is kept for the end.

    Attributes:
        ended: request number and how it ended.
        samples: request number -> headers and body of some good answers.
        problems: what went wrong, and how often.
    """

    ended: list[tuple[int, End]] = field(default_factory=list)
    samples: dict[int, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    _next_sample: int = 0

    def wants(self, number: int) -> bool:
        """Return whether the answer to a request is to be kept: early ones more often, some to the end."""
        if number < self._next_sample:
            return False
        self._next_sample = number + 1 + number // 5
        return True
