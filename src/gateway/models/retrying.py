"""When a version whose load failed for a reason that may pass is tried again."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendUnavailable, Unavailable
from gateway.core.registry import RegistryError
from gateway.core.remote import FleetUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.core.clock import Clock, Timer
    from gateway.core.types import VersionId

RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 60.0, 60.0, 60.0)
"""Five minutes in all: longer than a device takes to be freed or a mount to come back."""
REGISTRY_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
"""What a registry or a fleet is in the way of is tried for ever, the last pause again and again."""

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
    for cause in _chain(error):
        if isinstance(cause, RegistryError):
            return BackendUnavailable(str(cause)) if cause.may_pass else None
        if isinstance(cause, (BackendUnavailable, Unavailable, MemoryError)):
            return BackendUnavailable(str(cause))
        if isinstance(cause, OSError):
            return OSError(cause.errno, cause.strerror)
    return None


def may_pass(error: BaseException) -> bool:
    """Whether the same files may load later: `error`, or one it was raised from, is no fault of content.

    A registry's error knows that itself.
    """
    for cause in _chain(error):
        if isinstance(cause, RegistryError):
            return cause.may_pass
        if isinstance(cause, (BackendUnavailable, Unavailable, MemoryError)):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
    return False


def _is_elsewhere(error: BaseException) -> bool:
    """Whether a registry or a fleet is in the way."""
    return isinstance(error, RegistryError) or any(isinstance(c, FleetUnavailable) for c in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class Retries:
    """The timers of failed versions, each with growing pauses. Event loop only.

    There is a last attempt, save for what only a registry or a fleet is in the way of: those are made as long
    as the version is wanted. Holds one entry per version planned and not forgotten.

    Args:
        clock: runs the timers.
        pauses_s: seconds before the first, second, ... further attempt; none are made beyond the last.
        again: called with the version when its pause is over.
        registry_pauses_s: the same for an error of a registry, or a fleet, that may pass; the last is that of
            every attempt beyond.
        jitter: gives numbers in [0, 1); a registry's pauses are made up to a quarter shorter or longer by
            them, so that many gateways do not come back to it at once.
    """

    def __init__(
        self,
        clock: Clock,
        pauses_s: Sequence[float],
        again: Callable[[VersionId], None],
        *,
        registry_pauses_s: Sequence[float] = REGISTRY_PAUSES_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._pauses_s = tuple(pauses_s)
        self._registry_pauses_s = tuple(registry_pauses_s)
        self._jitter = jitter
        self._again = again
        self._attempts: dict[VersionId, tuple[bool, int]] = {}
        self._timers: dict[VersionId, Timer] = {}

    def plan(self, version: VersionId, error: BaseException) -> float | None:
        """Plan the next attempt after `error`; return the seconds until then, None when there is none."""
        of_registry = _is_elsewhere(error)
        kind, count = self._attempts.get(version, (of_registry, 0))
        # What a registry was in the way of does not use up the attempts at what comes after it.
        made = count if kind == of_registry else 0
        pause_s = self._pause_s(made, error)
        if pause_s is None:
            return None
        self._attempts[version] = of_registry, made + 1
        self._timers[version] = self._clock.call_at(self._clock.now_s() + pause_s, lambda: self._due(version))
        return pause_s

    def forget(self, version: VersionId) -> None:
        """Call off what is planned and start counting anew; harmless for a version not known."""
        self._attempts.pop(version, None)
        timer = self._timers.pop(version, None)
        if timer is not None:
            timer.cancel()

    def _pause_s(self, made: int, error: BaseException) -> float | None:
        if not may_pass(error):
            return None
        if _is_elsewhere(error) and self._registry_pauses_s:
            pause_s = self._registry_pauses_s[min(made, len(self._registry_pauses_s) - 1)]
            return pause_s * (0.75 + 0.5 * self._jitter())
        return self._pauses_s[made] if made < len(self._pauses_s) else None

    def _due(self, version: VersionId) -> None:
        del self._timers[version]
        self._again(version)
