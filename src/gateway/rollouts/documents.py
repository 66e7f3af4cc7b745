"""The state of a rollout as JSON: what the store keeps, and what status, page and command line show."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rollout import ApproveStep, PauseStep, PromoteStep, ShadowStep, WeightStep
from gateway.rollouts.codec import Undecodable, decode, encode
from gateway.rollouts.decider_plans import pinned
from gateway.rollouts.freeze import frozen_until
from gateway.rollouts.gates import state_from_json, state_to_json, step_gates
from gateway.rollouts.state import RolloutState, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.evidence import ShadowCounts
    from gateway.core.rollout import Step

VERSION: Final = 1
"""Of the document; a gateway refuses one that is newer than itself."""

_NOT_STORED: Final = ("store", "gates", "verdict", "ticked_s", "grew_s", "asked_s", "entered_s", "ignored")
"""Times of one process life, and what is found out anew."""
_KINDS: Final[Mapping[type, str]] = {
    ShadowStep: "shadow",
    WeightStep: "weight",
    PauseStep: "pause",
    ApproveStep: "approve",
    PromoteStep: "promote",
}
_ASKED: Final = frozenset(
    {
        "sample_ppm",
        "weight_ppm",
        "min_bake_s",
        "max_bake_s",
        "gates",
        "require",
        "duration_s",
        "count",
        "roles",
        "not_author",
        "expires_s",
        "keep_stable_warm_s",
    }
)
"""Fields of steps that people look at."""


def document_key(name: str) -> str:
    """Return the key under which a line of rollouts is stored."""
    return f"rollouts/{name}"


def to_document(state: RolloutState) -> dict[str, Any]:
    """Return what is stored."""
    kept = replace(state, store=Store(), gates=None, verdict=None, resolve_at_s=0.0)
    body = {name: part for name, part in encode(kept).items() if name not in _NOT_STORED}
    gates = None if state.gates is None else state_to_json(state.gates)
    return {"version": VERSION, "state": body, "gates": gates}


def restore(document: Mapping[str, Any]) -> RolloutState:
    """Return the state of which `to_document` made the document; give it to `step` with `Restarted` next.

    Raises:
        Undecodable: it is no such document, or one of a newer gateway.
    """
    if document.get("version") != VERSION:
        raise Undecodable(f"version {document.get('version')!r}, this gateway reads {VERSION}")
    state = decode(RolloutState, document["state"])
    try:
        gates = None if document.get("gates") is None else state_from_json(document["gates"])
    except ValueError as exc:
        raise Undecodable(str(exc)) from exc
    return replace(state, gates=gates)


def show(state: RolloutState, wall_s: float) -> dict[str, Any]:
    """Return what status, page and command line show.

    Args:
        state: to be shown.
        wall_s: now, for the end of a freeze.
    """
    spec = state.spec
    frozen_to = frozen_until(spec.freeze, wall_s) if spec is not None else None
    return {
        "name": state.name,
        "model": spec.model if spec is not None else "",
        "rollout_id": state.rollout_id,
        "phase": state.phase.value,
        "reason": state.reason,
        "since": state.since_wall_s,
        "step": _step(state),
        "steps": [_asked(step) for step in spec.steps] if spec is not None else [],
        "weight_ppm": state.weight_ppm,
        "epoch": state.epoch,
        "advancing": state.prepared is not None,
        "paused": state.paused or (spec is not None and spec.paused),
        "frozen": frozen_to is not None,
        "frozen_until": frozen_to if frozen_to != float("inf") else None,
        "targets": _targets(state),
        "shadows": [_shadow(state, s.name, s.target.text) for s in spec.shadows] if spec is not None else [],
        "thresholds_s": _thresholds_s(state),
        "arms": {name: encode(counts) for name, counts in state.totals.arms.items()},
        "shadow_counts": {name: _shadow_counts(counts) for name, counts in state.totals.shadows.items()},
        "gates": state.verdict.document() if state.verdict is not None else [],
        "bake": _bake(state),
        "approvals": _approvals(state),
        "tombstone": _tombstone(state),
        "replicas": {name: _replica(state, name) for name in sorted(state.replicas)},
        "history": [_move(move) for move in state.history],
        "spec": encode(spec) if spec is not None else None,
        "file": {
            "path": state.file.path,
            "hash": state.file.seen_hash,
            "active_hash": state.file.active_hash,
            "error": state.file.error,
            "author": state.file.author,
        },
        "store": {"revision": state.store.revision, "lost": state.store.lost, "leading": state.store.leading},
    }


def _shadow_counts(counts: ShadowCounts) -> dict[str, Any]:
    """Return totals; how many copies are under way is no total."""
    return {name: count for name, count in encode(counts).items() if name != "under_way"}


def _present(state: RolloutState) -> Step | None:
    steps = state.spec.steps if state.spec is not None else ()
    return steps[state.step] if 0 <= state.step < len(steps) else None


def _step(state: RolloutState) -> dict[str, Any]:
    step = _present(state)
    of = len(state.spec.steps) if state.spec is not None else 0
    return {"index": state.step, "of": of, "kind": _KINDS[type(step)] if step is not None else ""}


def _asked(step: Step) -> dict[str, Any]:
    """Return a step as the file has it: its kind, and what it asks for in the units of the names."""
    asked = {name: value for name, value in encode(step).items() if name in _ASKED and value is not None}
    return {"kind": _KINDS[type(step)], **asked}


def _thresholds_s(state: RolloutState) -> list[float]:
    """Return the latencies over which `exceeded` of the arms counts answers, in its order."""
    spec = state.spec
    if spec is None or not 0 <= state.serving < len(spec.steps):
        return []
    return list(step_gates(spec, state.serving).thresholds_s)


def _targets(state: RolloutState) -> dict[str, Any]:
    spec = state.spec
    texts = {"stable": spec.stable, "canary": spec.canary} if spec is not None else {}
    shown = {}
    for arm, target in texts.items():
        version = state.targets.get(arm)
        if arm == "stable" and version is None:
            version = pinned(state)
        shown[arm] = _version(state, arm, version) | {"text": target.text if target is not None else ""}
    return shown


def _shadow(state: RolloutState, name: str, text: str) -> dict[str, Any]:
    return {"name": name, "text": text} | _version(state, name, state.targets.get(name))


def _version(state: RolloutState, arm: str, version: Any) -> dict[str, Any]:
    number = version.number if version is not None else None
    digest = version.digest if version is not None else ""
    return {"version": number, "label": state.labels.get(arm, ""), "digest": digest}


def _bake(state: RolloutState) -> dict[str, Any]:
    step = _present(state)
    least = most = None
    if isinstance(step, ShadowStep | WeightStep):
        least, most = step.min_bake_s, step.max_bake_s
    elif isinstance(step, PauseStep):
        least = most = step.duration_s
    elif isinstance(step, PromoteStep):
        least = most = step.keep_stable_warm_s
    return {
        "served_s": state.served_s,
        "elapsed_s": state.elapsed_s,
        "min_s": least,
        "max_s": most,
        "inconclusive": state.inconclusive,
    }


def _approvals(state: RolloutState) -> dict[str, Any]:
    step = _present(state)
    needed = step.count if isinstance(step, ApproveStep) else 0
    return {
        "needed": needed,
        "roles": sorted(step.roles) if isinstance(step, ApproveStep) else [],
        "evidence_hash": state.approval_hash,
        "given": [{"who": a.who, "at": a.wall_s, "roles": sorted(a.roles)} for a in state.approvals],
    }


def _tombstone(state: RolloutState) -> dict[str, Any] | None:
    buried = state.tombstones.get(state.base_id)
    return None if buried is None else dataclasses.asdict(buried)


def _replica(state: RolloutState, name: str) -> dict[str, Any]:
    view = state.replicas[name]
    return {
        "live": view.live,
        "epoch": view.epoch,
        "lowered": view.lowered,
        "acknowledged": name in state.acks,
        "ready": sorted(version.number for version in view.ready),
        "failed": {str(version.number): why for version, why in view.failed.items()},
    }


def _move(move: Any) -> dict[str, Any]:
    return {
        "serial": move.serial,
        "at": move.wall_s,
        "from": move.source.value,
        "to": move.phase.value,
        "step": move.step,
        "reason": move.reason,
        "who": move.who,
    }
