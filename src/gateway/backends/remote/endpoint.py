"""One endpoint as the policy knows it: its state, its load, and what attempts and probes met there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.backends.remote.balancing import MIN_GOOD, GoodShare
from gateway.backends.remote.concurrency import ConcurrencyLimit
from gateway.backends.remote.outliers import Record
from gateway.backends.remote.slow_start import slow_start_weight
from gateway.backends.remote.usual_time import UsualTime
from gateway.core.remote import EndpointState, EndpointView

if TYPE_CHECKING:
    from gateway.core.remote import Address, FleetOptions

_EXACT_S: Final = 1e-9
_ANSWERED_LATELY: Final = 0.25
"""An answer within this share of a probe's time limit outweighs one probe that failed."""
_BACK_AT: Final = 0.5
"""Share of good answers that an endpoint which is back is thought to have at least."""


class Endpoint:
    """One endpoint.

    Attributes:
        address: where.
        state: whether it is given requests; changed by the policy alone.
        reason: why, for anything but HEALTHY.
        inflight: attempts under way.
        ready: its last probe was good, or it has not had one.
        ejections: how often it was ejected.
        since_s: monotonic time since which it is in use, or that it was found at.
        changed_s: monotonic time at which it came into this state.
        until_s: monotonic time at which its ejection ends, or its circuit closes; None: no such time.
        record: what attempts met there.
        limit: of attempts under way.
        usual: how long its good answers take.
        good: share of good answers lately.
    """

    __slots__ = (
        "_answered_s", "_options", "address", "changed_s", "ejections", "good", "inflight", "limit",
        "ready", "reason", "record", "since_s", "state", "until_s", "usual",
    )  # fmt: skip

    def __init__(self, address: Address, options: FleetOptions, now_s: float) -> None:
        self._options = options
        self.since_s = now_s
        self.changed_s = now_s
        self._answered_s: float | None = None
        self.address = address
        self.state = EndpointState.CONNECTING
        self.reason = ""
        self.inflight = 0
        self.ready = True
        self.ejections = 0
        self.until_s: float | None = None
        self.record = Record()
        self.limit = ConcurrencyLimit(options.concurrency, now_s)
        self.usual = UsualTime()
        self.good = GoodShare()

    @property
    def has_room(self) -> bool:
        """Whether one more attempt may be under way."""
        return self.inflight < self.limit.limit

    def weight(self, now_s: float) -> float:
        """Return the share, in (0, 1], of the usual load that it should have."""
        good = self.good.share(now_s)
        started = slow_start_weight(self.since_s, now_s, self._options.slow_start_s)
        return started * max(MIN_GOOD, good * good)

    def used_since(self, now_s: float) -> None:
        """It is new or back from an ejection: its share begins small."""
        self.since_s = now_s
        self.limit.restart()
        self.good.forgive(_BACK_AT, now_s)

    def is_recent(self, seconds: float, now_s: float) -> bool:
        """Whether an attempt that ends now after `seconds` began since the endpoint came into use.

        What was under way when it was ejected says nothing about how it is now that it is back.
        """
        return now_s - seconds >= self.since_s - _EXACT_S

    def answered(self, seconds: float, now_s: float) -> None:
        """An attempt was answered."""
        self._answered_s = now_s
        self.usual.note(seconds)
        self.good.note(True, now_s)
        self.limit.answered(now_s)
        if self.is_recent(seconds, now_s):
            self.record.good()

    def outweighs_probe(self, now_s: float) -> bool:
        """Whether good answers say more than the probe that just failed: the first, and answers go on."""
        return (
            self.ready
            and self.state is not EndpointState.CONNECTING
            and self.record.in_row == 0
            and self._answered_s is not None
            and now_s - self._answered_s < _ANSWERED_LATELY * self._options.probe_timeout_s
        )

    def view(self) -> EndpointView:
        """Return it as it is now."""
        return EndpointView(
            address=self.address,
            state=self.state,
            reason=self.reason,
            inflight=self.inflight,
            limit=self.limit.limit,
            ejections=self.ejections,
            since_s=self.changed_s,
            until_s=self.until_s if self.state is EndpointState.EJECTED else None,
        )
