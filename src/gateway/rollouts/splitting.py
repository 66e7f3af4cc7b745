"""Plain splits and shadows: puts what their files say in force, and judges nothing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import GatewayError, ModelLoadError
from gateway.core.evidence import ArmRoute, RoutePlan, ShadowRoute
from gateway.core.rollout import Target
from gateway.core.types import VersionState
from gateway.rollouts.pausing import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.clock import Clock
    from gateway.core.rollout import SplitSpec
    from gateway.core.targets import ResolvedTarget
    from gateway.core.types import VersionId
    from gateway.rollouts.pins import Pins
    from gateway.rollouts.ports import VersionClaims

_log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
"""Between attempts to find the versions of a split."""


@dataclass(slots=True)
class _Split:
    """One model's split.

    Attributes:
        spec: what its file says.
        pins: its versions.
        plan: in force; None until its versions were found once.
        versions: those of the plan.
        error: why `plan` is not what `spec` says; empty when it is.
        bringing: brings `spec` in force.
        changed: set when a version of the model enters another state.
        tried: set once it was tried to bring `spec` in force.
    """

    spec: SplitSpec
    pins: Pins
    plan: RoutePlan | None = None
    versions: frozenset[VersionId] = frozenset()
    error: str = ""
    bringing: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)


class Splits:
    """Every model with a plain split. Event loop only; owns its tasks.

    A change takes hold whole, once every version of it is READY; until then, and when one fails to load, what
    was in force stays. The first plan of a model takes hold as soon as its versions are found: it keeps the
    model's requests from versions that its file does not name.

    Args:
        claims: loads versions.
        pins: makes the pins of a name.
        apply: called when `plans` has changed.
        clock: timers.
    """

    def __init__(
        self, claims: VersionClaims, pins: Callable[[str], Pins], apply: Callable[[], None], clock: Clock
    ) -> None:
        self._claims = claims
        self._pins = pins
        self._apply = apply
        self._clock = clock
        self._splits: dict[str, _Split] = {}

    def plans(self) -> list[RoutePlan]:
        """Return the plans in force, with the identities that versions have now."""
        return [s.pins.translated(s.plan) for s in self._splits.values() if s.plan is not None]

    def errors(self) -> Mapping[str, str]:
        """Return, by model, why what its file says is not in force."""
        return {model: split.error for model, split in self._splits.items() if split.error}

    async def replace(self, specs: Sequence[SplitSpec]) -> None:
        """Bring the complete set of splits in force, in the background; returns when the pins are read."""
        wanted = {spec.model: spec for spec in specs}
        for model in self._splits.keys() - wanted.keys():
            await self._drop(model)
        for model, spec in wanted.items():
            split = self._splits.get(model)
            if split is not None and split.spec == spec:
                continue
            if split is None:
                split = self._splits[model] = _Split(spec, self._pins(f"split {model}"))
                await split.pins.load()
            split.spec = spec
            await _cancelled(split.bringing)
            split.bringing = asyncio.create_task(self._bring(split), name=f"split {model}")

    def on_transition(self, model: str) -> None:
        """Take note that a version of a model has changed its state."""
        if (split := self._splits.get(model)) is not None:
            split.changed.set()

    async def tried(self) -> None:
        """Wait until every split is in force, or has failed to be once."""
        for split in list(self._splits.values()):
            await split.tried.wait()

    async def aclose(self) -> None:
        """Stop bringing anything in force; claims and plans stay as they are."""
        for split in self._splits.values():
            await _cancelled(split.bringing)

    async def _drop(self, model: str) -> None:
        split = self._splits.pop(model)
        await _cancelled(split.bringing)
        self._apply()
        self._claim(split, frozenset())

    async def _bring(self, split: _Split) -> None:
        while True:
            try:
                await self._bring_once(split)
            except GatewayError as error:
                if str(error) != split.error:
                    split.error = str(error)
                    _log.warning("the split of model %r is not in force: %s", split.spec.model, error)
            except Exception as error:  # noqa: BLE001 - any: the next attempt may do better
                split.error = f"failed: {error!r}"
                _log.exception("bringing the split of model %r in force failed", split.spec.model)
            else:
                split.error = ""
                split.tried.set()
                return
            split.tried.set()
            await pause(self._clock, RETRY_S)

    async def _bring_once(self, split: _Split) -> None:
        """Raises GatewayError when a version cannot be found or loaded."""
        found = await self._found(split)
        plan = plan_of(split.spec, {text: one.wanted.id for text, one in found.items()})
        versions = frozenset(one.wanted.id for one in found.values())
        await split.pins.keep(found.values(), split.versions)
        self._claim(split, split.versions | versions)
        if split.plan is not None:
            await self._all_ready(split, versions)
        split.plan, split.versions = plan, versions
        self._apply()
        self._claim(split, versions)

    async def _found(self, split: _Split) -> dict[str, ResolvedTarget]:
        spec = split.spec
        texts = [*spec.weights, *(shadow.target.text for shadow in spec.shadows)]
        return {text: await split.pins.resolve(spec.model, Target(text)) for text in dict.fromkeys(texts)}

    def _claim(self, split: _Split, versions: frozenset[VersionId]) -> None:
        self._claims.apply(f"split {split.spec.model}", split.pins.wanted(versions))

    async def _all_ready(self, split: _Split, versions: frozenset[VersionId]) -> None:
        present = {split.pins.present(version) for version in versions}
        while True:
            split.changed.clear()
            states = {row.id: row for row in self._claims.index() if row.id in present}
            for row in states.values():
                if row.state is VersionState.FAILED:
                    raise ModelLoadError(f"version {row.id.number} failed to load: {row.reason}")
            if {v for v, row in states.items() if row.state is VersionState.READY} == present:
                return
            await split.changed.wait()


def plan_of(spec: SplitSpec, versions: Mapping[str, VersionId]) -> RoutePlan:
    """Return the plan of a split; others take from the arm of the lowest version.

    Args:
        spec: the split.
        versions: what each text that it names was resolved to.
    """
    arms = [ArmRoute(text, versions[text], weight) for text, weight in spec.weights.items()]
    return RoutePlan(
        model=spec.model,
        arms=tuple(sorted(arms, key=lambda arm: arm.version.number)),
        shadows=tuple(ShadowRoute(shadow, versions[shadow.target.text]) for shadow in spec.shadows),
        assign=spec.assign,
    )


def split_row(plan: RoutePlan, error: str) -> dict[str, Any]:
    """Return a plain split as a document."""
    return {
        "model": plan.model,
        "error": error,
        "arms": [
            {"name": arm.name, "version": arm.version.number, "weight_ppm": arm.weight_ppm}
            for arm in plan.arms
        ],
        "shadows": [
            {"name": one.spec.name, "version": one.version.number, "sample_ppm": one.spec.sample_ppm}
            for one in plan.shadows
        ],
    }


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
