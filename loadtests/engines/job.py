"""What a generator is asked to do, and the seam it does it behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from loadtests.peers.base import WireRequest
    from loadtests.scenario import Payload
    from loadtests.tally import Tally


class EngineFailed(Exception):
    """A generator is absent or gave no figures; the message says what to do, or what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a generator.

    Attributes:
        protocol: wire format.
        address: host and port.
        requests: one for each distinct tensor, without ids; the first alone where the payload is fixed.
        payload: what else differs from request to request.
        arrival: closed loop or schedule, its rate resolved.
        seconds: how long.
        core: of this machine, to stay on.
        folder: for request files and logs.
        answer_bytes: size of a good answer to the first request.
    """

    protocol: str
    address: tuple[str, int]
    requests: Sequence[WireRequest]
    payload: Payload
    arrival: Any
    seconds: float
    core: int
    folder: Path
    answer_bytes: int

    @property
    def url(self) -> str:
        """Where the requests go."""
        return f"http://{self.address[0]}:{self.address[1]}{self.requests[0].path}"


class Engine(Protocol):
    """A generator."""

    def __call__(self, job: Job) -> AbstractContextManager[Callable[[], Tally]]:
        """Start it; what is lent waits for its end and returns what it counted.

        It is gone after the block, finished or not.

        Raises:
            EngineFailed: it cannot be started; or, when waited for, it gave no figures.
        """
        ...
