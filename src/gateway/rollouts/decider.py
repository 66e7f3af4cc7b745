"""The controller of a line of rollouts, as one pure function.

`step(state, event)` gives the state afterwards and what is to be done, in order. It has no clock, no I/O and
no chance in it, accepts any event in any state, and never raises: an event that means nothing leaves
`state.ignored` behind. Its shell carries the effects out and feeds back what becomes of them.

What advances is written before it takes hold (`Publish` follows `StoreWritten`), what withdraws takes hold
before it is written (`Retreat` comes first). Nothing but a live leader over a store that confirms its writes,
with fresh evidence, acknowledged by the replicas, can raise a weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.rollouts import events as ev
from gateway.rollouts.decider_evidence import ask_gates, on_answer, on_evidence
from gateway.rollouts.decider_files import on_gone, on_refused, on_spec
from gateway.rollouts.decider_operator import on_operator
from gateway.rollouts.decider_progress import on_tick, progress
from gateway.rollouts.decider_replicas import on_ack, on_lost, on_report, on_seen
from gateway.rollouts.decider_start import on_resolve_failed, on_resolved
from gateway.rollouts.decider_store import flush, on_conflict, on_restarted, on_written
from gateway.rollouts.decider_store import on_lost as on_store_lost
from gateway.rollouts.decider_work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.rollouts.effects import Effect
    from gateway.rollouts.state import RolloutState


def step(state: RolloutState, event: ev.Event) -> tuple[RolloutState, tuple[Effect, ...]]:
    """Return the state after an event, and the effects to carry out in this order.

    Args:
        state: before; `RolloutState(name=...)` in the beginning, which `Restarted` brings to life.
        event: what happened.
    """
    work = Work(state, event)
    if not state.store.leading and not isinstance(event, ev.Restarted):
        work.ignore("not the decider")
        return work.state, ()
    handle = _HANDLERS.get(type(event))
    if handle is None:
        work.ignore(f"unknown event {type(event).__name__}")
        return work.state, ()
    handle(work, event)
    if work.state.store.leading:
        work.look_at_windows()  # the event may have brought other ones
        progress(work)
        ask_gates(work)
        flush(work, is_tick=isinstance(event, ev.Tick))
    return work.state, tuple(work.effects)


_HANDLERS: Final[Mapping[type, Callable[[Work, Any], None]]] = {
    ev.SpecSeen: on_spec,
    ev.SpecRefused: on_refused,
    ev.SpecGone: on_gone,
    ev.Resolved: on_resolved,
    ev.ResolveFailed: on_resolve_failed,
    ev.ReplicaSeen: on_seen,
    ev.ReplicaLost: on_lost,
    ev.ReplicaAck: on_ack,
    ev.ReplicaReport: on_report,
    ev.EvidenceReport: on_evidence,
    ev.GateAnswer: on_answer,
    ev.Tick: lambda work, _: on_tick(work),
    ev.Operator: on_operator,
    ev.Restarted: on_restarted,
    ev.StoreWritten: on_written,
    ev.StoreConflict: on_conflict,
    ev.StoreLost: on_store_lost,
}
