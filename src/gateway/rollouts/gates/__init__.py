"""Gates: what a step's evidence says about the canary. Pure: no clock, no I/O, state in, state out.

The controller uses five functions on two values, all re-exported here::

    gates = step_gates(spec, index)                      # StepGates: the gates in force, the error split
    state = begin(gates, now_s)                          # StepState: no evidence yet
    state = observe(gates, state, delta(old, new), now_s)          # at every report of a replica
    state = hear(gates, state, "drift.external", Answer(...))      # at every answer of `gates.asked`
    judged = judge(gates, state, now_s)                  # StepVerdict: outcome, reason, a verdict per gate

`delta(old, new)` is what one replica counted between two of its reports (`old` None for its first),
`merge(...)` adds such differences up, `CRASH` is one crash of the canary. `state_to_json` and
`state_from_json` are for the journal. `gates.thresholds_s` and `gates.skip_first_s` go into the RoutePlan.
`time_to_verdict` (one gate) and `step_forecast` (a step) estimate how long a verdict takes.

`now_s` is monotonic and may start anew after a restart; what is older than the new beginning counts as stale.
"""

from gateway.rollouts.gates.counts import CRASH, Delta, delta, merge
from gateway.rollouts.gates.forecast import Forecast, Traffic, step_forecast, time_to_verdict
from gateway.rollouts.gates.states import Answer, AnswerKind, GateState
from gateway.rollouts.gates.step import (
    StepGates,
    StepState,
    StepVerdict,
    WatchedGate,
    begin,
    hear,
    judge,
    observe,
    state_from_json,
    state_to_json,
    step_gates,
)
from gateway.rollouts.gates.verdicts import GateVerdict, Look, Outcome

__all__ = [
    "CRASH",
    "Answer",
    "AnswerKind",
    "Delta",
    "Forecast",
    "GateState",
    "GateVerdict",
    "Look",
    "Outcome",
    "StepGates",
    "StepState",
    "StepVerdict",
    "Traffic",
    "WatchedGate",
    "begin",
    "delta",
    "hear",
    "judge",
    "merge",
    "observe",
    "state_from_json",
    "state_to_json",
    "step_forecast",
    "step_gates",
    "time_to_verdict",
]
