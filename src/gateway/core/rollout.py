"""What a rollout file says, as values: targets, assignment, steps, gates, policy.

Parsed by `config`, judged by `rollouts`, obeyed by `routing`. Weights and shares are integers in parts per
million (`PPM` is everything), times are seconds, rates are fractions of 1. Every value is immutable and
compares by content.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

PPM: Final = 1_000_000
STABLE: Final = "stable"
CANARY: Final = "canary"


@dataclass(frozen=True, slots=True)
class Target:
    """A version of the model's own source, as the file names it.

    Attributes:
        text: `@alias`, a version number, or a registry's label, `1.4.2`.
    """

    text: str

    @property
    def alias(self) -> str:
        """The alias without its `@`; empty when the text names a version."""
        return self.text[1:] if self.text.startswith("@") else ""


class KeyKind(enum.Enum):
    """Where an assignment key comes from."""

    HEADER = "header"
    JWT = "jwt"
    PARAMETER = "parameter"
    REQUEST_ID = "request_id"


@dataclass(frozen=True, slots=True)
class KeySource:
    """One place to look for the assignment key; the first that is present wins.

    Attributes:
        kind: where.
        name: of the header (lower case), claim or parameter; empty for REQUEST_ID.
    """

    kind: KeyKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class HashSpec:
    """How a key becomes a bucket; unchangeable while a rollout is in progress.

    bucket = (xxh3_64(len(salt) + salt + len(key) + key) * 1,000,000) >> 64, lengths as little-endian u32,
    text as raw UTF-8.

    Attributes:
        salt: of the line of rollouts, so that other rollouts try out other users.
        algorithm: the hash function.
        version: of this formula.
    """

    salt: str
    algorithm: Literal["xxh3_64"] = "xxh3_64"
    version: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class HeaderOverride:
    """A header by which a caller chooses the arm itself.

    Attributes:
        header: its name, lower case; its value is the arm's name.
        arms: the arms that may be chosen so.
        scope: what the caller's principal must be allowed; empty: anybody may.
    """

    header: str
    arms: frozenset[str]
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who gets which arm.

    Attributes:
        hash: how keys become buckets.
        keys: where keys come from, in order; without any of them the request's own id, which is not sticky.
        overrides: choices by header; the first that applies wins.
        fallback_stable: a request that fails in the canary is answered by stable, and counts against the
            canary.
        holdout_ppm: keys, from the end of the buckets, that no canary gets before it is promoted.
    """

    hash: HashSpec
    keys: tuple[KeySource, ...] = (KeySource(KeyKind.REQUEST_ID),)
    overrides: tuple[HeaderOverride, ...] = ()
    fallback_stable: bool = False
    holdout_ppm: int = 0


class Comparison(enum.Enum):
    """How a shadow's output is compared with the primary's."""

    EXACT = "exact"
    """Every element equal; NaN equals NaN."""
    ABSOLUTE = "absolute"
    """No element differs by more than `tolerance`."""
    RELATIVE = "relative"
    """No element differs by more than `tolerance` times the primary's magnitude."""
    TOP_K = "top_k"
    """The `tolerance` largest of the last axis are the same elements in the same order."""


@dataclass(frozen=True, slots=True)
class OutputRule:
    """What counts as agreement in one output.

    Attributes:
        output: its name.
        how: the comparison.
        tolerance: as `how` says; 0 for EXACT.
    """

    output: str
    how: Comparison = Comparison.EXACT
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """A version that gets copies of requests and whose answers nobody sees.

    Attributes:
        name: of the arm; `canary` while a shadow step tries the canary so.
        target: the version.
        sample_ppm: share of requests mirrored.
        max_inflight: copies under way at once; more are dropped and counted.
        headroom_ppm: share of the device's slots that must be free for a copy to run.
        rules: outputs compared; empty compares every output exactly.
        slices: request headers or parameters by whose value disagreement is broken down.
    """

    name: str
    target: Target
    sample_ppm: int = PPM
    max_inflight: int = 8
    headroom_ppm: int = 0
    rules: tuple[OutputRule, ...] = ()
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preparation:
    """What must hold before a canary gets any traffic; warm-up and golden test are the model's own.

    Attributes:
        load_timeout_s: time to fetch, verify, load, warm and test; ABORTED beyond.
        ready_replicas_ppm: share of the live replicas that must have it READY.
    """

    load_timeout_s: float = 300.0
    ready_replicas_ppm: int = PPM


class Requirement(enum.Enum):
    """What a step asks of its gates."""

    NO_HARM = "no_harm"
    """No gate has found harm, and the least evidence is there."""
    NON_INFERIOR = "non_inferior"
    """Every comparison has proven its margin."""


@dataclass(frozen=True, slots=True)
class ShadowStep:
    """Mirror to the canary; it answers nobody.

    Attributes:
        max_inflight: with `headroom_ppm` and `rules`, of the shadow that the canary is then; see ShadowSpec.
    """

    sample_ppm: int
    min_bake_s: float
    max_bake_s: float
    gates: tuple[str, ...] = ()
    require: Requirement = Requirement.NON_INFERIOR
    max_inflight: int = 8
    headroom_ppm: int = 0
    rules: tuple[OutputRule, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightStep:
    """Give the canary a share of the keys."""

    weight_ppm: int
    min_bake_s: float
    max_bake_s: float
    gates: tuple[str, ...] = ()
    require: Requirement = Requirement.NON_INFERIOR


@dataclass(frozen=True, slots=True)
class PauseStep:
    """Wait so long, or until somebody resumes when `duration_s` is None. The weight stays as it is."""

    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class ApproveStep:
    """Wait for people.

    Attributes:
        count: how many must approve.
        roles: groups one of which every approver must be in; empty: anybody's approval counts.
        not_author: who wrote the file, or last resumed or retried the rollout, does not count.
        expires_s: an approval older than this counts no more.
    """

    count: int = 1
    roles: frozenset[str] = frozenset()
    not_author: bool = True
    expires_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class PromoteStep:
    """Give the canary everything; always the last step.

    Attributes:
        keep_stable_warm_s: how long the old stable stays loaded for a rollback; gates are watched meanwhile.
        gates: that roll back when they find harm in that time.
    """

    keep_stable_warm_s: float = 3600.0
    gates: tuple[str, ...] = ()


Step: TypeAlias = ShadowStep | WeightStep | PauseStep | ApproveStep | PromoteStep


@dataclass(frozen=True, slots=True)
class SrmGate:
    """Sample-ratio mismatch: the arms do not get the shares that they should. Holds, never aborts."""

    alpha: float = 0.0005


@dataclass(frozen=True, slots=True)
class ErrorsGate:
    """The canary's rate of failed requests against stable's.

    Attributes:
        abort_ratio: harm is a rate ratio above this.
        pass_margin: to pass, the ratio is proven to be below this.
        or_abs_below: or the canary's own rate is proven to be below this; None: no such way to pass.
        min_events: failures of both arms before a comparison may pass.
        min_requests: canary requests before anything may pass.
    """

    abort_ratio: float = 1.0
    pass_margin: float = 1.5
    or_abs_below: float | None = None
    min_events: int = 30
    min_requests: int = 1000


@dataclass(frozen=True, slots=True)
class ExceedGate:
    """How often the canary's latency exceeds a threshold, against stable's.

    Attributes:
        threshold_s: the latency, from the arrival of the request to its answer.
        skip_first_s: requests so soon after a change of weight are not counted.
        others: as ErrorsGate.
    """

    threshold_s: float
    abort_ratio: float = 1.0
    pass_margin: float = 1.25
    or_abs_below: float | None = None
    min_events: int = 30
    min_requests: int = 1000
    skip_first_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CrashesGate:
    """Crashes of the canary: more than `max_crashes` is harm."""

    max_crashes: int = 0


@dataclass(frozen=True, slots=True)
class FallbacksGate:
    """Canary requests that stable had to answer: harm when the rate is proven to be above `max_rate`."""

    max_rate: float = 0.001
    min_requests: int = 1000


@dataclass(frozen=True, slots=True)
class DisagreeGate:
    """Shadow answers that differ: harm when the rate is proven above `max_rate`, pass when proven below it.

    Attributes:
        max_rate: share of compared pairs.
        min_pairs: compared before it may pass.
        slices: headers or parameters for whose every value the same must hold; harm only, the error split.
        shadow: the shadow that it is about.
    """

    max_rate: float
    min_pairs: int = 1000
    slices: tuple[str, ...] = ()
    shadow: str = CANARY


@dataclass(frozen=True, slots=True)
class ExternalGate:
    """A verdict by HTTP: GET of `url` answers `{"verdict": "pass"|"fail"|"hold"|"no_data", "reason": ""}`."""

    url: str
    timeout_s: float = 2.0
    interval_s: float = 10.0


@dataclass(frozen=True, slots=True)
class PrometheusGate:
    """A PromQL expression that gives one number: harm where it is beyond `max_value` or below `min_value`.

    Attributes:
        url: the Prometheus server.
        query: the expression; `{canary}` and `{stable}` stand for version numbers, `{model}` for the model.
        for_s: it must be out of bounds so long.
    """

    url: str
    query: str
    max_value: float | None = None
    min_value: float | None = None
    for_s: float = 0.0
    timeout_s: float = 5.0
    interval_s: float = 15.0


Gate: TypeAlias = (
    SrmGate
    | ErrorsGate
    | ExceedGate
    | CrashesGate
    | FallbacksGate
    | DisagreeGate
    | ExternalGate
    | PrometheusGate
)


@dataclass(frozen=True, slots=True)
class TestSpec:
    """The statistics of all gates together.

    Attributes:
        alpha_abort: the chance that gates ever abort an identical canary in the whole rollout, however often
            one looks.
        alpha_pass: the chance that a canary as bad as the margin ever passes.
        unit: a bad event counts once per `key` and window, or once per `request`.
        window_s: the window.
    """

    alpha_abort: float = 0.01
    alpha_pass: float = 0.05
    unit: Literal["key", "request"] = "key"
    window_s: float = 10.0


class Hesitation(enum.Enum):
    """What to do where neither pass nor harm is shown in time. Never to advance."""

    HOLD = "hold"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows from verdicts.

    Attributes:
        inconclusive: at `max_bake_s` without a pass.
        no_data: no evidence arrives.
        canary_capacity_lost: the canary is not READY any more on some replica.
    """

    inconclusive: Hesitation = Hesitation.HOLD
    no_data: Hesitation = Hesitation.HOLD
    canary_capacity_lost: Hesitation = Hesitation.ABORT


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """When nothing starts, advances or is promoted; aborts are never blocked.

    Attributes:
        cron: when it begins, five fields.
        for_s: how long it lasts.
        timezone: IANA name.
    """

    cron: str
    for_s: float
    timezone: str = "UTC"


def _no_gates() -> Mapping[str, tuple[Gate, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """One rollout file.

    Attributes:
        name: of the line of rollouts; one rollout of it is in progress at most.
        model: public name of the model.
        stable: what serves; None: whatever serves when the rollout starts.
        canary: what is tried; None only while there are no steps (shadows alone).
        shadows: versions mirrored to throughout, besides a shadow step's.
        assign: who gets which arm.
        prepare: before any traffic.
        steps: in order; the last is a PromoteStep.
        gates: by group name, the gates that steps name.
        test: statistics.
        policy: what follows from verdicts.
        freeze: when nothing advances.
        author: who wrote the file, for approvals; empty: its owner on disk.
        paused: the file asks for a pause.
    """

    name: str
    model: str
    stable: Target | None
    canary: Target | None
    shadows: tuple[ShadowSpec, ...] = ()
    assign: Assignment
    prepare: Preparation = field(default_factory=Preparation)
    steps: tuple[Step, ...] = ()
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=_no_gates)
    test: TestSpec = field(default_factory=TestSpec)
    policy: Policy = field(default_factory=Policy)
    freeze: tuple[FreezeWindow, ...] = ()
    author: str = ""
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """A plain split or shadow of a model's versions, without automation.

    Attributes:
        model: public name of the model.
        weights: version text -> parts per million, sum PPM; others take from the lowest version. Empty:
            whatever serves anyway (shadows alone).
        shadows: versions mirrored to.
        assign: who gets which version; arms are named by their version texts.
    """

    model: str
    weights: Mapping[str, int]
    shadows: tuple[ShadowSpec, ...] = ()
    assign: Assignment
