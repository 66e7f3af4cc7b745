"""Sample-ratio mismatch: whether the arms get the shares that they should."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.rollout import CANARY, STABLE
from gateway.rollouts.gates.states import SrmState
from gateway.rollouts.gates.verdicts import GateVerdict, Outcome, nats, rate
from gateway.statistics.allocation import log_e

if TYPE_CHECKING:
    from gateway.core.rollout import SrmGate
    from gateway.rollouts.gates.counts import Delta


def initial(canary_share: float) -> SrmState:
    """Return no evidence about a canary that should get this share."""
    return SrmState((canary_share, 1 - canary_share))


def update(state: SrmState, delta: Delta) -> SrmState:
    """Add what was counted."""
    canary, stable = delta.arm(CANARY), delta.arm(STABLE)
    return replace(
        state,
        requests=(state.requests[0] + canary.requests_all, state.requests[1] + stable.requests_all),
        keys=(state.keys[0] + canary.keys, state.keys[1] + stable.keys),
    )


def verdict(gate: SrmGate, state: SrmState) -> GateVerdict:
    """Return HOLD while a mismatch is shown, PASS without one, UNDECIDED before the first request.

    Distinct keys are judged where they are counted: a few busy users put the shares of requests off for good
    although every key is where it belongs.
    """
    unit, counts = ("keys", state.keys) if any(state.keys) else ("requests", state.requests)
    evidence = log_e(counts, state.shares)
    bound = -math.log(gate.alpha)
    numbers = {
        "log_e_mismatch": nats(evidence),
        "log_bound_mismatch": nats(bound),
        "unit": unit,
        "canary": counts[0],
        "stable": counts[1],
        "share": rate(counts[0], sum(counts)),
        "expected_share": state.shares[0],
    }
    if not sum(counts):
        return GateVerdict(Outcome.UNDECIDED, "no requests yet", numbers)
    words = f"{counts[0]} of {sum(counts)} {unit} for a share of {state.shares[0]:g}"
    if evidence >= bound:
        return GateVerdict(Outcome.HOLD, f"assignment is broken: the canary got {words}", numbers)
    return GateVerdict(Outcome.PASS, f"the canary got {words}", numbers)
