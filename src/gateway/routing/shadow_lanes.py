"""The shadows of the plans in force, as the request path meets them: who is chosen, and where that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.rollout import PPM, HashSpec
from gateway.routing.bucket import bucket_of, salted, unit_of
from gateway.routing.comparison import comparable
from gateway.routing.shadow_counts import MISSING, ShadowCounter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.evidence import RoutePlan, ShadowCounts, ShadowRoute
    from gateway.core.rollout import OutputRule, ShadowSpec
    from gateway.core.types import InferRequest, VersionId

_WORD: Final = 8


class _Key(NamedTuple):
    """What must be the same for copies to count in the same totals."""

    model: str
    rollout_id: str
    step: int
    name: str
    version: VersionId
    rules: tuple[OutputRule, ...]
    slices: tuple[str, ...]


class ShadowLoad:
    """The copies of one shadow, whatever step they began in.

    Attributes:
        copies: under way.
        running: of those, what its version's batcher has.
    """

    __slots__ = ("copies", "running")

    def __init__(self) -> None:
        self.copies = 0
        self.running = 0


class Lane:
    """One shadow of one plan.

    Attributes:
        spec: how it is mirrored to and compared.
        version: what it runs.
        number: of that version, as the text that a lease is taken by.
        counter: its totals.
        load: its copies, and those of its other steps.
    """

    __slots__ = ("_chosen", "_salt", "counter", "load", "number", "spec", "version")

    def __init__(self, key: _Key, spec: ShadowSpec, counter: ShadowCounter, load: ShadowLoad) -> None:
        self.spec = spec
        self.version = key.version
        self.number = str(key.version.number)
        self.counter = counter
        self.load = load
        # Not the rollout's own salt: else keys of the canary would be mirrored more often, or less.
        self._salt = salted(HashSpec(f"shadow/{key.rollout_id or key.model}/{key.name}"))
        self._chosen = 0

    def takes(self, request: InferRequest) -> bool:
        """Whether a request is mirrored: sampled, not the shadow's own, and with an output to compare.

        Sampling is by the hash of the request's id, which retries share, or of a running number; it is not
        sticky to users.
        """
        spec = self.spec
        if request.served_version == self.version.number:
            return False
        if spec.sample_ppm < PPM and not self._sampled(request.request_id):
            return False
        return not request.outputs or comparable([output.name for output in request.outputs], spec.rules)

    def values(self, request: InferRequest) -> tuple[str, ...]:
        """Return the values of the request for the slices: of the header of that name, or the parameter."""
        return tuple(
            [
                str(request.headers.get(name.lower()) or request.parameters.get(name, MISSING))
                for name in self.spec.slices
            ]
        )

    def _sampled(self, request_id: str) -> bool:
        if request_id:
            key = request_id.encode()
        else:
            self._chosen += 1
            key = self._chosen.to_bytes(_WORD, "little")
        return bucket_of(unit_of(self._salt, key)) < self.spec.sample_ppm


class Lanes:
    """The lanes of the plans that requests come with, made when the first does."""

    def __init__(self) -> None:
        self._by_model: dict[str, tuple[RoutePlan, tuple[Lane, ...]]] = {}
        self._counters: dict[_Key, ShadowCounter] = {}
        self._loads: dict[tuple[str, str], ShadowLoad] = {}

    def of(self, plan: RoutePlan) -> tuple[Lane, ...]:
        """Return the lanes of a plan."""
        known = self._by_model.get(plan.model)
        if known is not None and known[0] is plan:
            return known[1]
        lanes = tuple([self._lane(_key(plan, shadow), shadow.spec) for shadow in plan.shadows])
        self._by_model[plan.model] = (plan, lanes)
        return lanes

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        """Make the lanes of these plans, and forget all others; as `ShadowMirror.apply`."""
        plans = tuple(plans)
        keys = {_key(plan, shadow) for plan in plans for shadow in plan.shadows}
        self._counters = {key: counter for key, counter in self._counters.items() if key in keys}
        names = {(key.model, key.name) for key in keys}
        self._loads = {name: load for name, load in self._loads.items() if load.copies or name in names}
        self._by_model = {}
        for plan in plans:
            self.of(plan)

    def totals(self) -> Mapping[tuple[str, str, int], Mapping[str, ShadowCounts]]:
        """Return all totals: (model, rollout_id, step) -> name of the shadow -> counts."""
        found: dict[tuple[str, str, int], dict[str, ShadowCounts]] = {}
        for key, counter in self._counters.items():
            found.setdefault(key[:3], {})[key.name] = counter.counts()
        return found

    def _lane(self, key: _Key, spec: ShadowSpec) -> Lane:
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = ShadowCounter(spec.slices)
        load = self._loads.setdefault((key.model, key.name), ShadowLoad())
        return Lane(key, spec, counter, load)


def _key(plan: RoutePlan, shadow: ShadowRoute) -> _Key:
    spec = shadow.spec
    return _Key(plan.model, plan.rollout_id, plan.step, spec.name, shadow.version, spec.rules, spec.slices)
