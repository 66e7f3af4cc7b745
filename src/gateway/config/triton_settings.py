"""The `triton:` section: fleets of Triton servers, and how their failures are kept small."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator, model_validator

from gateway.config.section import PositiveSeconds, Seconds, Section

FleetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
TritonModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
BatchingMode = Literal["auto", "gateway", "passthrough"]
EVERY_MODEL: Final = "all"

_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@#]+):(?P<port>[0-9]{1,5})")
_ALL: Final = 1 - 1e-9
"""The share that comes to all endpoints, however many there are; 1 would be one of them."""
_PER_CENT: Final = re.compile(r"(?P<number>[0-9]{1,3}(?:\.[0-9]+)?)%")


def _address(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise ValueError(f"expected host:port with the port of Triton's gRPC, as 10.0.0.1:8001, got '{text}'")
    return text


def ready_share(value: int | str) -> int | float:
    """Return how many endpoints must have a version: a count as it is, `50%` as the share 0.5.

    Raises:
        ValueError: it is neither.
    """
    share: int | float
    if isinstance(value, int):
        share = value
        fits = not isinstance(value, bool) and value >= 1
    else:
        found = _PER_CENT.fullmatch(str(value))
        number = float(found["number"]) if found else 0.0
        fits = 0 < number <= 100
        share = min(number / 100, _ALL)
    if not fits:
        raise ValueError(f"expected a number of endpoints, or a share of them such as '50%', got {value!r}")
    return share


def _min_ready(value: Any) -> Any:
    ready_share(value)
    return value


def _served(value: Any) -> Any:
    if isinstance(value, str) and value != EVERY_MODEL:
        raise ValueError(f"expected 'all' or a list of models, got '{value}'")
    return value


EndpointAddress = Annotated[str, AfterValidator(_address)]
MinReady = Annotated[int | str, BeforeValidator(_min_ready)]
Served = Annotated[Literal["all"] | tuple[TritonModelName, ...], BeforeValidator(_served)]


class FleetTlsSettings(Section):
    """How endpoints are spoken to securely; paths relative to the configuration file."""

    ca_file: Path | None = None
    """CA that signs the endpoints' certificates, PEM; unset: the system's."""
    cert_file: Path | None = None
    """The gateway's certificate chain, PEM, for mutual TLS."""
    key_file: Path | None = None
    """Its private key, PEM."""
    server_name: str = ""
    """Name expected in the endpoints' certificates, where it is not the address."""

    @model_validator(mode="after")
    def _pair(self) -> FleetTlsSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class ProbeSettings(Section):
    """Asking endpoints whether they are ready, beside what requests show of them."""

    interval_s: PositiveSeconds = 1.0
    """So often, and at once after a failure."""
    timeout_s: PositiveSeconds = 1.0
    """How long an endpoint may take to say so."""


class EjectionSettings(Section):
    """Endpoints that fail get no requests for a while."""

    consecutive: PositiveInt = 5
    """Failures in a row that eject at once."""
    interval_s: PositiveSeconds = 5.0
    """Failure shares are looked at so often."""
    failure_share: PositiveShare = 0.3
    """Share of failed attempts in an interval that ejects."""
    min_volume: PositiveInt = 20
    """Attempts at an endpoint in an interval below which its share says nothing."""
    base_s: PositiveSeconds = 10.0
    """The first ejection; each further one is longer by this, calm intervals shorten it again."""
    max_s: PositiveSeconds = 120.0
    """The longest ejection."""
    max_share: PositiveShare = 0.5
    """Most of the endpoints that may be ejected; one of several always may be."""
    panic_share: float = Field(0.34, ge=0, le=1)
    """When fewer than this share of endpoints is available, all are used."""
    jitter_share: float = Field(0.1, ge=0, le=1)
    """Ejections are longer by up to this share, so that gateways do not return at once."""


class RetrySettings(Section):
    """Requests that failed at one endpoint are tried at another, where that is safe."""

    attempts: PositiveInt = 3
    """Most attempts of one request, the first included; 1: no retries."""
    budget_share: float = Field(0.1, ge=0, le=1)
    """Retries per request: 0.1 is one for ten."""
    budget_floor_per_s: Seconds = 1.0
    """Retries always allowed per second."""
    backoff_s: Seconds = 0.005
    """Pause before the second attempt, doubled for each further, full jitter."""
    max_backoff_s: Seconds = 0.25
    """The longest pause."""


class HedgingSettings(Section):
    """A second attempt beside a slow first one; the faster answer counts."""

    enabled: bool = False
    """Off by default: the same request may run twice."""
    quantile: float = Field(0.95, gt=0, lt=1)
    """Hedge when the first attempt has lasted longer than this share of recent ones."""
    max_share: float = Field(0.02, ge=0, le=1)
    """Hedges per request."""
    min_delay_s: Seconds = 0.005
    """Never sooner."""


class ConcurrencySettings(Section):
    """How many requests one endpoint may have under way: adapted to the queue wait that it reports."""

    adaptive: bool = True
    """False keeps `initial`."""
    initial: PositiveInt = 16
    """At start."""
    min: PositiveInt = 1
    """Never fewer."""
    max: PositiveInt = 256
    """Never more."""
    target_wait_share: PositiveSeconds = 1.0
    """Time in the endpoint's queue, as a share of its compute time, that is aimed at."""
    interval_s: PositiveSeconds = 1.0
    """Looked at so often."""

    @model_validator(mode="after")
    def _ordered(self) -> ConcurrencySettings:
        if not self.min <= self.initial <= self.max:
            raise ValueError(f"expected min <= initial <= max, got {self.min}, {self.initial}, {self.max}")
        return self


class FleetSettings(Section):
    """Triton servers that serve the same models; exactly one of endpoints, dns and file says which."""

    name: FleetName
    """As models name it."""
    endpoints: tuple[EndpointAddress, ...] = ()
    """`host:port` of each server's gRPC port."""
    dns: EndpointAddress | None = None
    """`name:port`: every address of the name is an endpoint."""
    file: Path | None = None
    """A file with one `host:port` a line, watched; relative to the configuration file."""
    refresh_s: PositiveSeconds = 10.0
    """The name is resolved, and a file that cannot be watched is read, so often."""
    tls: FleetTlsSettings | None = None
    """Speak TLS; unset: plain text."""
    grpc_client: Literal["native", "grpcio"] = "native"
    """What sends infer requests other than streams: `native`, the gateway's own HTTP/2 on a connection of its
    own, which costs a small fraction of the CPU time, or `grpcio`, gRPC's C library, as all else."""
    serve: Served = ()
    """Models served under their own names without an entry of theirs: those listed, or `all` that are READY
    there. The gateway's readiness does not wait for those of `all`."""
    batching: BatchingMode = "auto"
    """`gateway` forms batches here, `passthrough` leaves that to Triton, `auto` measures which is faster.
    There are never two delays."""
    min_ready: MinReady = 1
    """Endpoints that must have a version READY before it is READY here: a number, or a share as `50%`."""
    vanish_grace_s: Seconds = 30.0
    """A version that no endpoint has any more is withdrawn only after so long."""
    shared_memory: Literal["auto", "off"] = "auto"
    """`auto`: tensors go through shared memory to endpoints on this host that allow it."""
    repository: Path | None = None
    """The model repository that these servers share, as a directory of this host: versions of a registry are
    published there, and loaded and unloaded by the gateway. Needs `--model-control-mode=explicit`."""
    connect_timeout_s: PositiveSeconds = 2.0
    """For a connection to come up."""
    attempt_timeout_s: PositiveSeconds | None = None
    """Longest that one attempt may take; unset: as long as the request has."""
    deadline_margin_s: Seconds = 0.002
    """Deadlines are forwarded less this, so that an answer still finds its client."""
    probe: ProbeSettings = Field(default_factory=ProbeSettings)
    """Probes."""
    slow_start_s: Seconds = 5.0
    """A new or returned endpoint gets its full share only after so long."""
    keepalive_s: PositiveSeconds = 10.0
    """Idle connections are pinged so often, so that half-open ones are found."""
    drain_s: Seconds = 30.0
    """How long an endpoint that was taken out may finish what it has."""
    ejection: EjectionSettings = Field(default_factory=EjectionSettings)
    """Outlier ejection."""
    retry: RetrySettings = Field(default_factory=RetrySettings)
    """Retries."""
    hedging: HedgingSettings = Field(default_factory=HedgingSettings)
    """Hedging."""
    concurrency: ConcurrencySettings = Field(default_factory=ConcurrencySettings)
    """Requests under way at each endpoint."""

    @field_validator("endpoints")
    @classmethod
    def _apart(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted({e for e in endpoints if endpoints.count(e) > 1}):
            raise ValueError(f"named twice: {repeated}")
        return endpoints

    @model_validator(mode="after")
    def _one_place(self) -> FleetSettings:
        if len([place for place in (self.endpoints, self.dns, self.file) if place]) != 1:
            raise ValueError("give exactly one of endpoints, dns, file")
        return self

    @property
    def listed(self) -> tuple[str, ...]:
        """The models that `serve` lists; empty for `all`."""
        return () if isinstance(self.serve, str) else self.serve


class TritonModelSettings(Section):
    """Where a model of `backend: triton` runs; what is not given is as its fleet says."""

    fleet: FleetName | None = None
    """A fleet's name; unset: the only one there is."""
    model: TritonModelName | None = None
    """The model's name on Triton; unset: its public name."""
    batching: BatchingMode | None = None
    """As the fleet's `batching`, for this model."""
    min_ready: MinReady | None = None
    """As the fleet's `min_ready`, for this model."""
    shared_memory: Literal["auto", "off"] | None = None
    """As the fleet's `shared_memory`, for this model."""

    def options(self, name: str, fleet: FleetSettings) -> dict[str, Any]:
        """Return the backend's options for the model of public name `name`."""
        chosen = {key: getattr(self, key) for key in ("batching", "min_ready", "shared_memory")}
        own = {key: value for key, value in chosen.items() if value is not None}
        if self.min_ready is not None:
            own["min_ready"] = ready_share(self.min_ready)
        return {**fleet_options(fleet), "model": self.model or name, **own}


def fleet_options(fleet: FleetSettings) -> dict[str, Any]:
    """Return the backend's options that all models of a fleet have in common."""
    return {
        "fleet": fleet.name,
        "batching": fleet.batching,
        "min_ready": ready_share(fleet.min_ready),
        "shared_memory": fleet.shared_memory,
    }


def check_fleets(fleets: tuple[FleetSettings, ...]) -> None:
    """Refuse fleets that cannot be told apart, or that would serve one model twice.

    Raises:
        ValueError: which.
    """
    names = [fleet.name for fleet in fleets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"fleets of triton named twice: {repeated}")
    everything = [fleet.name for fleet in fleets if fleet.serve == EVERY_MODEL]
    if len(everything) > 1:
        raise ValueError(
            f"fleets {everything} both serve all: which of them a model is of would be left to chance"
        )
    listed = [model for fleet in fleets for model in fleet.listed]
    if repeated := sorted({model for model in listed if listed.count(model) > 1}):
        raise ValueError(f"models listed twice under serve: {repeated}")


def fleet_of(name: str, settings: TritonModelSettings, fleets: tuple[FleetSettings, ...]) -> FleetSettings:
    """Return the fleet that a model runs on.

    Raises:
        ValueError: there is no such fleet, or several and none is named.
    """
    known = [fleet.name for fleet in fleets]
    if settings.fleet is None and len(fleets) == 1:
        return fleets[0]
    found = next((fleet for fleet in fleets if fleet.name == settings.fleet), None)
    if found is not None:
        return found
    if settings.fleet is None and fleets:
        raise ValueError(f"model '{name}': name its fleet, one of {known}")
    there = f"there are {known}" if known else "there is none"
    raise ValueError(f"model '{name}': no fleet '{settings.fleet or ''}' under triton, {there}")
