"""Three ways to judge a canary, for many rollouts at once: our gates, fixed thresholds, repeated rank tests.

Our gates are those of `gateway.rollouts.gates` on arrays; a test holds the two against each other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from scipy.special import gammaln  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.rollouts.gates.comparison import WINDOW_S, WINDOW_UNITS
from gateway.statistics.allocation import PSEUDO_COUNT
from gateway.statistics.dispersion import PRIOR, WINDOWS
from gateway.statistics.mixture import ABOVE, BELOW
from loadtests.gate_simulation_traffic import STEP_MIN, WEIGHTS

if TYPE_CHECKING:
    from loadtests.gate_simulation_traffic import Counts, Tick

    Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

ALPHA_ABORT: Final = 0.01
ALPHA_PASS: Final = 0.05
SRM_ALPHA: Final = 0.0005
ERROR_MARGIN: Final = 1.5
SLOW_MARGIN: Final = 1.25
_GATES: Final = 2
HARM_BOUND: Final = -math.log(ALPHA_ABORT / (_GATES * len(WEIGHTS)))
PASS_BOUND: Final = -math.log(ALPHA_PASS / _GATES)
NEVER: Final = math.inf


class Comparison:
    """An ErrorsGate or ExceedGate of many rollouts, from the beginning of a step."""

    def __init__(self, rollouts: int, margin: float, now_s: float) -> None:
        self.harm = np.zeros((rollouts, len(ABOVE)))
        self.proof = np.zeros((rollouts, len(BELOW)))
        self._margin = margin
        self._open = np.zeros((4, rollouts), dtype=np.int64)
        self._opened_s = np.full(rollouts, now_s)
        self.peak = np.zeros(rollouts)
        self.grouping = np.ones(rollouts)
        self._spread = np.zeros((2, 5, rollouts))

    def add(self, units: tuple[Counts, Counts], events: tuple[Counts, Counts], now_s: float) -> None:
        """Add a tick."""
        self._open += np.stack([*units, *events])
        least = np.minimum(self._open[0], self._open[1])
        full = least >= np.where(now_s - self._opened_s >= WINDOW_S, 1, WINDOW_UNITS)
        (which,) = np.nonzero(full)
        if not which.size:
            return
        canary, stable, bad, good = self._open[:, which].astype(np.float64)
        for arm, (units_in, events_in) in enumerate(((canary, bad), (stable, good))):
            self._spread[arm][:, which] += np.stack(
                [units_in, events_in, units_in**2, events_in**2, units_in * events_in]
            )
        self.harm[which] += _log_ratios(bad, good, canary / (canary + stable), ABOVE)
        share = canary * self._margin / (canary * self._margin + stable)
        self.proof[which] += _log_ratios(bad, good, share, BELOW)
        self.grouping[which] = _grouping(self._spread[:, :, which])
        self.peak[which] = np.maximum(
            self.peak[which], log_mean(self.harm[which] / self.grouping[which, None])
        )
        self._open[:, which] = 0
        self._opened_s[which] = now_s

    def log_e(self, logs: Floats) -> Floats:
        """Return the evidence in `harm` or `proof`, for events that come together as they seem to."""
        return log_mean(logs / self.grouping[:, None])


class OurGates:
    """Errors, exceedance and sample-ratio mismatch, looked at in every tick. Times in minutes, NEVER without.

    Attributes:
        abort_min: when each rollout is withdrawn.
        canary_requests: what its canary had served by then.
        hold_min: when a sample-ratio mismatch was first shown.
        passed: by step, whether both comparisons had proven their margins at its end.
        ever_passed: by step, whether the errors had at any moment of it.
    """

    def __init__(self, rollouts: int) -> None:
        self._rollouts = rollouts
        self._step = -1
        self._served = np.zeros(rollouts, dtype=np.int64)
        self._in_step = np.zeros((2, rollouts), dtype=np.int64)
        self.abort_min = np.full(rollouts, NEVER)
        self.canary_requests = np.full(rollouts, NEVER)
        self.hold_min = np.full(rollouts, NEVER)
        self.passed = np.zeros((len(WEIGHTS), rollouts), dtype=bool)
        self.ever_passed = np.zeros((len(WEIGHTS), rollouts), dtype=bool)

    def look(self, tick: Tick, *, from_s: float) -> None:
        """Add a tick that began at `from_s`, and look."""
        if tick.step != self._step:
            self._step = tick.step
            self._in_step[:] = 0
            self.errors = Comparison(self._rollouts, ERROR_MARGIN, from_s)
            self.slow = Comparison(self._rollouts, SLOW_MARGIN, from_s)
        self._served += tick.units[0]
        self._in_step += np.stack(tick.units)
        self.errors.add(tick.units, tick.errors, tick.now_s)
        self.slow.add(tick.units, tick.slow, tick.now_s)
        minute = tick.now_s / 60
        harmed = np.maximum(self.errors.peak, self.slow.peak) >= HARM_BOUND
        new = harmed & np.isinf(self.abort_min)
        self.abort_min[new] = minute
        self.canary_requests[new] = self._served[new]
        mismatch = log_mismatch(self._in_step, WEIGHTS[tick.step]) >= -math.log(SRM_ALPHA)
        self.hold_min[mismatch & np.isinf(self.hold_min)] = minute
        proven = self.errors.log_e(self.errors.proof) >= PASS_BOUND
        self.ever_passed[tick.step] |= proven
        self.passed[tick.step] = proven & (self.slow.log_e(self.slow.proof) >= PASS_BOUND)


class Minutes:
    """Counts by minute, as metric servers keep them: of the canary, and of as many of stable's requests."""

    def __init__(self, rollouts: int, rng: np.random.Generator) -> None:
        size = (len(WEIGHTS) * STEP_MIN, 3, rollouts)
        self.canary = np.zeros(size, dtype=np.int64)
        self._stable = np.zeros(size, dtype=np.int64)
        self._rng = rng

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        minute = math.ceil(tick.now_s / 60) - 1
        for arm, counts in enumerate((self.canary, self._stable)):
            counts[minute] += np.stack([tick.units[arm], tick.errors[arm], tick.slow[arm]])

    def baseline(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a baseline of the canary's size, drawn from stable's requests: what rank tests ask for."""
        units = np.minimum(self.canary[:, 0], self._stable[:, 0])
        out = np.zeros_like(self.canary)
        out[:, 0] = units
        for kind in (1, 2):
            bad = np.minimum(self._stable[:, kind], self._stable[:, 0])
            out[:, kind] = self._rng.hypergeometric(bad, self._stable[:, 0] - bad, units)
        return out


def fixed_thresholds(minutes: Minutes, most_failed: int, *, slow: bool = False) -> Floats:
    """Return when thresholds as Flagger's withdraw each rollout, in minutes.

    Every minute, at least 99 % of requests succeed, or with `slow` at least 95 % of answers are in time;
    withdrawn when so many checks have failed since the beginning. A minute without requests is no failed
    check here; in Flagger it is one.
    """
    units, errors, late = (minutes.canary[:, kind] for kind in range(3))
    failed = late > 0.05 * units if slow else errors > 0.01 * units
    reached = np.cumsum(failed & (units > 0), axis=0) >= most_failed
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1.0, NEVER)


def rank_tests(minutes: Minutes, every_min: int = 5) -> Floats:
    """Return when rank tests as Kayenta's withdraw each rollout, in minutes.

    Mann-Whitney on the rates by minute since the step began, of errors and of slow answers, repeated:
    withdrawn when the lower end of the 98 % interval of the shift is above a quarter of its estimate.
    """
    canary, baseline = (_rates(counts) for counts in (minutes.canary, minutes.baseline()))
    found = np.full(canary.shape[2], NEVER)
    for step in range(len(WEIGHTS)):
        first = step * STEP_MIN
        for count in range(every_min, STEP_MIN + 1, every_min):
            (which,) = np.nonzero(np.isinf(found))
            for kind in range(2):
                window = slice(first, first + count)
                high = _is_higher(canary[window, kind][:, which], baseline[window, kind][:, which])
                found[which[high]] = first + count
    return found


def log_mean(logs: Floats) -> Floats:
    """Return the log of the mean over the last axis of what these are the logs of."""
    most = logs.max(axis=-1)
    mean: Floats = most + np.log(np.exp(logs - most[..., None]).mean(axis=-1))
    return mean


def log_mismatch(counts: np.ndarray[Any, np.dtype[np.int64]], canary_share: float) -> Floats:
    """Return the evidence of a sample-ratio mismatch; counts have the shape [canary and stable, rollouts]."""
    shares = np.array([[canary_share], [1 - canary_share]])
    weight = PSEUDO_COUNT / shares.min()
    prior = weight * shares
    terms = gammaln(prior + counts) - gammaln(prior) - counts * np.log(shares)
    total: Floats = gammaln(weight) - gammaln(weight + counts.sum(axis=0)) + terms.sum(axis=0)
    return total


def _log_ratios(bad: Floats, good: Floats, share: Floats, ratios: tuple[float, ...]) -> Floats:
    r = np.array(ratios)
    logs: Floats = bad[:, None] * np.log(r) - (bad + good)[:, None] * np.log1p(share[:, None] * (r - 1))
    return logs


def _grouping(spread: Floats) -> Floats:
    """Return the index of dispersion; the argument is [arms, sums as in `Spread`, rollouts]."""
    units, events, units_squared, events_squared, products = spread.transpose(1, 0, 2)
    rate = events / np.maximum(units, 1)
    about = np.maximum(events_squared - 2 * rate * products + rate**2 * units_squared, 0)
    windows = units**2 / np.maximum(units_squared, 1)
    left_out = about * (windows / np.maximum(windows - 1, 1e-9)) ** 2
    about = np.where(windows < WINDOWS, events_squared, np.minimum(left_out, events_squared))
    index: Floats = np.maximum((PRIOR + about.sum(axis=0)) / (PRIOR + events.sum(axis=0)), 1)
    return index


def _rates(counts: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    """Return rates by [minute, errors and slow, rollout]; 0 in a minute without requests."""
    rates: Floats = counts[:, 1:] / np.maximum(counts[:, :1], 1)
    return rates


def _is_higher(canary: Floats, baseline: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whether the Hodges-Lehmann interval lies above its tolerance; arguments: [minutes, rollouts]."""
    size = len(canary)
    shifts = (canary[:, None, :] - baseline[None, :, :]).reshape(size * size, -1)
    spread = math.sqrt(size * size * (2 * size + 1) / 12)
    low = max(math.floor(size * size / 2 - _Z98 * spread), 0)
    middle = size * size // 2
    ordered = np.partition(shifts, (low, middle), axis=0)
    higher: np.ndarray[Any, np.dtype[np.bool_]] = (ordered[low] > 0.25 * np.abs(ordered[middle])) & (
        ordered[low] > 0
    )
    return higher


_Z98: Final = 2.3263
"""Two-sided 98 %."""
