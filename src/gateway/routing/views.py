"""What people and metrics may see of the routes in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.evidence import ArmCounts, RoutePlan
    from gateway.core.types import VersionId
    from gateway.routing.routes import Route


@dataclass(frozen=True, kw_only=True)
class ArmView:
    """One arm, for people and metrics.

    Attributes:
        name: as in the plan.
        version: what answers.
        weight_ppm: its share of the keys.
        counts: its totals since its step began.
    """

    name: str
    version: VersionId
    weight_ppm: int
    counts: ArmCounts


@dataclass(frozen=True, kw_only=True)
class RouteView:
    """One route, for people and metrics.

    Attributes:
        plan: what is in force.
        arms: likewise, with what was counted.
        unkeyed: requests without a key, assigned at random.
        overridden: requests that chose their arm; they are in no arm's counts.
        overrides_refused: requests whose choice was ignored.
        saturated: requests counted as units of their own for want of memory for their keys.
    """

    plan: RoutePlan
    arms: tuple[ArmView, ...]
    unkeyed: int
    overridden: int
    overrides_refused: int
    saturated: int


def view_of(route: Route) -> RouteView:
    """Return what a route is and has counted."""
    totals = route.evidence.totals()
    return RouteView(
        plan=route.plan,
        arms=tuple(
            ArmView(name=arm.name, version=arm.version, weight_ppm=arm.weight_ppm, counts=totals[arm.name])
            for arm in route.plan.arms
        ),
        unkeyed=route.unkeyed,
        overridden=route.overridden,
        overrides_refused=route.overrides.refused,
        saturated=route.evidence.saturated,
    )
