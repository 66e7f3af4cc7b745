"""What following a route costs a request: assignment, marking and evidence, in microseconds of one core.

`python -m loadtests.routing_cost`, and the same with `PYTHONPATH=build/compiled` for the compiled package.
Requests pass through the router to a version that answers at once, without network, codec or batcher. Each
row is the least of its rounds, which are interleaved; the others are compared with that without a table.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.clock import LoopClock
from gateway.core.errors import BackendError
from gateway.core.evidence import ArmRoute, RoutePlan
from gateway.core.pending import Pending
from gateway.core.rollout import PPM, Assignment, HashSpec, HeaderOverride, KeyKind, KeySource
from gateway.core.types import Datatype, InferRequest, InferResponse, Tensor, VersionId
from gateway.routing import routes
from gateway.routing.router import Router
from gateway.routing.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIMIT_US: Final = 5.0
"""What routing and evidence together may cost."""
KEYS: Final = 4096
ARRAY: Final = np.zeros((1, 4), np.float32)
INPUTS: Final = (Tensor("x", Datatype.FP32, ARRAY),)
THRESHOLDS_S: Final = (0.01, 0.04, 0.1)


@dataclass(frozen=True)
class Version:
    """As much of a served version as the router looks at."""

    id: VersionId


class Held:
    """A lease on a version that does nothing, so that what is measured is the router's."""

    def __init__(self, version: Version) -> None:
        self.version: Any = version

    def submit(self, request: InferRequest) -> Pending:
        """Admit it."""
        return Pending(request)

    def stream(self, request: InferRequest) -> Any:
        """Nothing here streams."""
        raise NotImplementedError(request.model_name)

    def release(self) -> None:
        """Let go."""


class Versions:
    """A catalog of versions 1 and 2."""

    def __init__(self) -> None:
        one, two = (Held(Version(VersionId("m", number, f"d{number}"))) for number in (1, 2))
        self._leases = {"1": one, "2": two, "": two}

    def lease(self, model: str, version: str = "") -> Held:
        """Take a lease."""
        del model
        return self._leases[version]


def requests(count: int, **fields: Any) -> list[InferRequest]:
    """Return requests of so many users in turn."""
    headers = [{"x-user": f"user-{index % KEYS}"} for index in range(count)]
    return [
        InferRequest(model_name="m", inputs=INPUTS, headers=headers[i], arrived_s=1.0, **fields)
        for i in range(count)
    ]


def plan(**changes: Any) -> RoutePlan:
    """Return a plan of two arms with thresholds, by a header's key."""
    made = RoutePlan(
        model="m",
        arms=(
            ArmRoute("stable", VersionId("m", 1, "d1"), PPM // 2),
            ArmRoute("canary", VersionId("m", 2, "d2"), PPM // 2),
        ),
        assign=Assignment(HashSpec("salt"), (KeySource(KeyKind.HEADER, "x-user"),)),
        rollout="r",
        rollout_id="id",
        latency_thresholds_s=THRESHOLDS_S,
    )
    return replace(made, **changes)


def table_of(*plans: RoutePlan) -> RouteTable:
    """Return a table with these plans."""
    made = RouteTable(LoopClock())
    made.apply(plans)
    return made


def through(table: RouteTable | None, *, fails: bool = False) -> Callable[[Sequence[InferRequest]], None]:
    """Return what passes requests through a router; with `fails` those of the canary fail there."""
    router = Router(Versions(), table=table)  # type: ignore[arg-type]  # as much of a catalog as it asks

    def run(sent: Sequence[InferRequest]) -> None:
        submit = router.submit
        failure = BackendError("x")
        for request in sent:
            pending = submit(request)
            if fails and request.served_version == 2:
                pending.fail(failure)
                continue
            pending.complete(InferResponse(model_name="m", model_version="1", outputs=INPUTS))

    return run


def cases() -> dict[str, Callable[[Sequence[InferRequest]], None]]:
    """Return what is measured, by name; the first is the one that the others are compared with."""
    assign = plan().assign
    overrides = (HeaderOverride("x-arm", frozenset({"canary"}), "arms"),)
    sources = (KeySource(KeyKind.JWT, "sub"), KeySource(KeyKind.PARAMETER, "p"), *assign.keys)
    return {
        "no table": through(None),
        "no routes": through(table_of()),
        "a route, key in a header": through(table_of(plan())),
        "third of three sources, an override": through(
            table_of(plan(assign=replace(assign, keys=sources, overrides=overrides)))
        ),
        "no key": through(table_of(plan(assign=replace(assign, keys=())))),
        "fallback possible": through(table_of(plan(assign=replace(assign, fallback_stable=True)))),
        "each request a unit": through(table_of(plan(unit_is_key=False))),
        "half of them fail": through(table_of(plan()), fails=True),
    }


def measured(count: int, rounds: int) -> dict[str, float]:
    """Return microseconds per request by case: the least of the rounds."""
    least: dict[str, float] = {}
    made = cases()
    for _ in range(rounds):
        for name, run in made.items():
            sent = requests(count)
            gc.collect()
            gc.disable()
            began_s = time.perf_counter()
            run(sent)
            seconds = time.perf_counter() - began_s
            gc.enable()
            least[name] = min(least.get(name, seconds), seconds)
    return {name: seconds / count * 1e6 for name, seconds in least.items()}


def main() -> int:
    """Print the table; 1 if the plain route costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    figures = measured(given.requests, given.rounds)
    base = figures["no table"]
    print("compiled" if not (routes.__file__ or "").endswith(".py") else "interpreted")
    for name, figure in figures.items():
        print(f"{name:40} {figure:7.2f} us {figure - base:+7.2f} us")
    return int(figures["a route, key in a header"] - base > LIMIT_US)


if __name__ == "__main__":
    raise SystemExit(main())
