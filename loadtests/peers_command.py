"""The gateway beside its peers: one scenario for each of them and each protocol, each on its best terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests import peers
from loadtests.arrivals import Closed
from loadtests.scenario import GatewayTarget, PeerTarget, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHEAPEST: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("http-binary", "http-raw", "http-json"),
    "grpc": ("grpc",),
}
"""Wire formats of each protocol, the cheapest to parse first: a peer is asked in the first that it speaks."""


_MOST_ROWS: Final = 64  # the gateway's own default


def peer_entries(
    names: Sequence[str],
    protocols: Sequence[str],
    base: Scenario,
    gateways: Mapping[str, GatewayTarget],
) -> dict[str, Scenario]:
    """Return an entry for each gateway and peer and protocol it speaks.

    Args:
        names: of the peers.
        protocols: `http`, `grpc`.
        base: closed loop, model and rows; its target and protocol are replaced.
        gateways: label -> our own, with different settings.

    Raises:
        LookupError: there is no peer of such a name.
    """
    entries: dict[str, Scenario] = {}
    for protocol in protocols:
        for label, target in gateways.items():
            changes = {"protocol": _CHEAPEST[protocol][0], "target": target}
            entries[f"{label} {protocol}"] = base.model_copy(update=changes)
        for name in names:
            for scenario in peer_scenarios(name, [protocol], base).values():
                entries[f"{name} {scenario.protocol}"] = scenario
    return entries


def peer_scenarios(name: str, protocols: Sequence[str], base: Scenario) -> dict[str, Scenario]:
    """Return protocol (`http`, `grpc`) -> what a peer is asked over it, for those that it speaks.

    Raises:
        LookupError: there is no peer of that name.
    """
    found, spoken = {}, peers.find(name).protocols
    for protocol in protocols:
        if (wire := next((wire for wire in _CHEAPEST[protocol] if wire in spoken), None)) is not None:
            found[protocol] = base.model_copy(update={"protocol": wire, "target": _peer_target(name, base)})
    return found


def _peer_target(name: str, base: Scenario) -> PeerTarget:
    """Return a peer whose batches may hold all that is in flight: several wait in vain for more."""
    assert isinstance(base.arrival, Closed)
    in_flight_rows = base.arrival.in_flight * base.rows
    return PeerTarget(kind="peer", name=name, max_batch_rows=min(in_flight_rows, _MOST_ROWS))


def base_scenario(model: str, rows: int, in_flight: int, seconds: float, repeat: int) -> Scenario:
    """Return what every peer is asked: a closed loop, connections as each likes best."""
    return Scenario(
        name="peers",
        protocol="grpc",
        model=model,
        rows=rows,
        arrival=Closed(kind="closed", in_flight=in_flight),
        duration_s=seconds,
        repeat=repeat,
    )
