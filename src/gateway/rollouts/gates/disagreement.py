"""Disagreement: how often a shadow's answer differs from the one that was given, overall and by slice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.core.rollout import Requirement
from gateway.rollouts.gates.states import DisagreeState, SliceValue
from gateway.rollouts.gates.verdicts import GateVerdict, Outcome, nats, rate
from gateway.statistics import rate as one_rate
from gateway.statistics.mixture import ABOVE, BELOW_TO_NONE, log_e, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.rollout import DisagreeGate
    from gateway.rollouts.gates.counts import Delta
    from gateway.rollouts.gates.verdicts import Look


def initial(gate: DisagreeGate) -> DisagreeState:
    """Return no evidence."""
    return DisagreeState(start(ABOVE), start(BELOW_TO_NONE), slices=dict.fromkeys(gate.slices, ()))


def update(gate: DisagreeGate, state: DisagreeState, delta: Delta) -> DisagreeState:
    """Add what was counted; a copy that failed where the primary did not is a disagreement too."""
    counts = delta.shadow(gate.shadow)
    pairs = counts.compared + counts.failed_alone
    bad = counts.disagreed + counts.failed_alone
    return DisagreeState(
        one_rate.above(state.harm, (bad, pairs), gate.max_rate),
        one_rate.below(state.proof, (bad, pairs), gate.max_rate),
        state.pairs + pairs,
        state.bad + bad,
        {name: _slice(gate, values, counts.slices.get(name, {})) for name, values in state.slices.items()},
    )


def verdict(gate: DisagreeGate, state: DisagreeState, look: Look) -> GateVerdict:
    """Return HARM where too much is shown, overall or in a slice, PASS as `look.require` says."""
    numbers = _numbers(gate, state, look)
    words = f"{state.bad} of {state.pairs} pairs differ"
    if _is_harm(gate, state, look):
        return GateVerdict(Outcome.HARM, f"{words}: more than {gate.max_rate:g} of them", numbers)
    for name, value in _harmed(gate, state, look):
        words = f"{name}={value.value}: {value.bad} of {value.pairs} pairs differ"
        return GateVerdict(Outcome.HARM, f"{words}: more than {gate.max_rate:g} of them", numbers)
    if state.pairs < gate.min_pairs:
        return GateVerdict(Outcome.UNDECIDED, f"{state.pairs} of at least {gate.min_pairs} pairs", numbers)
    if look.require is Requirement.NO_HARM:
        return GateVerdict(Outcome.PASS, f"no harm: {words}", numbers)
    if log_e(state.proof) >= look.pass_bound:
        return GateVerdict(Outcome.PASS, f"{words}: proven below {gate.max_rate:g}", numbers)
    return GateVerdict(Outcome.UNDECIDED, f"{words}: neither above nor below {gate.max_rate:g}", numbers)


def _slice(
    gate: DisagreeGate, values: tuple[SliceValue, ...], counts: Mapping[str, tuple[int, int]]
) -> tuple[SliceValue, ...]:
    known = {value.value: value for value in values}
    for name in sorted(counts):
        pairs, bad = counts[name]
        before = known.get(name, SliceValue(name, start(ABOVE)))
        if pairs:
            harm = one_rate.above(before.harm, (bad, pairs), gate.max_rate)
            known[name] = replace(before, harm=harm, pairs=before.pairs + pairs, bad=before.bad + bad)
    return tuple(known.values())


def _bound(gate: DisagreeGate, look: Look) -> float:
    """Return the evidence that is harm overall: slices, where there are any, have half of the error."""
    return look.harm_bound + (math.log(2) if gate.slices else 0.0)


def _slice_bound(gate: DisagreeGate, look: Look, place: int) -> float:
    """Return the evidence that is harm in the value of a slice that was seen in this place, from 1.

    How many values there will be is not known; the errors 1 / (place (place + 1)) sum to 1 however many.
    """
    return _bound(gate, look) + math.log(len(gate.slices) * place * (place + 1))


def _is_harm(gate: DisagreeGate, state: DisagreeState, look: Look) -> bool:
    return state.harm.peak >= _bound(gate, look) or (state.bad > 0 and not gate.max_rate)


def _harmed(gate: DisagreeGate, state: DisagreeState, look: Look) -> Iterator[tuple[str, SliceValue]]:
    for name, values in state.slices.items():
        for place, value in enumerate(values, 1):
            if value.harm.peak >= _slice_bound(gate, look, place):
                yield name, value


def _numbers(gate: DisagreeGate, state: DisagreeState, look: Look) -> dict[str, Any]:
    slices = {
        name: [
            {
                "value": value.value,
                "pairs": value.pairs,
                "disagreed": value.bad,
                "log_e_harm": nats(log_e(value.harm)),
                "log_bound_harm": nats(_slice_bound(gate, look, place)),
            }
            for place, value in enumerate(values, 1)
        ]
        for name, values in state.slices.items()
    }
    return {
        "log_e_harm": nats(log_e(state.harm)),
        "log_e_harm_peak": nats(state.harm.peak),
        "log_bound_harm": nats(_bound(gate, look)),
        "log_e_pass": nats(log_e(state.proof)),
        "log_bound_pass": nats(look.pass_bound),
        "pairs": state.pairs,
        "min_pairs": gate.min_pairs,
        "disagreed": state.bad,
        "rate": rate(state.bad, state.pairs),
        "max_rate": gate.max_rate,
        "slices": slices,
    }
