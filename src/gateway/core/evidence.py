"""What the request path counts about a rollout's arms, and what it is told to do.

The two values between `routing`, which counts and obeys, and `rollouts`, which judges and decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.rollout import Assignment, ShadowSpec
    from gateway.core.types import VersionId


@dataclass(frozen=True, slots=True)
class ArmRoute:
    """One arm of a route.

    Attributes:
        name: `stable`, `canary`, or a version text of a plain split.
        version: what answers; the digest is pinned.
        weight_ppm: its share of the keys.
    """

    name: str
    version: VersionId
    weight_ppm: int


@dataclass(frozen=True, slots=True)
class ShadowRoute:
    """One shadow of a route.

    Attributes:
        spec: how it is mirrored to and compared; its `sample_ppm` is the one in force.
        version: what it runs.
    """

    spec: ShadowSpec
    version: VersionId


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePlan:
    """Where the requests for a model go that name no version. A whole plan replaces the one before at once.

    Attributes:
        model: public name.
        arms: the first is the one that others take from; weights sum to PPM.
        shadows: mirrored to.
        assign: who gets which arm.
        rollout: name of the rollout; empty for a plain split.
        rollout_id: of the rollout; empty likewise.
        step: evidence counts for (rollout_id, step) alone.
        epoch: of the directive that this follows; 0 for a plain split.
        latency_thresholds_s: ascending; how many answers exceed each is counted.
        evidence_from_s: monotonic time before which latencies are not counted (`skip_first_s`).
        unit_is_key: bad events count once per key and window.
        window_s: the window.
    """

    model: str
    arms: tuple[ArmRoute, ...]
    shadows: tuple[ShadowRoute, ...] = ()
    assign: Assignment
    rollout: str = ""
    rollout_id: str = ""
    step: int = 0
    epoch: int = 0
    latency_thresholds_s: tuple[float, ...] = ()
    evidence_from_s: float = 0.0
    unit_is_key: bool = True
    window_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """Totals of one arm since its (rollout_id, step) began; by assigned arm, whoever answered in the end.

    Attributes:
        requests: admitted and finished, cancelled ones and those refused for their own fault left out.
        units: the same, each key once per window; equals `requests` where the unit is the request.
        errors: units that failed.
        exceeded: units slower than each threshold of the plan.
        measured: units whose latency counted.
        crashes: of the version's backend.
        fallbacks: requests that stable answered instead.
        requests_all: `requests` and those left out; what sample-ratio checks look at.
        keys: distinct buckets among `requests_all`; what sample-ratio checks look at instead where it is
            counted: users who come back put the shares of requests off though every key is in its place.
    """

    requests: int = 0
    units: int = 0
    errors: int = 0
    exceeded: tuple[int, ...] = ()
    measured: int = 0
    crashes: int = 0
    fallbacks: int = 0
    requests_all: int = 0
    keys: int = 0


def _none() -> Mapping[str, int]:
    return MappingProxyType({})


def _no_slices() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCounts:
    """Totals of one shadow since its (rollout_id, step) began: mirrored = compared + failed + sum(dropped).

    Attributes:
        mirrored: requests chosen by sampling whose primary was dispatched.
        compared: pairs compared.
        disagreed: of those, pairs that differ beyond the rules.
        failed: copies that failed, or whose primary did.
        dropped: by reason: `inflight`, `headroom`, `not_ready`, `refused`, `cancelled`, `shutdown`.
        slices: slice name -> value -> (compared, disagreed); bounded, the rest under `other`.
        under_way: mirrored and not finished yet; the identity holds once it is 0, and with it added always.
        failed_alone: of `failed`, copies that failed though the primary did not; they count as disagreement.
    """

    mirrored: int = 0
    compared: int = 0
    disagreed: int = 0
    failed: int = 0
    dropped: Mapping[str, int] = field(default_factory=_none)
    slices: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=_no_slices)
    under_way: int = 0
    failed_alone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Running totals of one replica for one (rollout_id, step): idempotent, merged by sum over replicas.

    Attributes:
        rollout_id: whose.
        step: whose.
        replica: name of the gateway process.
        boot_id: of its life; a new one starts from zero.
        seq: ascending within a boot; a later report replaces an earlier one.
        arms: by arm.
        shadows: by shadow.
    """

    rollout_id: str
    step: int
    replica: str
    boot_id: str
    seq: int
    arms: Mapping[str, ArmCounts]
    shadows: Mapping[str, ShadowCounts] = field(default_factory=dict)
