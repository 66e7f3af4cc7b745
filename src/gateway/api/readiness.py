"""The seam through which health streams hear that readiness may have changed, and its one source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.types import VersionStatus


class ReadinessFeed(Protocol):
    """Says when to look at readiness again.

    Attributes:
        draining: the server is going: nothing is serving, whatever the models' states.
        closed: streams must end now: those that watch at once, those that infer when all is answered.
    """

    @property
    def draining(self) -> bool:
        """Whether the server has begun to shut down."""

    @property
    def closed(self) -> bool:
        """Whether streams must end."""

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Run `callback` after every change, on the event loop; return what ends the subscription."""


class ReadinessNotifier:
    """Tells its subscribers of every change. Event loop only; also a `LifecycleObserver`.

    Invariant: a callback is run once per change while it is subscribed. Holds one entry per subscription.
    """

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._draining = False
        self._closed = False

    @property
    def draining(self) -> bool:
        """Whether `begin_drain` was called."""
        return self._draining

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Subscribe, as `ReadinessFeed.subscribe`; ending a subscription twice is harmless."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def notify(self) -> None:
        """Tell every subscriber to look again."""
        for callback in tuple(self._callbacks.values()):
            callback()

    def begin_drain(self) -> None:
        """Report everything as not serving from now on; watching streams stay, to see it."""
        self._draining = True
        self.notify()

    def close(self) -> None:
        """End streams that only wait, so that they don't hold up the transport's grace period."""
        self._draining = self._closed = True
        self.notify()

    def on_transition(self, status: VersionStatus) -> None:  # noqa: ARG002 - subscribers look for themselves
        """Tell every subscriber that some version changed its state."""
        self.notify()

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Ignore: the transition to READY has been told."""
