"""What a rollout file may say: `kind: Rollout` and `kind: Split`."""

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.rollout_assignment import AssignSettings, ShadowSettings
from gateway.config.rollout_gates import Alpha, GateSettings
from gateway.config.rollout_steps import StepSettings, core_step
from gateway.config.rollout_values import (
    ModelName,
    Name,
    PositiveDuration,
    PositivePercent,
    RolloutName,
    Share,
    TargetText,
    VersionText,
)
from gateway.config.section import Section
from gateway.core.rollout import (
    PPM,
    FreezeWindow,
    Hesitation,
    Policy,
    Preparation,
    RolloutSpec,
    ShadowSpec,
    SplitSpec,
    Target,
    TestSpec,
)

ApiVersion = Literal["gateway/v1"]


class TargetsSettings(Section):
    """Versions of the model's own source; an alias is resolved once, when the rollout starts."""

    stable: TargetText | None = None
    """What serves; unset: whatever serves when the rollout starts."""
    canary: TargetText | None = None
    """What is tried."""
    shadows: tuple[ShadowSettings, ...] = Field((), max_length=8)
    """Versions mirrored to throughout."""


class PrepareSettings(Section):
    """What must hold before the canary gets any traffic; warm-up and golden test are the model's own."""

    load_timeout: PositiveDuration = 300.0
    """Time to fetch, verify, load, warm and test it; beyond, the rollout is aborted."""
    ready_replicas: PositivePercent = PPM
    """Share of the live replicas that must have it ready."""


class TestSettings(Section):
    """The statistics of all gates together."""

    __test__ = False

    method: Literal["eprocess"] = "eprocess"
    """Tests that stay valid however often one looks."""
    alpha_abort: Alpha = 0.01
    """Chance that a step's gates ever abort an identical canary."""
    alpha_pass: Alpha = 0.05
    """Chance that a canary as bad as the margin ever passes."""
    unit: Literal["key", "request"] = "key"
    """A bad event counts once per key and window, or once per request."""
    window: PositiveDuration = 10.0
    """The window."""
    family: Literal["bonferroni"] = "bonferroni"
    """How the chances are shared among a step's gates."""


class PolicySettings(Section):
    """What follows from verdicts."""

    fail: Literal["abort"] = "abort"
    """At harm."""
    inconclusive: Literal["hold", "abort"] = "hold"
    """At `max_bake` without a pass; never an advance."""
    no_data: Literal["hold", "abort"] = "hold"
    """Where no evidence arrives."""
    canary_capacity_lost: Literal["hold", "abort"] = "abort"
    """Where the canary is not ready any more on some replica."""


class FreezeSettings(Section):
    """When nothing starts, advances or is promoted; aborts are never blocked."""

    cron: str = Field(max_length=128)
    """When it begins, five fields: `0 17 * * FRI`."""
    lasts: PositiveDuration = Field(alias="for")
    """How long it lasts."""
    tz: str = Field("UTC", max_length=64)
    """Time zone, as `Europe/Berlin`."""


class RolloutDocument(Section):
    """A version brought into service step by step, judged by gates, withdrawn by itself."""

    api_version: ApiVersion = Field(alias="apiVersion")
    """Of this format."""
    kind: Literal["Rollout"]
    """A rollout with automation."""
    name: RolloutName | None = None
    """Of the line of rollouts; unset: the model's name."""
    model: ModelName
    """Public name of the model."""
    targets: TargetsSettings
    """Versions."""
    assign: AssignSettings = Field(default_factory=AssignSettings)
    """Who gets which arm."""
    prepare: PrepareSettings = Field(default_factory=PrepareSettings)
    """Before any traffic."""
    steps: tuple[StepSettings, ...] = Field((), max_length=64)
    """In order; the last is `promote`. Without any the shadows alone run."""
    gates: dict[Name, Annotated[tuple[GateSettings, ...], Field(max_length=32)]] = Field(
        default_factory=dict, max_length=32
    )
    """Gates by the group's name, by which steps name them."""
    test: TestSettings = Field(default_factory=TestSettings)
    """Statistics."""
    policy: PolicySettings = Field(default_factory=PolicySettings)
    """What follows from verdicts."""
    freeze: tuple[FreezeSettings, ...] = Field((), max_length=32)
    """When nothing advances."""
    author: str = Field("", max_length=128)
    """Who wrote the file, for approvals; empty: its owner on disk."""
    paused: bool = False
    """Whether to pause."""

    def spec(self) -> RolloutSpec:
        """Return it as the rest of the gateway takes it."""
        stable, canary = self.targets.stable, self.targets.canary
        name = self.name or self.model
        return RolloutSpec(
            name=name,
            model=self.model,
            stable=Target(stable) if stable is not None else None,
            canary=Target(canary) if canary is not None else None,
            shadows=tuple(shadow.spec() for shadow in self.targets.shadows),
            assign=self.assign.assignment(name),
            prepare=Preparation(self.prepare.load_timeout, self.prepare.ready_replicas),
            steps=tuple(core_step(step) for step in self.steps),
            gates=MappingProxyType(
                {group: tuple(gate.gate() for gate in gates) for group, gates in self.gates.items()}
            ),
            test=TestSpec(
                alpha_abort=self.test.alpha_abort,
                alpha_pass=self.test.alpha_pass,
                unit=self.test.unit,
                window_s=self.test.window,
            ),
            policy=Policy(
                inconclusive=Hesitation(self.policy.inconclusive),
                no_data=Hesitation(self.policy.no_data),
                canary_capacity_lost=Hesitation(self.policy.canary_capacity_lost),
            ),
            freeze=tuple(FreezeWindow(f.cron, f.lasts, f.tz) for f in self.freeze),
            author=self.author,
            paused=self.paused,
        )


class SplitDocument(Section):
    """A plain split or shadow of a model's versions, without automation."""

    api_version: ApiVersion = Field(alias="apiVersion")
    """Of this format."""
    kind: Literal["Split"]
    """No automation."""
    model: ModelName
    """Public name of the model."""
    split: dict[VersionText, Share] = Field(default_factory=dict, max_length=64)
    """Version -> per cent of the keys, 100 in all: `{1: 90, 2: 10}`. Unset: whatever serves anyway."""
    shadow: dict[VersionText, PositivePercent] = Field(default_factory=dict, max_length=8)
    """Version -> share of requests mirrored to it: `{3: 20%}`."""
    assign: AssignSettings = Field(default_factory=AssignSettings)
    """Who gets which version."""

    def spec(self) -> SplitSpec:
        """Return it as the rest of the gateway takes it."""
        return split_spec(self.model, self.split, self.shadow, self.assign)


def split_spec(
    model: str, split: dict[str, int], shadow: dict[str, int], assign: AssignSettings
) -> SplitSpec:
    """Return the spec of a plain split; shares in parts per million."""
    return SplitSpec(
        model=model,
        weights=MappingProxyType(dict(split)),
        shadows=tuple(ShadowSpec(text, Target(text), ppm) for text, ppm in shadow.items()),
        assign=assign.assignment(model),
    )
