"""What the router writes down about a request that followed a route, and says in its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.evidence import RoutePlan

ARM_PARAMETER: Final = "gateway_arm"
"""Response parameter: the arm of a rollout or split that answered."""
FALLBACK_PARAMETER: Final = "gateway_fallback"
"""Response parameter: true where stable answered in place of the arm that the request was assigned to."""


class Assigned:
    """Which arm of its model's route a request got, and by what.

    Attributes:
        plan: the plan that it follows to its end, whatever is in force by then.
        arm: the arm it was assigned to; evidence counts by it, whoever answers.
        served: the arm that answers; another one after a fallback, written by the router alone.
        unit: 64-bit hash of its key; equal keys of one hash specification have the same.
        keyed: it brought a key; without one its unit is random and the next request's another.
        overridden: it chose the arm itself, so that its outcome says nothing about arms: no evidence.
    """

    __slots__ = (
        "arm",
        "keyed",
        "overridden",
        "plan",
        "served",
        "unit",
    )

    def __init__(
        self,
        plan: RoutePlan,
        arm: str,
        unit: int,
        keyed: bool,
        overridden: bool,
    ) -> None:
        self.plan = plan
        self.arm = arm
        self.served = arm
        self.unit = unit
        self.keyed = keyed
        self.overridden = overridden
