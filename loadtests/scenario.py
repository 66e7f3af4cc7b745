"""What a load test is: the records of a scenario file, and the reader that says what is wrong and where."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.config.yaml_file import read_yaml
from gateway.core.errors import ConfigError
from loadtests.arrivals import Arrival, Closed, Constant, Ramp
from loadtests.requests_on_file import DENSE, DIGITS, BenchModel
from loadtests.thresholds import FIGURES, ThresholdError, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.yaml_file import YamlFile

MODELS: Final = {model.name: model for model in (DIGITS, DENSE)}
Protocol = Literal["http-json", "http-binary", "http-raw", "grpc", "grpc-stream"]
Engine = Literal["auto", "wrk", "h2load", "k6", "replay"]
Client = Literal["grpcio", "grpc-js", "grpc-go"]

_PAYLOADS: Final[Mapping[str, dict[str, Any]]] = {
    "fixed": {},
    "varied": {"distinct": 4096, "ids": True, "deadlines": True, "traceparent": True},
}


class ScenarioError(Exception):
    """A scenario file is wrong; the message has a line for each complaint: file, line, what, why."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewayTarget(_Record):
    """A gateway of our own, started for the test on the server's core.

    Attributes:
        config: laid over the configuration of the test (free ports, the model, one ONNX Runtime thread).
        flags: further arguments of `gateway serve`.
        package: folder of another build of the package; build/compiled is where `make compiled` puts one.
        label: as printed.
    """

    kind: Literal["gateway"]
    config: dict[str, Any] = {}
    flags: tuple[str, ...] = ()
    package: Path | None = None
    label: str = "gateway"


class AddressTarget(_Record):
    """A server that runs already, of the Open Inference Protocol.

    Attributes:
        http: HOST:PORT of HTTP.
        grpc: HOST:PORT of gRPC.
        metrics: URL of a gateway's metrics page: batch sizes and loop lag are not measured without.
        pid: root of its process tree on this machine: CPU time and memory are not measured without.
        label: as printed.
    """

    kind: Literal["address"]
    http: str | None = None
    grpc: str | None = None
    metrics: str | None = None
    pid: int | None = None
    label: str = "server"

    @model_validator(mode="after")
    def _somewhere(self) -> AddressTarget:
        if self.http is None and self.grpc is None:
            raise ValueError("give http, grpc or both, as HOST:PORT")
        return self


class PeerTarget(_Record):
    """Another server, installed and started by its adapter in loadtests/peers.

    Attributes:
        name: the adapter's.
        max_batch_rows: most rows per batch, where the peer batches.
    """

    kind: Literal["peer"]
    name: str
    max_batch_rows: int = Field(default=64, ge=1)

    @property
    def label(self) -> str:
        """As printed, until the adapter says more."""
        return self.name


Target = Annotated[GatewayTarget | AddressTarget | PeerTarget, Field(discriminator="kind")]


class ModelOnFile(_Record):
    """A model that is not one of the project's own: FP32, one input of shape [rows, features]."""

    name: str
    folder: Path
    version: int = Field(default=1, ge=1)
    input: str
    features: int = Field(ge=1)


class Payload(_Record):
    """What differs from request to request; by default nothing.

    Attributes:
        distinct: number of different tensors, sent in turn.
        ids: every request has an id of its own.
        deadlines: every request has a deadline (20 to 60 s), and they differ.
        traceparent: every request has a W3C trace context of its own, not sampled.
        client: whose header blocks a gRPC replay sends; grpcio's if none is named.
    """

    distinct: int = Field(default=1, ge=1, le=1 << 16)
    ids: bool = False
    deadlines: bool = False
    traceparent: bool = False
    client: Client | None = None

    @property
    def fixed(self) -> bool:
        """Whether all requests are the same, and of no client in particular."""
        varied = self.ids or self.deadlines or self.traceparent
        return self.distinct == 1 and not varied and self.client is None


class Scenario(_Record):
    """One load test.

    Attributes:
        name: in tables and records.
        target: what is under load.
        protocol: which wire format.
        model: a model's name, or the description of one on file.
        rows: per request.
        payload: `fixed`, `varied` (4,096 tensors, ids, deadlines, trace contexts), or a `Payload`.
        arrival: how requests come.
        engine: which generator; `auto` takes the cheapest that can do it.
        duration_s: of a measured run.
        warm_up_s: of the same load before it, not counted.
        repeat: runs, their median counts.
        allow: outcomes that are no errors: under overload, being refused or expired is right.
        thresholds: figure -> condition, `< 20`; a run whose median misses one exits 3.
    """

    name: str
    target: Target = GatewayTarget(kind="gateway")
    protocol: Protocol
    model: str | ModelOnFile = "digits"
    rows: int = Field(default=1, ge=1)
    payload: Payload = Payload()
    arrival: Arrival
    engine: Engine = "auto"
    duration_s: float = Field(default=5, gt=0, le=3600)
    warm_up_s: float = Field(default=1, ge=0, le=600)
    repeat: int = Field(default=3, ge=1, le=100)
    allow: frozenset[Literal["rejected", "expired"]] = frozenset()
    thresholds: dict[str, str] = {}

    @field_validator("payload", mode="before")
    @classmethod
    def _payload_by_name(cls, value: object) -> object:
        return _PAYLOADS.get(value, value) if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str | ModelOnFile) -> str | ModelOnFile:
        if isinstance(value, str) and value not in MODELS:
            raise ValueError(f"no model {value!r}: there are {', '.join(MODELS)}; describe others in full")
        return value

    @field_validator("thresholds")
    @classmethod
    def _thresholds_can_be_read(cls, value: dict[str, str]) -> dict[str, str]:
        for figure, condition in value.items():
            if figure not in FIGURES:
                raise ValueError(f"no figure {figure!r}: there are {', '.join(sorted(FIGURES))}")
            try:
                parse(condition)
            except ThresholdError as exc:
                raise ValueError(f"{figure}: {exc}") from exc
        return value

    @model_validator(mode="after")
    def _engine_can(self) -> Scenario:
        if complaint := cannot(self.engine, self):
            raise ValueError(complaint)
        return self

    @property
    def bench_model(self) -> BenchModel:
        """The model as the rest of the load tests knows it."""
        if isinstance(self.model, str):
            return MODELS[self.model]
        on_file = self.model
        return BenchModel(on_file.name, on_file.folder, on_file.version, on_file.input, on_file.features)

    @property
    def chosen_engine(self) -> Engine:
        """The engine, `auto` resolved: wrk and h2load for peaks of one repeated request, else the replay."""
        if self.engine != "auto":
            return self.engine
        cheapest: tuple[Engine, ...] = ("wrk", "h2load", "replay")
        return next(engine for engine in cheapest if not cannot(engine, self))


def cannot(engine: Engine, scenario: Scenario) -> str:
    """Return why an engine cannot run a scenario, or nothing."""
    http = scenario.protocol.startswith("http")
    closed = isinstance(scenario.arrival, Closed)
    if closed and (complaint := _bad_loop(scenario.arrival, http=http)):
        return complaint
    reasons = {
        "wrk": (http and closed, "wrk runs closed loops over HTTP only"),
        "h2load": (not http and closed and scenario.protocol == "grpc", "h2load runs closed gRPC loops only"),
        "k6": (
            isinstance(scenario.arrival, Constant | Ramp) and scenario.protocol != "grpc-stream",
            "k6 runs constant or ramping arrivals over HTTP or gRPC unary only",
        ),
    }
    able, reason = reasons.get(engine, (True, ""))
    if not able:
        return reason
    if engine in reasons and not scenario.payload.fixed:
        return f"{engine} repeats one request: take `payload: fixed` or `engine: replay`"
    return ""


def _bad_loop(arrival: Any, *, http: bool) -> str:
    if arrival.connections > arrival.in_flight:
        return "more connections than requests in flight: some would never be used"
    if arrival.connections and arrival.in_flight % arrival.connections:
        return "in_flight must be a multiple of connections: each connection carries as many"
    if http and arrival.connections not in {0, arrival.in_flight}:
        return "HTTP/1.1 carries one request per connection: leave connections out, or make it in_flight"
    return ""


def read_scenario(path: Path, changes: Mapping[str, object] | None = None) -> Scenario:
    """Read a scenario file.

    Args:
        path: of the file.
        changes: laid over what it says: dotted key -> value, as `--set` gives them.

    Raises:
        ScenarioError: it cannot be read or makes no sense.
    """
    try:
        file = read_yaml(path)
    except ConfigError as exc:
        raise ScenarioError(str(exc)) from exc
    data = {"name": path.stem, **file.data}
    if isinstance(data.get("payload"), str):  # so that a change may reach into it
        data["payload"] = _PAYLOADS.get(data["payload"], data["payload"])
    for key, value in (changes or {}).items():
        data = _with(data, key.split("."), value)
    try:
        return Scenario.model_validate(data)
    except ValidationError as exc:
        raise ScenarioError("\n".join(_complaints(file, exc))) from exc


def _with(data: Mapping[str, Any], keys: list[str], value: object) -> dict[str, Any]:
    """Return `data` with one nested value replaced."""
    first, *rest = keys
    if not rest:
        return {**data, first: value}
    inner = data.get(first, {})
    return {**data, first: _with(inner if isinstance(inner, dict) else {}, rest, value)}


def _complaints(file: YamlFile, error: ValidationError) -> list[str]:
    """Return a line for each complaint, in the order of the file."""
    found = []
    for problem in error.errors():
        # pydantic puts the tag of a union's member into the location: the file has no such key.
        keys = tuple(key for key in problem["loc"] if (key,) in file.lines or not _is_tag(key))
        where = ".".join(map(str, keys)) or "scenario"
        said = problem["msg"].removeprefix("Value error, ")
        found.append((file.line_of(keys), f"{file.path}:{file.line_of(keys)}: {where}: {said}"))
    return [text for _, text in sorted(found, key=operator.itemgetter(0))]


def _is_tag(key: int | str) -> bool:
    kinds = {"gateway", "address", "peer", "closed", "constant", "poisson", "bursts", "ramp", "replay"}
    return key in kinds | {"str", "ModelOnFile"}
