"""When a version whose load failed for a reason that may pass is tried again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.clock import Clock, Timer
    from gateway.core.types import VersionId

RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 60.0, 60.0, 60.0)
"""Five minutes in all: longer than a device takes to be freed or a mount to come back."""

_PASSING: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def outer_cause(error: BaseException) -> Exception | None:
    """Return what outside the files `error`, or one it was raised from, was met by; None if nothing was.

    It is made anew, a BackendUnavailable or an OSError without paths and traceback, so that it may be kept.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (BackendUnavailable, Unavailable, MemoryError)):
            return BackendUnavailable(str(cause))
        if isinstance(cause, OSError):
            return OSError(cause.errno, cause.strerror)
        cause = cause.__cause__
    return None


def may_pass(error: BaseException) -> bool:
    """Whether the same files may load later: `error`, or one it was raised from, is no fault of content."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (BackendUnavailable, Unavailable, MemoryError)):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        cause = cause.__cause__
    return False


class Retries:
    """The timers of failed versions, each with growing pauses and a last attempt. Event loop only.

    Holds one entry per version planned and not forgotten.

    Args:
        clock: runs the timers.
        pauses_s: seconds before the first, second, ... further attempt; none are made beyond the last.
        again: called with the version when its pause is over.
    """

    def __init__(self, clock: Clock, pauses_s: Sequence[float], again: Callable[[VersionId], None]) -> None:
        self._clock = clock
        self._pauses_s = tuple(pauses_s)
        self._again = again
        self._attempts: dict[VersionId, int] = {}
        self._timers: dict[VersionId, Timer] = {}

    def plan(self, version: VersionId, error: BaseException) -> float | None:
        """Plan the next attempt after `error`; return the seconds until then, None when there is none."""
        made = self._attempts.get(version, 0)
        if made >= len(self._pauses_s) or not may_pass(error):
            return None
        pause_s = self._pauses_s[made]
        self._attempts[version] = made + 1
        self._timers[version] = self._clock.call_at(self._clock.now_s() + pause_s, lambda: self._due(version))
        return pause_s

    def forget(self, version: VersionId) -> None:
        """Call off what is planned and start counting anew; harmless for a version not known."""
        self._attempts.pop(version, None)
        timer = self._timers.pop(version, None)
        if timer is not None:
            timer.cancel()

    def _due(self, version: VersionId) -> None:
        del self._timers[version]
        self._again(version)
