"""The `steps:` section of rollout files."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from gateway.config.rollout_assignment import MirrorSettings
from gateway.config.rollout_values import Name, PositiveDuration, PositivePercent
from gateway.config.section import Section
from gateway.core.rollout import (
    PPM,
    ApproveStep,
    PauseStep,
    PromoteStep,
    Requirement,
    ShadowStep,
    Step,
    WeightStep,
)


class BakeSettings(Section):
    """How long a step is watched, and by what."""

    min_bake: PositiveDuration
    """Time that it serves at least before the next step."""
    max_bake: PositiveDuration
    """Time after which `policy.inconclusive` decides where neither pass nor harm is shown."""
    gates: tuple[Name, ...] = Field(min_length=1)
    """Groups of gates that judge it."""
    require: Literal["no_harm", "non_inferior"] = "non_inferior"
    """`non_inferior`: every comparison has proven its margin. `no_harm`: no harm is found and the least
    evidence is there; for early steps of little weight."""

    @model_validator(mode="after")
    def _bake(self) -> Self:
        if self.max_bake <= self.min_bake:
            raise ValueError("max_bake must be longer than min_bake")
        return self


class ShadowStepSettings(BakeSettings, MirrorSettings):
    """Mirror to the canary; it answers nobody."""

    shadow: Literal["canary"]
    """Who gets the copies."""
    sample: PositivePercent = PPM
    """Share of requests mirrored; unset: all."""

    def step(self) -> ShadowStep:
        """Return the step."""
        return ShadowStep(
            sample_ppm=self.sample,
            min_bake_s=self.min_bake,
            max_bake_s=self.max_bake,
            gates=self.gates,
            require=Requirement(self.require),
            max_inflight=self.max_inflight,
            headroom_ppm=self.headroom,
            rules=self.rules(),
        )


class WeightStepSettings(BakeSettings):
    """Give the canary a share of the keys."""

    weight: PositivePercent
    """The share."""

    def step(self) -> WeightStep:
        """Return the step."""
        return WeightStep(
            weight_ppm=self.weight,
            min_bake_s=self.min_bake,
            max_bake_s=self.max_bake,
            gates=self.gates,
            require=Requirement(self.require),
        )


class PauseSettings(Section):
    """A wait."""

    duration: PositiveDuration | None = None
    """How long; unset: until somebody resumes."""


def _pause(value: Any) -> Any:
    return {"duration": value} if isinstance(value, str) else value


def _or_duration(schema: dict[str, Any]) -> None:
    section = {key: schema.pop(key) for key in list(schema) if key in {"$ref", "allOf"}}
    schema["anyOf"] = [{"type": "string", "examples": ["10m"]}, section]


class PauseStepSettings(Section):
    """Wait so long, or until somebody resumes. The weight stays as it is."""

    pause: Annotated[PauseSettings, BeforeValidator(_pause)] = Field(json_schema_extra=_or_duration)
    """A duration, or `{}`: until somebody resumes."""

    def step(self) -> PauseStep:
        """Return the step."""
        return PauseStep(self.pause.duration)


class ApproveSettings(Section):
    """Who must approve."""

    count: PositiveInt = Field(1, le=16)
    """How many."""
    roles: tuple[str, ...] = ()
    """Groups one of which every approver must be in; empty: anybody's approval counts."""
    not_author: bool = True
    """Who wrote the file, or last resumed or retried the rollout, does not count."""
    expires: PositiveDuration = 86_400.0
    """An approval older than this counts no more."""


class ApproveStepSettings(Section):
    """Wait for people."""

    approve: ApproveSettings
    """Who must approve; `{}` is one other than the author."""

    def step(self) -> ApproveStep:
        """Return the step."""
        given = self.approve
        return ApproveStep(given.count, frozenset(given.roles), given.not_author, given.expires)


class PromoteSettings(Section):
    """What follows promotion."""

    keep_stable_warm: PositiveDuration = 3600.0
    """How long the old stable stays loaded for a rollback."""
    gates: tuple[Name, ...] = ()
    """Groups of gates that roll back when they find harm in that time."""


class PromoteStepSettings(Section):
    """Give the canary everything; always the last step."""

    promote: PromoteSettings
    """What follows; `{}` keeps the old stable warm for an hour."""

    def step(self) -> PromoteStep:
        """Return the step."""
        return PromoteStep(self.promote.keep_stable_warm, self.promote.gates)


STEP_TAGS: Final[Mapping[str, type[BaseModel]]] = {
    "shadow step": ShadowStepSettings,
    "weight step": WeightStepSettings,
    "pause step": PauseStepSettings,
    "approve step": ApproveStepSettings,
    "promote step": PromoteStepSettings,
}
"""How locations in complaints name the kinds of steps; no key of a file is called so."""
_EXAMPLE: Final = "{weight: 5%, min_bake: 10m, max_bake: 2h, gates: [safety]}"
_KINDS: Final = tuple(tag.removesuffix(" step") for tag in STEP_TAGS)


def _checked_kind(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping such as {_EXAMPLE}, got {value!r:.40}")  # noqa: TRY004 - to pydantic
    found = [kind for kind in _KINDS if kind in value]
    if len(found) == 1:
        return value
    if found:
        raise ValueError(f"a step is one thing; this is {' and '.join(found)}")
    near = [n for key in value for n in difflib.get_close_matches(str(key), _KINDS, n=1)]
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"a step is one of {', '.join(_KINDS)}{hint}")


def _tag(value: Any) -> str | None:
    return next((f"{kind} step" for kind in _KINDS if kind in value), None)


StepSettings = Annotated[
    Annotated[
        Annotated[ShadowStepSettings, Tag("shadow step")]
        | Annotated[WeightStepSettings, Tag("weight step")]
        | Annotated[PauseStepSettings, Tag("pause step")]
        | Annotated[ApproveStepSettings, Tag("approve step")]
        | Annotated[PromoteStepSettings, Tag("promote step")],
        Discriminator(_tag),
    ],
    BeforeValidator(_checked_kind),
]


def core_step(settings: StepSettings) -> Step:
    """Return the step that the settings mean."""
    return settings.step()


def bake_of(settings: StepSettings) -> BakeSettings | None:
    """Return what is watched in a step; None where nothing is."""
    return settings if isinstance(settings, BakeSettings) else None
