"""How long a version has been in each state on its way to READY, and what its steps are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.errors import GatewayError
from gateway.core.registry import RegistryError
from gateway.core.types import StepTiming, VersionState
from gateway.models.lifecycle import STARTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.models.records import VersionRecord

STEP_NAMES: Final[Mapping[VersionState, str]] = {
    VersionState.FETCHING: "fetch",
    VersionState.VERIFYING: "verify",
    VersionState.LOADING: "load",
    VersionState.CHECKING: "check",
    VersionState.WARMING: "warm-up",
    VersionState.TESTING: "golden test",
}
"""What a failure in each state is said to be a failure of."""


class StepLog:
    """The states of one version until READY or its end, each with its beginning and duration.

    Args:
        wall_s: wall-clock seconds since the epoch.
        now_s: monotonic seconds, for durations.
    """

    __slots__ = ("_began", "_done", "_now_s", "_wall_s")

    def __init__(self, wall_s: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._now_s = now_s
        self._done: list[StepTiming] = []
        self._began: tuple[VersionState, float, float] | None = None

    def enter(self, state: VersionState) -> float:
        """Take note that `state` begins; return the wall-clock seconds."""
        self.end()
        wall_s = self._wall_s()
        if state in STARTING:
            self._began = (state, wall_s, self._now_s())
        return wall_s

    def end(self) -> None:
        """Stop the clock of the state it is in: from here on the version waits."""
        if self._began is not None:
            self._done.append(self._timing(*self._began))
            self._began = None

    def timings(self) -> tuple[StepTiming, ...]:
        """Return every state so far, in order; the one it is in up to now."""
        return (*self._done, *(self._timing(*began) for began in (self._began,) if began))

    def _timing(self, state: VersionState, wall_s: float, began_s: float) -> StepTiming:
        return StepTiming(state=state, began_s=wall_s, seconds=self._now_s() - began_s)


def failure_reason(record: VersionRecord, error: Exception) -> str:
    """Return what people are told of the failure of a step; of a registry's version it begins with the step.

    A golden test is named for any version; what a registry or a source says of itself is left as it is.
    """
    if isinstance(error, GatewayError):
        reason = str(error)
    else:
        reason = f"unexpected {type(error).__name__} while loading"
    step = STEP_NAMES.get(record.state, "")
    told = isinstance(error, RegistryError) or bool(record.problem) or not step
    if told or not (record.of_registry or record.state is VersionState.TESTING):
        return reason
    return f"{step}: {reason}"
