"""What a fleet needs of a connection to one endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QueueReport:
    """What an endpoint says of the requests that it finished since it was last asked.

    Attributes:
        wait_s: seconds that one of them waited there for its run, on average.
        compute_s: seconds that its run took, on average.
        count: how many there were; with none the averages say nothing.
    """

    wait_s: float
    compute_s: float
    count: int


class Connection(Protocol):
    """One endpoint, spoken to; connects when first used and again whenever it was lost."""

    async def ready(self, timeout_s: float) -> None:
        """Ask whether the endpoint takes requests; cancelling calls the question off.

        Raises:
            AttemptError: it does not, or has not answered in time.
        """

    async def queue_report(self) -> QueueReport | None:
        """Ask how long requests waited there since the last report; None when it cannot tell.

        Raises:
            AttemptError: it could not be asked.
        """

    async def aclose(self) -> None:
        """Close; what is under way fails with AttemptError. Called once."""
