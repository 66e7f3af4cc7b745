"""What a running gateway says about a rollout file that is to come: what would change, traffic, memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.client import GatewayClient, raise_for_status
from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.models_table import memory_by_version
from gateway.commands.rollout_client import RolloutClient
from gateway.config.rollout_listing import read_rollout
from gateway.core.errors import ConfigError
from gateway.core.rollout import ApproveStep, PauseStep, RolloutSpec
from gateway.rollouts.codec import Undecodable, decode
from gateway.rollouts.edits import Edit, begins_another, classify
from gateway.rollouts.phases import IN_PROGRESS, PREPARING, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.commands.client import Address
    from gateway.config.rollout_file import RolloutFile

_TIMEOUT_S: Final = 5.0
_MEANING: Final = {
    Edit.OVERLAY: "(a) at once; the rollout goes on",
    Edit.EASE: "(a) at once: the weight is lowered and the step bakes anew",
    Edit.REGATE: "(b) at once: the evidence of the present step is void, and it bakes anew",
    Edit.RESTART: "(c) the rollout in progress is superseded; stable stays, and it starts at the first step",
    Edit.REFUSED: "(d, e) refused until the rollout in progress is over",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What putting the file in place would do.

    Attributes:
        kind: `unknown`, `none`, `start`, `clash`, or the class of the edit.
        text: in words.
        phase: of the rollout that is there; empty where there is none.
        step: it stands at, as the gateway shows it.
    """

    kind: str
    text: str
    phase: str = ""
    step: Mapping[str, Any] = field(default_factory=dict)


UNKNOWN: Final = Change("unknown", "no gateway was asked")


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway to ask.

    Attributes:
        admin: its administration port.
        http: its HTTP port.
        metrics: its metrics port.
        interval_s: between the two looks that tell the traffic.
    """

    admin: Address
    http: Address
    metrics: Address
    interval_s: float = 2.0

    def change(self, file: RolloutFile) -> Change:
        """Return what the file would change; UNKNOWN's kind and the reason where nobody answers."""
        try:
            index = RolloutClient(self.admin).index()
        except CommandFailed as exc:
            if exc.code is Exit.USAGE:
                raise
            return Change(UNKNOWN.kind, f"not compared with what runs: {exc}")
        return change_of(file, index)

    def requests_per_s(self, model: str) -> float | None:
        """Return the requests for a model answered per second just now; None where nobody can tell."""
        try:
            with GatewayClient(self.http, _TIMEOUT_S) as client:
                before, at_s = _answered(client, model), time.perf_counter()
                time.sleep(self.interval_s)
                return (_answered(client, model) - before) / (time.perf_counter() - at_s)
        except (CommandFailed, KeyError, TypeError, ValueError):
            return None

    def memory_bytes(self, model: str) -> dict[str, int]:
        """Return what the versions of a model hold now, by number; nothing where nobody can tell."""
        try:
            with GatewayClient(self.metrics, _TIMEOUT_S) as client:
                reply = client.request("GET", "/metrics")
            raise_for_status(reply)
        except CommandFailed:
            return {}
        found = memory_by_version(reply.body.decode(errors="replace"))
        return {version: held for (name, version), held in sorted(found.items()) if name == model}


def _answered(client: GatewayClient, model: str) -> int:
    statistics = client.json("GET", f"/v2/models/{model}/stats")
    return sum(int(v["inference_stats"]["success"]["count"]) for v in statistics["model_stats"])


def change_of(file: RolloutFile, index: Mapping[str, Any]) -> Change:
    """Return what the file would change in a gateway whose rollouts are `index`."""
    spec = file.spec
    rollouts = [r for r in index.get("rollouts", ()) if isinstance(r, dict)]
    same = next((r for r in rollouts if r.get("name") == file.name), None)
    others = [r for r in rollouts if r is not same and r.get("model") == spec.model and _is_there(r)]
    others += [s for s in index.get("splits", ()) if isinstance(s, dict) and s.get("model") == spec.model]
    if others and isinstance(spec, RolloutSpec):
        named = others[0].get("name") or "a split"
        return Change("clash", f"refused: {named} speaks for model '{spec.model}' already; remove its file")
    if not isinstance(spec, RolloutSpec):
        return Change("start", "the split is in force as soon as its versions are ready")
    if same is None:
        return Change("start", "a new rollout starts")
    return _against(file, spec, same)


def _is_there(document: Mapping[str, Any]) -> bool:
    return bool(dict(document.get("file") or {}).get("active_hash"))


def _against(file: RolloutFile, spec: RolloutSpec, document: Mapping[str, Any]) -> Change:
    phase = Phase(document.get("phase", Phase.IDLE.value))
    step: Mapping[str, Any] = document.get("step") or {}

    def change(kind: str, text: str) -> Change:
        return Change(kind, text, phase.value, step)

    if dict(document.get("file") or {}).get("active_hash") == file.hash:
        return change("none", "this very file is in force")
    old = _spec_of(document)
    if old is None:
        return change(UNKNOWN.kind, "the gateway does not tell what is in force, so the edit has no class")
    if phase not in IN_PROGRESS:
        begins = begins_another(old, spec, promoted=phase in {Phase.PROMOTED, Phase.ROLLBACK_WINDOW})
        return change("start", "a new rollout starts") if begins else change("none", "nothing starts")
    at = int(step.get("index", 0))
    edit, what = classify(old, spec, -1 if phase in PREPARING and not at else _serving(old, at), at)
    return change(edit.value, f"{what}: {_MEANING[edit]}")


def _serving(spec: RolloutSpec, at: int) -> int:
    """Return the step whose weight is in force at a step: itself, or the one before a wait."""
    watched = (i for i in range(min(at, len(spec.steps) - 1), -1, -1) if not _waits(spec, i))
    return next(watched, -1)


def _waits(spec: RolloutSpec, index: int) -> bool:
    return isinstance(spec.steps[index], PauseStep | ApproveStep)


def _spec_of(document: Mapping[str, Any]) -> RolloutSpec | None:
    """Return what is in force: as the gateway tells it, else from its file, if that is here and unchanged."""
    if "spec" in document:
        try:
            return decode(RolloutSpec, document["spec"])
        except Undecodable:
            return None
    place = dict(document.get("file") or {})
    try:
        file = read_rollout(Path(str(place.get("path", ""))))
    except ConfigError:
        return None
    in_force = file.hash == place.get("active_hash")
    return file.spec if in_force and isinstance(file.spec, RolloutSpec) else None
