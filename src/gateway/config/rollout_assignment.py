"""The `assign:` section and shadows of rollout files: who gets which arm, who gets copies."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gateway.config.rollout_values import HeaderName, Name, Percent, PositivePercent, TargetText
from gateway.config.section import Section
from gateway.core.rollout import (
    PPM,
    Assignment,
    Comparison,
    HashSpec,
    HeaderOverride,
    KeyKind,
    KeySource,
    OutputRule,
    ShadowSpec,
    Target,
)


class KeySettings(Section):
    """One place to look for the assignment key; exactly one of its keys."""

    header: HeaderName | None = None
    """A request header."""
    jwt: str | None = Field(None, min_length=1, max_length=128)
    """A claim of the caller's token."""
    parameter: str | None = Field(None, min_length=1, max_length=128)
    """A request parameter."""
    request_id: Literal[True] | None = None
    """The request's own id; not sticky."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([v for v in (self.header, self.jwt, self.parameter, self.request_id) if v is not None]) != 1:
            raise ValueError("give exactly one of header, jwt, parameter, request_id")
        return self

    def source(self) -> KeySource:
        """Return it as the request path takes it."""
        if self.header is not None:
            return KeySource(KeyKind.HEADER, self.header)
        if self.jwt is not None:
            return KeySource(KeyKind.JWT, self.jwt)
        if self.parameter is not None:
            return KeySource(KeyKind.PARAMETER, self.parameter)
        return KeySource(KeyKind.REQUEST_ID)


class HashSettings(Section):
    """How a key becomes a bucket; refused to change while a rollout is in progress."""

    algo: Literal["xxh3_64"] = "xxh3_64"
    """The hash function."""
    v: Literal[1] = 1
    """Version of the formula."""
    salt: str | None = Field(None, min_length=1, max_length=128)
    """Other salts try out other users; unset: the rollout's name, the model's in a plain split."""


class OverrideSettings(Section):
    """A header by which a caller chooses the arm itself; its value is the arm's name."""

    header: HeaderName
    """Its name."""
    arms: tuple[str, ...] = Field(alias="in", min_length=1)
    """Arms that may be chosen so: `stable`, `canary`, or the versions of a plain split."""
    scope: str = Field("", max_length=128)
    """What the caller must be allowed; empty: anybody may."""


class AssignSettings(Section):
    """Who gets which arm."""

    key: tuple[KeySettings, ...] = (KeySettings(request_id=True),)
    """Where keys come from; the first present wins. Without any of them the request's own id, which is not
    sticky."""
    hash: HashSettings = Field(default_factory=HashSettings)
    """How a key becomes a bucket."""
    overrides: tuple[OverrideSettings, ...] = Field((), max_length=32)
    """Choices by header; the first that applies wins."""
    on_canary_failure: Literal["fail", "fallback_stable"] = "fail"
    """`fallback_stable` answers a request that fails in the canary by stable; it still counts against the
    canary."""
    holdout: Percent = 0
    """Share of the keys that no canary gets before it is promoted."""

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if not self.key:
            raise ValueError("key: name at least one place, such as {header: x-user-id}")
        if any(key.request_id for key in self.key[:-1]):
            raise ValueError("key: request_id is always there, so what follows it is never looked at")
        return self

    def assignment(self, name: str) -> Assignment:
        """Return it as the request path takes it; `name` is the salt where the file gives none."""
        overrides = (HeaderOverride(o.header, frozenset(o.arms), o.scope) for o in self.overrides)
        return Assignment(
            hash=HashSpec(salt=self.hash.salt or name, algorithm=self.hash.algo, version=self.hash.v),
            keys=tuple(key.source() for key in self.key),
            overrides=tuple(overrides),
            fallback_stable=self.on_canary_failure == "fallback_stable",
            holdout_ppm=self.holdout,
        )


class ToleranceSettings(Section):
    """What counts as agreement in one output; exactly one of its keys."""

    absolute: float | None = Field(None, ge=0, allow_inf_nan=False)
    """No element differs by more."""
    relative: float | None = Field(None, ge=0, allow_inf_nan=False)
    """No element differs by more than this times the primary's magnitude."""
    top_k: PositiveInt | None = None
    """So many largest of the last axis are the same elements in the same order."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([v for v in (self.absolute, self.relative, self.top_k) if v is not None]) != 1:
            raise ValueError("give exactly one of absolute, relative, top_k")
        return self

    def rule(self, output: str) -> OutputRule:
        """Return the rule for `output`."""
        if self.absolute is not None:
            return OutputRule(output, Comparison.ABSOLUTE, self.absolute)
        if self.relative is not None:
            return OutputRule(output, Comparison.RELATIVE, self.relative)
        return OutputRule(output, Comparison.TOP_K, float(self.top_k or 1))


class MirrorSettings(Section):
    """How copies are sent and compared."""

    max_inflight: PositiveInt = 8
    """Copies under way at once; more are dropped and counted."""
    headroom: Percent = 0
    """Share of the device's slots that must be free for a copy to run."""
    compare: dict[str, Literal["exact"] | ToleranceSettings] = Field(default_factory=dict, max_length=64)
    """Output -> what counts as agreement: `exact`, `{absolute: 0.02}`, `{relative: 0.01}` or `{top_k: 3}`.
    Outputs not named are not compared; without any, every output is compared exactly."""

    def rules(self) -> tuple[OutputRule, ...]:
        """Return the rules by output."""
        return tuple(
            OutputRule(output) if how == "exact" else how.rule(output) for output, how in self.compare.items()
        )


class ShadowSettings(MirrorSettings):
    """A version that gets copies of requests and whose answers nobody sees."""

    name: Name
    """Of the arm, in metrics and status."""
    version: TargetText
    """The version: '@alias', a number or a label."""
    sample: PositivePercent = PPM
    """Share of requests mirrored; unset: all."""
    slices: tuple[str, ...] = Field((), max_length=8)
    """Request headers or parameters by whose value disagreement is broken down."""

    def spec(self) -> ShadowSpec:
        """Return it as the request path takes it."""
        return ShadowSpec(
            name=self.name,
            target=Target(self.version),
            sample_ppm=self.sample,
            max_inflight=self.max_inflight,
            headroom_ppm=self.headroom,
            rules=self.rules(),
            slices=self.slices,
        )
