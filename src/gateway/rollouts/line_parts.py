"""What a line of rollouts works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.core.clock import Clock
    from gateway.core.evidence import RoutePlan
    from gateway.core.state import StateStore
    from gateway.rollouts.line import Line
    from gateway.rollouts.pins import Pins
    from gateway.rollouts.ports import Notices, VersionClaims
    from gateway.rollouts.recording import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class LineParts:
    """What a line works with.

    Attributes:
        clock: monotonic time.
        wall_s: seconds since the epoch.
        store: where its state is kept.
        recorder: appends to the audit chain, in the background and in order.
        claims: loads versions.
        pins: its versions.
        route: puts its plan in force; None: it has none.
        notices: tells whoever wants to know.
        start: runs a coroutine until it ends or the gateway does.
        changed: called when anything that people see has changed.
        take_over: has a line decide again by what the store has now.
        is_starting: whether no request is taken yet.
        replica: name of this process.
        boot_id: of its life.
    """

    clock: Clock
    wall_s: Callable[[], float]
    store: StateStore
    recorder: Recorder
    claims: VersionClaims
    pins: Pins
    route: Callable[[str, RoutePlan | None], None]
    notices: Notices
    start: Callable[[Coroutine[Any, Any, None]], object]
    changed: Callable[[str], None]
    take_over: Callable[[Line], Coroutine[Any, Any, None]]
    is_starting: Callable[[], bool]
    replica: str
    boot_id: str


class Now(TypedDict):
    """The time, as every event of the decider has it."""

    now_s: float
    wall_s: float
