"""The routes in force: plans compiled for the request path, replaced as a whole between two requests."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from gateway.core.assigned import ARM_PARAMETER, FALLBACK_PARAMETER, Assigned
from gateway.routing.bucket import bucket_of, salted, unit_of
from gateway.routing.counting import NOT_THE_ARMS_FAULT, EvidenceCounter
from gateway.routing.keys import KeyReader, Overrides, random_units
from gateway.routing.split import split
from gateway.routing.views import RouteView, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.core.clock import Clock
    from gateway.core.evidence import ArmCounts, ArmRoute, RoutePlan
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse, ParameterValue, VersionId


class ShadowSink(Protocol):
    """Mirrors requests; never raises, and never touches the request, its answer or its outcome."""

    def mirror(self, request: InferRequest, plan: RoutePlan, pending: Pending) -> None:
        """Take note of a request that has just been dispatched to its arm; `plan` has shadows."""


class Arm:
    """One arm of a route, as requests use it.

    Attributes:
        index: its place in the plan.
        name: as in the plan.
        number: of its version, as the text that a lease is taken by.
        version: what a lease must be on.
        counter: its evidence.
        parameters: what its answers carry.
        fallback_parameters: what they carry where it answers for another arm.
    """

    __slots__ = ("counter", "fallback_parameters", "index", "name", "number", "parameters", "version")

    def __init__(self, index: int, route: ArmRoute, evidence: EvidenceCounter) -> None:
        parameters: dict[str, ParameterValue] = {ARM_PARAMETER: route.name}
        self.index = index
        self.name = route.name
        self.number = str(route.version.number)
        self.version = route.version
        self.counter = evidence.arm(route.name)
        self.parameters: Mapping[str, ParameterValue] = MappingProxyType(parameters)
        self.fallback_parameters: Mapping[str, ParameterValue] = MappingProxyType(
            {**parameters, FALLBACK_PARAMETER: True}
        )


class Route:
    """A plan as requests follow it: who gets which arm, and where that is counted. Immutable but for counts.

    A request holds on to the route that it was assigned by, so that all of it is decided by one plan.

    Args:
        plan: what it follows.
        evidence: where its requests are counted.
        clock: the clock that arrivals are stamped with.
        random_unit: gives requests without a key one.

    Attributes:
        plan: likewise.
        arms: in the plan's order; empty where only shadows are asked for.
        evidence: likewise.
        overrides: choices of arm by header.
        falls_back: a request that fails in an arm but the first is run again there.
        unkeyed: requests without a key.
        overridden: requests that chose their arm.
    """

    __slots__ = (
        "_clock",
        "_keys",
        "_may_choose",
        "_named",
        "_random_unit",
        "_salt",
        "_split",
        "_stable",
        "arms",
        "evidence",
        "falls_back",
        "has_shadows",
        "overridden",
        "overrides",
        "plan",
        "unkeyed",
    )

    def __init__(
        self, plan: RoutePlan, evidence: EvidenceCounter, clock: Clock, random_unit: Callable[[], int]
    ) -> None:
        names = [arm.name for arm in plan.arms]
        weights = [arm.weight_ppm for arm in plan.arms]
        assign = plan.assign
        self.plan = plan
        self.evidence = evidence
        self.arms = tuple([Arm(index, arm, evidence) for index, arm in enumerate(plan.arms)])
        self._stable = self.arms[0] if self.arms else None
        self._may_choose = bool(assign.overrides)
        self.overrides = Overrides(assign.overrides, names)
        self.falls_back = assign.fallback_stable
        self.has_shadows = bool(plan.shadows)
        self.unkeyed = 0
        self.overridden = 0
        self._named = {arm.name: arm for arm in self.arms}
        self._split = split(names, weights, assign.holdout_ppm) if names else None
        self._salt = salted(assign.hash)
        self._keys = KeyReader(assign.keys)
        self._clock = clock
        self._random_unit = random_unit

    @property
    def stable(self) -> Arm:
        """The first arm, which others take from and fall back to; the plan must have arms."""
        assert self._stable is not None
        return self._stable

    def assign(self, request: InferRequest) -> Arm:
        """Return the arm of a request, and write it down as its `assigned`; the plan must have arms."""
        assert self._split is not None
        key = self._keys.key(request)
        if key is None:
            self.unkeyed += 1
            unit = self._random_unit()
        else:
            unit = unit_of(self._salt, key)
        index = self.overrides.chosen(request) if self._may_choose else -1
        overridden = index >= 0
        if overridden:
            self.overridden += 1
        else:
            index = self._split.arm(bucket_of(unit))
        arm = self.arms[index]
        request.assigned = Assigned(self.plan, arm.name, unit, key is not None, overridden)
        return arm

    def mark(self, request: InferRequest, response: InferResponse) -> None:
        """Put the arm that gave an answer, the assigned one's or stable in its place, into its parameters."""
        assigned = request.assigned
        assert assigned is not None
        arm = self._named[assigned.served]
        fallback = assigned.served != assigned.arm
        parameters = arm.fallback_parameters if fallback else arm.parameters
        response.parameters = {**response.parameters, **parameters} if response.parameters else parameters

    def ended(
        self,
        request: InferRequest,
        answered_s: float | None,
        error: BaseException | None,
        refused_alone: bool = False,
    ) -> None:
        """Count how a request ended that `assign` has assigned.

        Args:
            request: the request; its `assigned` tells who answered.
            answered_s: monotonic time of its answer, or of the first of several; None: it got none.
            error: its failure, if it failed.
            refused_alone: its arm refused what stable would have taken, so that it is the arm's fault.
        """
        assigned = request.assigned
        assert assigned is not None
        if assigned.overridden:
            return
        counter = self._named[assigned.arm].counter
        stood_in = assigned.served != assigned.arm
        self.evidence.took_part(counter, bucket_of(assigned.unit))
        if error is not None and not (stood_in or refused_alone) and isinstance(error, NOT_THE_ARMS_FAULT):
            return
        latency_s: float | None = None
        if answered_s is None:
            now_s = self._clock.now_s()
        else:
            now_s = answered_s
            counter.fallbacks += stood_in
            if request.arrived_s >= self.plan.evidence_from_s:
                latency_s = answered_s - request.arrived_s
        unit = assigned.unit if assigned.keyed else None
        self.evidence.finished(counter, unit, now_s, latency_s, stood_in or error is not None)

    def now_s(self) -> float:
        """Return the monotonic time that arrivals are stamped with."""
        return self._clock.now_s()

    def has_expired(self, request: InferRequest) -> bool:
        """Whether a request must not be started any more."""
        return request.deadline_s is not None and request.deadline_s <= self._clock.now_s()


class RouteTable:
    """The routes of all models. Event loop only.

    Args:
        clock: the clock that arrivals are stamped with.
        shadows: mirrors the requests of routes with shadows; None mirrors nothing.
        random_unit: gives requests without a key one, 64 bits.

    Attributes:
        routes: model -> route; never changed, replaced as a whole.
        shadows: likewise.
    """

    __slots__ = ("_clock", "_random_unit", "routes", "shadows")

    def __init__(
        self,
        clock: Clock,
        shadows: ShadowSink | None = None,
        random_unit: Callable[[], int] | None = None,
    ) -> None:
        self.shadows = shadows
        self.routes: Mapping[str, Route] = {}
        self._clock = clock
        self._random_unit = random_unit or random_units()

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        """Put the complete set of plans in force at once; a model without one is served by its source.

        A route whose plan is unchanged stays as it is. Totals go on where a plan has the same rollout_id and
        step and counts alike (thresholds, unit, window, arms); else they begin at zero.

        Raises:
            ValueError: two plans for one model, or weights that cannot be split; nothing was changed.
        """
        routes: dict[str, Route] = {}
        for plan in plans:
            if plan.model in routes:
                raise ValueError(f"model '{plan.model}' has two routes")
            known = self.routes.get(plan.model)
            same = known is not None and known.plan == plan
            routes[plan.model] = known if known is not None and same else self._route(plan, known)
        self.routes = routes

    def evidence(self) -> Mapping[tuple[str, int], Mapping[str, ArmCounts]]:
        """Return the totals of every rollout in force by (rollout_id, step) and arm."""
        return {
            (route.plan.rollout_id, route.plan.step): route.evidence.totals()
            for route in self.routes.values()
            if route.plan.rollout_id
        }

    def crashed(self, version: VersionId) -> None:
        """Count a crash of a version's backend for each arm that it answers for."""
        for route in self.routes.values():
            for arm in route.arms:
                if arm.version == version:
                    arm.counter.crashes += 1

    def views(self) -> Mapping[str, RouteView]:
        """Return what is in force and what was counted, by model."""
        return {model: view_of(route) for model, route in self.routes.items()}

    def _route(self, plan: RoutePlan, known: Route | None) -> Route:
        evidence: EvidenceCounter | None = None
        if known is not None and _same_step(known.plan, plan) and known.evidence.fits(plan):
            evidence = known.evidence
        route = Route(plan, evidence or EvidenceCounter(plan), self._clock, self._random_unit)
        if evidence is not None and known is not None:
            evidence.begin_window()
            route.unkeyed, route.overridden = known.unkeyed, known.overridden
            route.overrides.refused = known.overrides.refused
        return route


def _same_step(one: RoutePlan, other: RoutePlan) -> bool:
    return (one.rollout_id, one.step) == (other.rollout_id, other.step)
