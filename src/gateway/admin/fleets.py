"""What administration shows of fleets of remote model servers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.remote import Address, EndpointView


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One fleet as it is now.

    Attributes:
        name: in the configuration.
        now_s: monotonic time of this, as that of `endpoints`.
        capacity: requests that its available endpoints may have under way together.
        endpoints: every one.
        ready: endpoint -> the models and versions that it said it has READY, by their names there.
        serves: public name -> name there, of the models that run on it.
    """

    name: str
    now_s: float
    capacity: int
    endpoints: Sequence[EndpointView]
    ready: Mapping[Address, Sequence[tuple[str, int]]]
    serves: Mapping[str, str]


def fleet_row(fleet: FleetRow, wall_s: float) -> dict[str, Any]:
    """Return a fleet with its endpoints and the models on each, by their names there, as JSON types.

    Args:
        fleet: as it is now.
        wall_s: now, in wall-clock seconds since the epoch, as the times that are returned.
    """
    ahead_s = wall_s - fleet.now_s
    return {
        "fleet": fleet.name,
        "capacity": fleet.capacity,
        "serves": dict(sorted(fleet.serves.items())),
        "endpoints": [
            {**_endpoint(view, ahead_s), "models": _models(fleet.ready.get(view.address, ()))}
            for view in fleet.endpoints
        ],
    }


def fleet_of(model: str, fleets: Sequence[FleetRow], wall_s: float) -> dict[str, Any] | None:
    """Return where a model runs, with the versions of it on each endpoint; None if on no fleet."""
    fleet = next((fleet for fleet in fleets if model in fleet.serves), None)
    if fleet is None:
        return None
    remote, ahead_s = fleet.serves[model], wall_s - fleet.now_s
    return {
        "fleet": fleet.name,
        "model": remote,
        "endpoints": [
            {
                **_endpoint(view, ahead_s),
                "versions": _models(fleet.ready.get(view.address, ())).get(remote, []),
            }
            for view in fleet.endpoints
        ],
    }


def _endpoint(view: EndpointView, ahead_s: float) -> dict[str, Any]:
    """Return an endpoint; `until` is when it may be used again, null unless its ejection has a time.

    Args:
        view: as it is now.
        ahead_s: wall-clock seconds less monotonic ones.
    """
    return {
        "address": str(view.address),
        "state": view.state.value,
        "reason": view.reason,
        "since": round(view.since_s + ahead_s, 3),
        "until": None if view.until_s is None else round(view.until_s + ahead_s, 3),
        "inflight": view.inflight,
        "limit": view.limit,
        "ejections": view.ejections,
    }


def _models(ready: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for model, number in ready:
        found[model].append(number)
    return {model: sorted(numbers) for model, numbers in sorted(found.items())}
