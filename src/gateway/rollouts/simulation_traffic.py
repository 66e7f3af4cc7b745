"""Traffic that never was: what the arms of a plan would have counted, second by second, by assumed rates."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gateway.core.evidence import ArmCounts, Evidence, ShadowCounts
from gateway.core.rollout import CANARY, PPM

if TYPE_CHECKING:
    from gateway.core.evidence import RoutePlan
    from gateway.core.types import VersionId

    _Counts: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How requests are assumed to fare; fractions of 1, but for the first.

    Attributes:
        requests_per_s: for the model, from the beginning to the end.
        stable_errors: of stable's requests, failed.
        canary_errors: of the canary's requests, failed, whoever answers in its place.
        stable_slow: of stable's answers, slower than the thresholds, whatever they are.
        canary_slow: of the canary's answers, likewise.
        disagreement: of compared pairs, those that differ.
        fallbacks: of the canary's requests, answered by stable in its place, besides those that fail; None:
            all that fail, where the file says so.
    """

    requests_per_s: float
    stable_errors: float = 0.0
    canary_errors: float = 0.0
    stable_slow: float = 0.0
    canary_slow: float = 0.0
    disagreement: float = 0.0
    fallbacks: float | None = None


@dataclass(slots=True)
class Seen:
    """What became of requests that the canary was to answer, and of copies that it got.

    Attributes:
        requests: assigned to it.
        errors: of those, failed, whoever answered in the end.
        users_errors: of those, failed for the user.
        pairs: copies that it ran as a shadow.
    """

    requests: int = 0
    errors: int = 0
    users_errors: int = 0
    pairs: int = 0

    def __sub__(self, other: Seen) -> Seen:
        return Seen(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Seen)))


class Traffic:
    """Draws what is counted, and keeps the running totals of one (rollout_id, step).

    Every kind of count has random numbers of its own, one draw for every second: as long as the same plan is
    in force, the totals at a moment are the same whatever the strides that led there. Every request counts
    as another user's.

    Args:
        rates: assumed.
        seed: of the random numbers.
        fallback_stable: as the file says.

    Attributes:
        seen: since the rollout began.
        canary: the version that does as the canary does, whatever its arm is called; None: not known yet.
    """

    def __init__(self, rates: Rates, seed: int, *, fallback_stable: bool) -> None:
        self.seen = Seen()
        self.canary: VersionId | None = None
        self._rates = rates
        self._fallback_stable = fallback_stable
        self._seed = np.random.SeedSequence(seed)
        self._streams: dict[str, np.random.Generator] = {}
        self._tally = _Tally()
        self._seq = 0

    def crash(self) -> None:
        """Count a crash of the canary."""
        self._tally.arm(CANARY).crashes += 1

    def begin(self, plan: RoutePlan) -> None:
        """Count for this plan's step from now on; none without a rollout, nor the same one."""
        key = (plan.rollout_id, plan.step)
        if plan.rollout_id and key != self._tally.key:
            self._tally = _Tally(key)

    def flow(self, plan: RoutePlan, seconds: int, *, measured: bool) -> None:
        """Let so many seconds of requests be answered.

        Args:
            plan: in force.
            seconds: whole ones.
            measured: whether latencies count yet.
        """
        left = self._stream("arrivals").poisson(self._rates.requests_per_s, seconds)
        arrived, rest = left, PPM
        for arm in plan.arms[1:]:
            share = min(arm.weight_ppm, PPM - plan.assign.holdout_ppm)
            given = self._some(f"sent to {arm.name}", left, share / rest)
            left, rest = left - given, rest - share
            self._answer(arm.name, given, plan, arm.version == self.canary, measured=measured)
        first = plan.arms[0]
        self._answer(first.name, left, plan, first.version == self.canary, measured=measured)
        for shadow in plan.shadows:
            copies = self._some(f"mirrored to {shadow.spec.name}", arrived, shadow.spec.sample_ppm / PPM)
            self._mirror(shadow.spec.name, copies, shadow.version == self.canary)

    def evidence(self, replica: str, boot_id: str) -> Evidence | None:
        """Return the totals; None where nothing counts for any rollout."""
        tally = self._tally
        if not tally.key[0]:
            return None
        self._seq += 1
        return Evidence(
            rollout_id=tally.key[0],
            step=tally.key[1],
            replica=replica,
            boot_id=boot_id,
            seq=self._seq,
            arms={name: arm.counts() for name, arm in tally.arms.items()},
            shadows={
                name: ShadowCounts(
                    mirrored=compared + failed,
                    compared=compared,
                    disagreed=disagreed,
                    failed=failed,
                    failed_alone=failed,
                )
                for name, (compared, disagreed, failed) in tally.shadows.items()
            },
        )

    def _answer(self, name: str, given: _Counts, plan: RoutePlan, is_canary: bool, *, measured: bool) -> None:
        rates = self._rates
        failed = self._some(
            f"errors of {name}", given, rates.canary_errors if is_canary else rates.stable_errors
        )
        slow = self._some(f"slow of {name}", given, rates.canary_slow if is_canary else rates.stable_slow)
        requests, errors, fallbacks, users_errors = int(given.sum()), int(failed.sum()), 0, int(failed.sum())
        if is_canary and self._fallback_stable and name == CANARY:
            if rates.fallbacks is None:
                fallbacks = errors
                users_errors = int(self._some("errors after fallback", failed, rates.stable_errors).sum())
            else:
                fallbacks = int(self._some("fallbacks", given - failed, rates.fallbacks).sum())
                errors += fallbacks
        if is_canary:
            self.seen.requests += requests
            self.seen.errors += errors
            self.seen.users_errors += users_errors
        if not plan.rollout_id:
            return
        arm = self._tally.arm(name)
        arm.requests += requests
        arm.errors += errors
        arm.fallbacks += fallbacks
        arm.thresholds = len(plan.latency_thresholds_s)
        if measured:
            arm.measured += requests
            arm.slow += int(slow.sum())

    def _mirror(self, name: str, copies: _Counts, is_canary: bool) -> None:
        failed = self._some(
            f"failed copies to {name}", copies, self._rates.canary_errors if is_canary else 0.0
        )
        compared = copies - failed
        disagreed = self._some(f"disagreement of {name}", compared, self._rates.disagreement)
        if is_canary:
            self.seen.pairs += int(copies.sum())
        before = self._tally.shadows.get(name, (0, 0, 0))
        now = int(compared.sum()), int(disagreed.sum()), int(failed.sum())
        self._tally.shadows[name] = (before[0] + now[0], before[1] + now[1], before[2] + now[2])

    def _some(self, what: str, of: _Counts, rate: float) -> _Counts:
        return self._stream(what).binomial(of, rate)

    def _stream(self, what: str) -> np.random.Generator:
        found = self._streams.get(what)
        if found is None:
            key = tuple(what.encode())
            found = np.random.default_rng(np.random.SeedSequence(self._seed.entropy, spawn_key=key))
            self._streams[what] = found
        return found


@dataclass(slots=True)
class _Arm:
    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    crashes: int = 0
    measured: int = 0
    slow: int = 0
    thresholds: int = 0

    def counts(self) -> ArmCounts:
        return ArmCounts(
            requests=self.requests,
            units=self.requests,
            errors=self.errors,
            exceeded=(self.slow,) * self.thresholds,
            measured=self.measured,
            crashes=self.crashes,
            fallbacks=self.fallbacks,
            requests_all=self.requests,
        )


@dataclass(slots=True)
class _Tally:
    """Running totals of one (rollout_id, step); shadows as compared, disagreed, failed."""

    key: tuple[str, int] = ("", 0)
    arms: dict[str, _Arm] = field(default_factory=dict)
    shadows: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def arm(self, name: str) -> _Arm:
        return self.arms.setdefault(name, _Arm())
