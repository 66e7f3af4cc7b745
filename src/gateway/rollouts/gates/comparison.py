"""Errors and exceeded latencies: the canary's rate of bad units against stable's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.core.rollout import CANARY, STABLE, ErrorsGate, ExceedGate, Requirement
from gateway.rollouts.gates.states import ComparisonState
from gateway.rollouts.gates.verdicts import GateVerdict, Outcome, nats, rate
from gateway.statistics import dispersion, ratio
from gateway.statistics import rate as one_rate
from gateway.statistics.mixture import ABOVE, BELOW, BELOW_TO_NONE, log_e, start
from gateway.statistics.ratio import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.evidence import ArmCounts
    from gateway.rollouts.gates.counts import Delta
    from gateway.rollouts.gates.verdicts import Look

ComparisonGate: TypeAlias = ErrorsGate | ExceedGate

WINDOW_UNITS: Final = 10
WINDOW_S: Final = 20.0
"""A window is closed when both arms have `WINDOW_UNITS` units, or after this time when both have any.
Smaller ones would compare one unit with the next and learn nothing; larger ones would delay an abort and mix
times in which the whole service did better or worse. Neither depends on how the units fared."""


def initial(now_s: float) -> ComparisonState:
    """Return no evidence."""
    return ComparisonState(start(ABOVE), start(BELOW), start(BELOW_TO_NONE), Window(), now_s)


def update(
    gate: ComparisonGate, state: ComparisonState, delta: Delta, thresholds_s: Sequence[float], now_s: float
) -> ComparisonState:
    """Add what was counted; an ExceedGate finds its threshold in `thresholds_s`, as `exceeded` is ordered."""
    canary = _units(gate, delta.arm(CANARY), thresholds_s)
    stable = _units(gate, delta.arm(STABLE), thresholds_s)
    counted = delta.arm(CANARY).requests if isinstance(gate, ErrorsGate) else canary[0]
    grown = replace(
        state,
        absolute=_absolute(gate, state, canary),
        open=_sum(state.open, Window(*canary, *stable)),
        opened_s=min(state.opened_s, now_s),
        requests=state.requests + counted,
    )
    return _close(gate, grown, now_s) if _is_full(grown, now_s) else grown


def verdict(gate: ComparisonGate, state: ComparisonState, look: Look) -> GateVerdict:
    """Return HARM once shown, PASS as `look.require` says, else UNDECIDED."""
    numbers = _numbers(gate, state, look)
    if state.harm.peak >= look.harm_bound:
        return GateVerdict(Outcome.HARM, f"{_rates(gate, state)}: {_worse(gate.abort_ratio)}", numbers)
    if state.requests < gate.min_requests:
        return _undecided(f"{state.requests} of at least {gate.min_requests} canary requests", numbers)
    if look.require is Requirement.NO_HARM:
        if log_e(state.harm) >= look.harm_bound:
            # Harm, unless it only looks so because events came in groups: more windows will tell.
            return _undecided(
                f"{_rates(gate, state)}: harm, or groups of them; it is too early to tell", numbers
            )
        return GateVerdict(Outcome.PASS, f"no harm in {state.requests} canary requests", numbers)
    return _proven(gate, state, numbers)


def _worse(ratio: float) -> str:
    return "worse than stable" if ratio == 1 else f"more than {ratio:g} times stable's rate"


def ways_to_pass(gate: ComparisonGate) -> int:
    """Return among how many tests the chance of a false pass is divided."""
    return 1 if gate.or_abs_below is None else 2


def _proven(gate: ComparisonGate, state: ComparisonState, numbers: dict[str, Any]) -> GateVerdict:
    bound = numbers["log_bound_pass"]
    if gate.or_abs_below is not None and log_e(state.absolute, _together(state)) >= bound:
        reason = f"{_rates(gate, state)}: proven below {gate.or_abs_below:g}"
        return GateVerdict(Outcome.PASS, reason, numbers)
    events = state.closed.canary_events + state.closed.stable_events
    if events < gate.min_events:
        return _undecided(f"{events:g} of at least {gate.min_events} {_bad(gate)}", numbers)
    if log_e(state.proof, _together(state)) >= bound:
        reason = f"{_rates(gate, state)}: proven below {gate.pass_margin:g} times"
        return GateVerdict(Outcome.PASS, reason, numbers)
    return _undecided(f"{_rates(gate, state)}: neither harm nor the margin is shown", numbers)


def _undecided(reason: str, numbers: dict[str, Any]) -> GateVerdict:
    return GateVerdict(Outcome.UNDECIDED, reason, numbers)


def _units(gate: ComparisonGate, arm: ArmCounts, thresholds_s: Sequence[float]) -> tuple[int, int]:
    """Return units and bad units."""
    if isinstance(gate, ErrorsGate):
        return arm.units, arm.errors
    at = thresholds_s.index(gate.threshold_s)
    return arm.measured, arm.exceeded[at] if at < len(arm.exceeded) else 0


def _absolute(gate: ComparisonGate, state: ComparisonState, canary: tuple[int, int]) -> Any:
    if gate.or_abs_below is None:
        return state.absolute
    return one_rate.below(state.absolute, (canary[1], canary[0]), gate.or_abs_below, _together(state))


def _together(state: ComparisonState) -> float:
    return dispersion.index(state.canary, state.stable)


def _is_full(state: ComparisonState, now_s: float) -> bool:
    least = min(state.open.canary_units, state.open.stable_units)
    return least >= (1 if now_s - state.opened_s >= WINDOW_S else WINDOW_UNITS)


def _close(gate: ComparisonGate, state: ComparisonState, now_s: float) -> ComparisonState:
    window = state.open
    canary = dispersion.add(state.canary, window.canary_units, window.canary_events)
    stable = dispersion.add(state.stable, window.stable_units, window.stable_events)
    together = dispersion.index(canary, stable)
    return replace(
        state,
        harm=ratio.above(state.harm, window, gate.abort_ratio, together),
        proof=ratio.below(state.proof, window, gate.pass_margin, together),
        canary=canary,
        stable=stable,
        open=Window(),
        opened_s=now_s,
        closed=_sum(state.closed, window),
    )


def _sum(a: Window, b: Window) -> Window:
    return Window(
        a.canary_units + b.canary_units,
        a.canary_events + b.canary_events,
        a.stable_units + b.stable_units,
        a.stable_events + b.stable_events,
    )


def _bad(gate: ComparisonGate) -> str:
    return "failures" if isinstance(gate, ErrorsGate) else f"answers slower than {gate.threshold_s:g} s"


def _rates(gate: ComparisonGate, state: ComparisonState) -> str:
    total = _sum(state.closed, state.open)
    return (
        f"{_bad(gate)}: canary {total.canary_events:g} of {total.canary_units:g}, "
        f"stable {total.stable_events:g} of {total.stable_units:g}"
    )


def _numbers(gate: ComparisonGate, state: ComparisonState, look: Look) -> dict[str, Any]:
    total, together = _sum(state.closed, state.open), _together(state)
    canary_rate = rate(total.canary_events, total.canary_units)
    stable_rate = rate(total.stable_events, total.stable_units)
    numbers: dict[str, Any] = {
        "log_e_harm": nats(log_e(state.harm, together)),
        "log_e_harm_peak": nats(state.harm.peak),
        "log_bound_harm": nats(look.harm_bound),
        "log_e_pass": nats(log_e(state.proof, together)),
        "log_bound_pass": look.pass_bound + _LOG[ways_to_pass(gate)],
        "canary": {"units": total.canary_units, "events": total.canary_events, "rate": canary_rate},
        "stable": {"units": total.stable_units, "events": total.stable_events, "rate": stable_rate},
        "ratio": rate(canary_rate, stable_rate) if canary_rate is not None and stable_rate else None,
        "requests": state.requests,
        "grouping": round(together, 3),
        "min_requests": gate.min_requests,
        "min_events": gate.min_events,
    }
    if gate.or_abs_below is not None:
        numbers["log_e_absolute"] = nats(log_e(state.absolute, together))
    return numbers


_LOG: Final = {1: 0.0, 2: 0.6931471805599453}
