"""What makes two rollouts the same one: hashes over canonical JSON."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from gateway.rollouts.codec import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.rollout import RolloutSpec
    from gateway.core.types import VersionId
    from gateway.rollouts.gates import StepVerdict
    from gateway.rollouts.state import Totals

NO_PART_OF_IT: Final = frozenset({"paused", "author", "freeze"})
"""Fields of a specification that may change without making it another rollout."""
ID_LENGTH: Final = 16
"""Hexadecimal digits of a rollout_id: 64 bits, of at most some thousands per line."""


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def semantics(spec: RolloutSpec) -> Mapping[str, Any]:
    """Return the parts of a specification that matter, as JSON types."""
    return {name: part for name, part in encode(spec).items() if name not in NO_PART_OF_IT}


def base_id(spec: RolloutSpec, targets: Mapping[str, VersionId]) -> str:
    """Return the identity of a specification with its targets resolved; without any, a provisional one."""
    digests = {arm: [v.number, v.digest] for arm, v in targets.items()}
    return digest_of({"spec": semantics(spec), "targets": digests})[:ID_LENGTH]


def attempt_id(base: str, attempt: int) -> str:
    """Return the rollout_id of the n-th time, from 1, that a rollout of this identity begins."""
    return f"{base}-{attempt}" if attempt > 1 else base


def attempt_of(rollout_id: str) -> tuple[str, int]:
    """Return what `attempt_id` made a rollout_id of."""
    base, _, attempt = rollout_id.partition("-")
    return base, int(attempt) if attempt.isdecimal() else 1


def evidence_hash(rollout_id: str, step: int, totals: Totals, verdict: StepVerdict | None) -> str:
    """Return the hash that stands for evidence and verdicts: counts, and what every gate made of them."""
    body = {
        "rollout_id": rollout_id,
        "step": step,
        "arms": {name: encode(counts) for name, counts in totals.arms.items()},
        "shadows": {name: encode(counts) for name, counts in totals.shadows.items()},
        "verdicts": {w.name: v.outcome.value for w, v in verdict.gates} if verdict else {},
    }
    return digest_of(body)
