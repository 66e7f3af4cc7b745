"""Fleets of remote model servers: what is known of their endpoints, and how their failures are kept small."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from gateway.core.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


REMOTE_BACKENDS: Final = frozenset({"triton"})
"""Backends whose models run, and take memory, in other servers."""


class Address(NamedTuple):
    """Where one endpoint listens; `str` gives `host:port`, as gRPC takes it."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Outcome(enum.Enum):
    """What an attempt says about the endpoint that it went to."""

    OK = "ok"
    """It answered, well or with an error that is the request's own fault."""
    REFUSED = "refused"
    """It is overloaded and said so (RESOURCE_EXHAUSTED, queue full): no harm, but try elsewhere."""
    FAILED = "failed"
    """It failed: connection lost or refused, internal error, wrong answer, no such version."""
    TIMED_OUT = "timed_out"
    """It did not answer within the time given; a request with a short deadline is no failure of it alone."""
    CANCELLED = "cancelled"
    """Nobody waited any more: the client went, or another attempt was faster. Says nothing."""


class EndpointState(enum.Enum):
    """Whether an endpoint is given requests."""

    CONNECTING = "connecting"
    """New, not probed yet."""
    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Out for a while, for what requests or probes met there; comes back by itself."""
    OPEN = "open"
    """Its circuit is open: it refused several times in a row, and is left alone for a moment."""
    DRAINING = "draining"
    """No longer among the endpoints; finishes what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClientOptions:
    """How endpoints are spoken to securely; paths are read when connecting.

    Attributes:
        ca: CA that signs the endpoints' certificates, PEM; None: the system's.
        certificate: our certificate chain, PEM, for mutual TLS.
        key: its private key.
        server_name: name expected in their certificates, where it is not the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionOptions:
    """Outlier ejection; after Envoy's and gRFC A50, with consecutive failures found at once.

    Attributes:
        consecutive: failures in a row that eject at once.
        interval_s: failure shares are looked at so often.
        failure_share: share of failed attempts in an interval that ejects.
        min_volume: attempts of an endpoint in an interval below which its share says nothing.
        base_s: first ejection; each further one is longer by this, until `max_s`; calm intervals shorten it.
        max_s: longest ejection.
        max_share: most of the endpoints that may be ejected; one of several always may be.
        panic_share: when fewer than this share of endpoints is available, all are used.
        jitter_share: ejections are longer by up to this share, so that gateways do not return at once.
    """

    consecutive: int = 5
    interval_s: float = 5.0
    failure_share: float = 0.3
    min_volume: int = 20
    base_s: float = 10.0
    max_s: float = 120.0
    max_share: float = 0.5
    panic_share: float = 0.34
    jitter_share: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """Retries elsewhere, for failures that are safe to repeat.

    Attributes:
        attempts: most attempts of one request, the first included; 1: no retries.
        budget_share: retries allowed per request that succeeded at the first attempt or not, 0.1 is 10 %.
        budget_floor_per_s: retries always allowed per second, so that few requests may be retried too.
        backoff_s: pause before the second attempt, doubled for each further, full jitter.
        max_backoff_s: longest pause.
    """

    attempts: int = 3
    budget_share: float = 0.1
    budget_floor_per_s: float = 1.0
    backoff_s: float = 0.005
    max_backoff_s: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgingOptions:
    """A second attempt beside a slow first one; the faster answer counts.

    Attributes:
        enabled: off by default: the same request may run twice.
        quantile: hedge when the first attempt has lasted longer than this share of recent ones.
        max_share: hedges per request, 0.02 is 2 %.
        min_delay_s: never sooner.
    """

    enabled: bool = False
    quantile: float = 0.95
    max_share: float = 0.02
    min_delay_s: float = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyOptions:
    """How many requests one endpoint may have under way: adapted to the queue wait that it reports.

    Attributes:
        adaptive: False keeps `initial`.
        initial: at start.
        min: never fewer.
        max: never more.
        target_wait_share: time in the endpoint's queue, as a share of its compute time, that is aimed at.
        interval_s: looked at so often.
    """

    adaptive: bool = True
    initial: int = 16
    min: int = 1
    max: int = 256
    target_wait_share: float = 1.0
    interval_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """One fleet of endpoints that serve the same models.

    Attributes:
        name: of the fleet, as models name it.
        endpoints: static addresses; used with `dns` and `file` empty.
        dns: a name whose every address is an endpoint.
        file: a file with one `host:port` in a line, watched; the last good content stays in force.
        refresh_s: names are resolved, and a file that cannot be watched is read, so often.
        tls: None speaks plainly.
        connect_timeout_s: for a connection to come up.
        attempt_timeout_s: longest one attempt may take; None: as long as the request has.
        deadline_margin_s: deadlines are forwarded less this, so that an answer still finds its client.
        probe_interval_s: an endpoint is asked whether it is ready so often (and at once after a failure).
        probe_timeout_s: how long it may take to say so.
        slow_start_s: a new or returned endpoint gets its full share only after so long; 0: at once.
        keepalive_s: idle connections are pinged so often, so that half-open ones are found.
        drain_s: how long an endpoint that was taken out may finish what it has.
        ejection: outlier ejection.
        retry: retries.
        hedging: hedging.
        concurrency: requests under way per endpoint.
    """

    name: str
    endpoints: tuple[Address, ...] = ()
    dns: Address | None = None
    file: Path | None = None
    refresh_s: float = 10.0
    tls: TlsClientOptions | None = None
    connect_timeout_s: float = 2.0
    attempt_timeout_s: float | None = None
    deadline_margin_s: float = 0.002
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    slow_start_s: float = 5.0
    keepalive_s: float = 10.0
    drain_s: float = 30.0
    ejection: EjectionOptions = field(default_factory=EjectionOptions)
    retry: RetryOptions = field(default_factory=RetryOptions)
    hedging: HedgingOptions = field(default_factory=HedgingOptions)
    concurrency: ConcurrencyOptions = field(default_factory=ConcurrencyOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """One endpoint as it is now, for people and metrics.

    Attributes:
        address: where.
        state: whether it gets requests.
        reason: why, for anything but HEALTHY.
        inflight: attempts under way.
        limit: how many may be.
        ejections: how often it was ejected.
        since_s: monotonic time at which it came into this state.
        until_s: monotonic time at which an ejection ends; None when it is not ejected.
        models: models and versions that it has READY, as far as asked.
    """

    address: Address
    state: EndpointState
    reason: str = ""
    inflight: int = 0
    limit: int = 0
    ejections: int = 0
    since_s: float = 0.0
    until_s: float | None = None
    models: tuple[str, ...] = ()


class AttemptError(BackendUnavailable):
    """An attempt failed in a way that another endpoint may do better at.

    Attributes:
        outcome: what it says about the endpoint.
        sent: whether the endpoint may have begun to run it; False: it surely has not.
        pushback_s: the endpoint asks for no retry sooner; negative: for none at all. None: says nothing.
    """

    def __init__(
        self, message: str, outcome: Outcome, *, sent: bool = True, pushback_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.sent = sent
        self.pushback_s = pushback_s


class FleetUnavailable(BackendUnavailable):
    """Too few endpoints could do what a load needs of them now; it is tried again as long as it is wanted."""


class RemoteObserver(Protocol):
    """Told of every decision about a fleet's requests and endpoints; never suspends, blocks or raises."""

    def on_attempt(self, fleet: str, address: Address, outcome: Outcome, seconds: float) -> None:
        """One attempt is over."""

    def on_decision(self, fleet: str, decision: str) -> None:
        """Something was decided.

        Args:
            fleet: its name.
            decision: `retry`, `retry_refused_budget`, `retry_refused_pushback`, `hedge`, `hedge_won`,
                `hedge_refused_budget`, `panic`, `no_endpoint`, `limit_full`, `affinity_moved`.
        """

    def on_endpoint(self, fleet: str, address: Address, state: EndpointState, reason: str) -> None:
        """An endpoint changed its state."""


class AddressSource(Protocol):
    """Says which endpoints a fleet has."""

    def watch(self) -> AsyncIterator[Sequence[Address]]:
        """Give the complete set, without duplicates, at once if known and whenever it changes.

        A source that cannot be read gives nothing: the last set stays in force.
        """
