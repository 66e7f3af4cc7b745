"""`gateway plan`: what a rollout file would change, how long its steps take, and what to be careful about."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.commands.plan_estimate import Assumed, StepEstimate, about, cautions, estimate
from gateway.commands.plan_gateway import UNKNOWN, Change, Running
from gateway.commands.plan_table import print_plan
from gateway.config.rollout_listing import read_rollout
from gateway.core.rollout import PromoteStep, RolloutSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.config.rollout_file import RolloutFile


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What to plan.

    Attributes:
        file: the rollout file.
        running: the gateway to ask; None asks nobody.
        requests_per_s: for the model; None: as the gateway sees them now.
        rates: by kind of gate (`errors`, `exceed`, `disagree`), the share of bad requests expected of stable.
        as_json: print JSON instead of tables.
    """

    file: Path
    running: Running | None = None
    requests_per_s: float | None = None
    rates: Mapping[str, float] = field(
        default_factory=lambda: {"errors": 0.001, "exceed": 0.01, "disagree": 0.001}
    )
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What would come of a file.

    Attributes:
        path: of the file.
        hash: SHA-256 of its bytes.
        name: of the rollout; of a split, the model's.
        model: its model.
        change: against the running gateway.
        assumed: traffic and rates.
        steps: what is expected of each.
        likely_s: of all steps together with a good canary, waits for people left out; infinite where one
            cannot pass, None where that is not known.
        capacity: what must fit beside what is there, in words.
        warnings: what to be careful about.
    """

    path: str
    hash: str
    name: str
    model: str
    change: Change
    assumed: Assumed
    steps: tuple[StepEstimate, ...]
    likely_s: float | None
    capacity: tuple[str, ...]
    warnings: tuple[str, ...]


def plan(options: PlanOptions) -> None:
    """Print what would come of a rollout file.

    Raises:
        ConfigError: the file is wrong; every complaint on a line of its own.
    """
    found = make_plan(options)
    if options.as_json:
        sys.stdout.write(json.dumps(document(found)) + "\n")
    else:
        print_plan(found)


def make_plan(options: PlanOptions) -> Plan:
    """Return what would come of a rollout file; raises as `plan`."""
    file = read_rollout(options.file)
    running = options.running
    assumed = _assumed(file, options)
    spec = file.spec
    steps = estimate(spec, assumed) if isinstance(spec, RolloutSpec) else ()
    warnings = [*file.warnings]
    if isinstance(spec, RolloutSpec):
        if steps and assumed.requests_per_s is None:
            warnings.append("the traffic is not known: give --requests-per-second to have times to a verdict")
        warnings += cautions(spec, steps)
    return Plan(
        path=file.path,
        hash=file.hash,
        name=file.name,
        model=spec.model,
        change=running.change(file) if running else UNKNOWN,
        assumed=assumed,
        steps=steps,
        likely_s=_total(steps),
        capacity=tuple(_capacity(file, running.memory_bytes(spec.model) if running else {})),
        warnings=tuple(warnings),
    )


def _assumed(file: RolloutFile, options: PlanOptions) -> Assumed:
    if options.requests_per_s is not None:
        return Assumed(options.requests_per_s, options.rates, "given")
    if options.running is None or not isinstance(file.spec, RolloutSpec):
        return Assumed(None, options.rates)
    seen = options.running.requests_per_s(file.spec.model)
    if not seen:
        return Assumed(None, options.rates, "none seen")
    return Assumed(seen, options.rates, f"seen in {options.running.interval_s:g} s")


def _total(steps: tuple[StepEstimate, ...]) -> float | None:
    """Return the time of all steps that do not wait for people."""
    times = [step.likely_s for step in steps if step.max_s is not None or step.min_s]
    return None if None in times else sum(t for t in times if t is not None)


def _capacity(file: RolloutFile, held: Mapping[str, int]) -> list[str]:
    """Return what must fit, in words."""
    spec = file.spec
    named = [shadow.target.text for shadow in spec.shadows]
    if not isinstance(spec, RolloutSpec):
        versions = dict.fromkeys([*spec.weights, *named])
        found = [f"{len(versions)} versions are loaded together: {', '.join(versions)}"]
    else:
        stable = spec.stable.text if spec.stable else "what serves now"
        canary = [spec.canary.text] if spec.canary else []
        found = [f"loaded together: {', '.join([stable, *canary, *named])}"]
        last = spec.steps[-1] if spec.steps else None
        if isinstance(last, PromoteStep):
            found.append(f"the old stable stays loaded for {about(last.keep_stable_warm_s)} after promotion")
    if held:
        texts = ", ".join(f"version {version} {size / 1e6:.1f} MB" for version, size in held.items())
        most = max(held.values()) / 1e6
        found.append(f"loaded now: {texts}; a version like the largest takes {most:.1f} MB")
    return found


def document(found: Plan) -> dict[str, Any]:
    """Return the plan as JSON types; a time that never comes is the text `never`."""
    body: dict[str, Any] = _plain(asdict(found))
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and math.isinf(value):
        return "never"
    return value
