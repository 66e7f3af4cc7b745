"""What docs/performance.md rests on: the parts of its measurement, each target with all that it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests import peers
from loadtests.arrivals import Closed, Poisson
from loadtests.large_tensors import IMAGES, image_model
from loadtests.peers_command import base_scenario, peer_scenarios
from loadtests.scenario import GatewayTarget, ModelOnFile, Payload, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Group = Mapping[str, Scenario]

NAMES: Final = {
    "triton": "Triton",
    "mlserver": "MLServer",
    "mosec": "mosec",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "rayserve": "Ray Serve",
    "kserve": "KServe",
    "grpc_aio_direct": "bare grpc.aio",
    "grpc_aio_echo": "grpc.aio echo",
    "uvicorn_echo": "uvicorn echo",
}
"""Peer -> its name in labels, `SERVER, PROTOCOL: POINT`; what stands before the colon is one curve."""
OURS: Final = "model-gateway"
PROTOCOLS: Final = {"http": "HTTP", "grpc": "gRPC"}
SMALL_IN_FLIGHT: Final = 32
PEAK_IN_FLIGHT: Final = 64
LARGE_IN_FLIGHT: Final = 4
NATIVE: Final = GatewayTarget(
    kind="gateway", label=OURS, config={"server": {"grpc": {"transport": "native"}}}
)
GRPCIO: Final = GatewayTarget(
    kind="gateway", label=f"{OURS}, grpcio transport", config={"server": {"grpc": {"transport": "grpcio"}}}
)
_QUEUE_ROWS: Final = 256
_SHORT_QUEUE: Final = NATIVE.model_copy(
    update={"config": {**NATIVE.config, "defaults": {"batching": {"max_queue_rows": _QUEUE_ROWS}}}}
)
"""A tenth of a second's work of the dense net may wait, the rest is refused: no client waits longer."""
_OUR_WIRES: Final = {"http": "http-binary", "grpc": "grpc"}
_VARIED: Final = Payload(distinct=4096, ids=True, deadlines=True, traceparent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        seconds: of each run.
        warm_up_s: before it.
        repeat: runs of each entry.
        in_flight: of the gateway on the dense net.
        peers_in_flight: of the others on it.
        shares: of the peak, offered in the open loop.
        dense_peers: those that meet the dense net: peer -> protocols.
    """

    seconds: float
    warm_up_s: float
    repeat: int
    in_flight: Sequence[int]
    peers_in_flight: Sequence[int]
    shares: Sequence[float]
    dense_peers: Mapping[str, Sequence[str]]


FULL: Final = Extent(
    seconds=2,
    warm_up_s=1,
    repeat=2,
    in_flight=(1, 2, 4, 8, 16, 32, 64),
    peers_in_flight=(1, 8, 64),
    shares=(0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.1, 1.5, 2.0),
    dense_peers={"mosec": ("http",), "triton": ("http", "grpc"), "mlserver": ("http",)},
)
QUICK: Final = Extent(
    seconds=1,
    warm_up_s=0.5,
    repeat=1,
    in_flight=(1, 8, 64),
    peers_in_flight=(64,),
    shares=(0.5, 0.95, 1.5),
    dense_peers={"mosec": ("http",), "triton": ("grpc",)},
)


def small_groups(extent: Extent, names: Sequence[str] = peers.NAMES) -> list[Group]:
    """Return what the small classifier is asked: of the gateway, on both transports, and of the peers."""
    base = _base("digits", SMALL_IN_FLIGHT, extent)
    varied = base.model_copy(
        update={"payload": _VARIED, "arrival": Closed(kind="closed", in_flight=256, connections=256)}
    )
    ours = {
        **{f"{OURS}, {PROTOCOLS[name]}": _asked(base, NATIVE, name) for name in PROTOCOLS},
        **{f"{OURS}, {PROTOCOLS[name]}: varied": _asked(varied, NATIVE, name) for name in PROTOCOLS},
    }
    grpcio = {f"{OURS}, grpcio": _asked(base, GRPCIO, "grpc")}
    return [ours, grpcio, *(_of_peer(name, list(PROTOCOLS), base) for name in names)]


def dense_groups(extent: Extent) -> list[Group]:
    """Return what the dense net is asked, by requests in flight."""
    ours = {
        label: scenario
        for name, shown in PROTOCOLS.items()
        for in_flight in extent.in_flight
        for label, scenario in _at(f"{OURS}, {shown}", in_flight, NATIVE, name, extent)
    }
    others = [
        {f"{label}: {in_flight} in flight": scenario for label, scenario in group.items()}
        for peer, protocols in extent.dense_peers.items()
        for in_flight in extent.peers_in_flight
        for group in [_of_peer(peer, protocols, _base("dense", in_flight, extent))]
    ]
    return [ours, *others]


def peak_groups(extent: Extent) -> list[Group]:
    """Return closed loops that tell the gateway's peaks on the dense net: its curves' labels, with them."""
    base = _base("dense", PEAK_IN_FLIGHT, extent)
    return [{f"{OURS}, {PROTOCOLS[name]}": _asked(base, _SHORT_QUEUE, name) for name in PROTOCOLS}]


def latency_groups(extent: Extent, peaks: Mapping[str, float]) -> list[Group]:
    """Return open loops of the dense net at shares of its peaks.

    Args:
        extent: how much.
        peaks: label of a curve, of `peak_groups` -> requests per second.
    """
    found: dict[str, Scenario] = {}
    for share in extent.shares:
        for name, shown in PROTOCOLS.items():
            rate = share * peaks[f"{OURS}, {shown}"]
            loop = Poisson(kind="poisson", rate=rate, connections=1024 if name == "http" else 64)
            changes = {"arrival": loop, "payload": Payload(distinct=64), "allow": frozenset({"rejected"})}
            base = _base("dense", PEAK_IN_FLIGHT, extent).model_copy(update=changes)
            found[f"{OURS}, {shown}: {share:.0%} of peak"] = _asked(base, _SHORT_QUEUE, name)
    return [found]


def large_groups(extent: Extent, models: Path) -> list[Group]:
    """Return what large tensors are sent to.

    Args:
        extent: how much.
        models: folder where the models of `large_tensors` are, or are put.
    """
    groups: list[Group] = []
    for image in IMAGES:
        made = image_model(image, models)
        model = ModelOnFile(
            name=image, folder=made.folder, version=1, input=made.input_name, features=made.features
        )
        base = _base("digits", LARGE_IN_FLIGHT, extent).model_copy(update={"model": model})
        groups.append(
            {f"{OURS}, {shown}: {image}": _asked(base, NATIVE, name) for name, shown in PROTOCOLS.items()}
        )
    return groups


def _at(
    curve: str, in_flight: int, target: GatewayTarget, protocol: str, extent: Extent
) -> Iterator[tuple[str, Scenario]]:
    yield f"{curve}: {in_flight} in flight", _asked(_base("dense", in_flight, extent), target, protocol)


def _of_peer(name: str, protocols: Sequence[str], base: Scenario) -> Group:
    scenarios = peer_scenarios(name, protocols, base)
    return {f"{NAMES[name]}, {PROTOCOLS[protocol]}": scenario for protocol, scenario in scenarios.items()}


def _asked(base: Scenario, target: GatewayTarget, protocol: str) -> Scenario:
    return base.model_copy(update={"target": target, "protocol": _OUR_WIRES[protocol]})


def _base(model: str, in_flight: int, extent: Extent) -> Scenario:
    base = base_scenario(model, 1, in_flight, extent.seconds, 1)
    return base.model_copy(update={"name": "report", "warm_up_s": extent.warm_up_s})
