"""The `gates:` section of rollout files: what is watched, and when it passes or does harm."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from gateway.config.rollout_values import Duration, HttpUrl, PositiveDuration, PositiveRate
from gateway.config.section import Section
from gateway.core.rollout import (
    CANARY,
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    ExternalGate,
    FallbacksGate,
    Gate,
    PrometheusGate,
    SrmGate,
)

Alpha = Annotated[float, Field(gt=0, le=0.5)]
Ratio = Annotated[float, Field(gt=0, le=1000)]


class SrmSettings(Section):
    """Sample-ratio mismatch: the arms do not get the shares that they should. Holds, never aborts."""

    alpha: Alpha = 0.0005
    """Chance of a false finding."""
    on_fail: Literal["hold"] = "hold"
    """What follows; nothing else makes sense of broken data."""

    def gate(self) -> SrmGate:
        """Return the gate."""
        return SrmGate(self.alpha)


class ComparisonSettings(Section):
    """A rate of the canary against stable's."""

    vs: Literal["stable"] = "stable"
    """The arm compared with."""
    abort_ratio: Annotated[Ratio, Field(ge=1)] = 1.0
    """Harm is a rate ratio proven to be above this."""
    or_abs_below: PositiveRate | None = None
    """It also passes with its own rate proven to be below this; unset: no such way to pass."""
    min_events: NonNegativeInt = 30
    """Bad events of both arms before a comparison may pass."""
    min_requests: NonNegativeInt = 1000
    """Canary requests before anything may pass."""


def _check_margin(abort_ratio: float, pass_margin: float) -> None:
    if pass_margin <= abort_ratio:
        raise ValueError(
            f"pass_margin {pass_margin:g} must be above abort_ratio {abort_ratio:g}: a rate between the two "
            "would both pass and do harm"
        )


class ErrorsSettings(ComparisonSettings):
    """The canary's rate of failed requests against stable's."""

    pass_margin: Ratio = 1.5
    """To pass, the ratio is proven to be below this."""

    @model_validator(mode="after")
    def _margin(self) -> Self:
        _check_margin(self.abort_ratio, self.pass_margin)
        return self

    def gate(self) -> ErrorsGate:
        """Return the gate."""
        return ErrorsGate(
            abort_ratio=self.abort_ratio,
            pass_margin=self.pass_margin,
            or_abs_below=self.or_abs_below,
            min_events=self.min_events,
            min_requests=self.min_requests,
        )


class ExceedSettings(ComparisonSettings):
    """How often the canary's latency exceeds a threshold, against stable's."""

    threshold: PositiveDuration
    """The latency, from the arrival of the request to its answer."""
    pass_margin: Ratio = 1.25
    """To pass, the ratio is proven to be below this."""
    skip_first: Duration = 0.0
    """Requests so soon after a change of weight are not counted."""

    @model_validator(mode="after")
    def _margin(self) -> Self:
        _check_margin(self.abort_ratio, self.pass_margin)
        return self

    def gate(self) -> ExceedGate:
        """Return the gate."""
        return ExceedGate(
            threshold_s=self.threshold,
            abort_ratio=self.abort_ratio,
            pass_margin=self.pass_margin,
            or_abs_below=self.or_abs_below,
            min_events=self.min_events,
            min_requests=self.min_requests,
            skip_first_s=self.skip_first,
        )


class CrashesSettings(Section):
    """Crashes of the canary."""

    max: NonNegativeInt = 0
    """More is harm."""

    def gate(self) -> CrashesGate:
        """Return the gate."""
        return CrashesGate(self.max)


class FallbacksSettings(Section):
    """Canary requests that stable had to answer."""

    max_rate: PositiveRate = 0.001
    """Harm when the rate is proven to be above this."""
    min_requests: NonNegativeInt = 1000
    """Canary requests before it may pass."""

    def gate(self) -> FallbacksGate:
        """Return the gate."""
        return FallbacksGate(self.max_rate, self.min_requests)


class DisagreeSettings(Section):
    """Shadow answers that differ from the primary's."""

    max_rate: PositiveRate
    """Harm when the share of compared pairs is proven to be above this, pass when proven below."""
    min_pairs: PositiveInt = 1000
    """Compared before it may pass."""
    slices: tuple[str, ...] = Field((), max_length=8)
    """Request headers or parameters for whose every value the same must hold."""
    shadow: str = CANARY
    """The shadow that it is about."""

    def gate(self) -> DisagreeGate:
        """Return the gate."""
        return DisagreeGate(self.max_rate, self.min_pairs, self.slices, self.shadow)


class ExternalSettings(Section):
    """A verdict by HTTP: GET answers `{"verdict": "pass"|"fail"|"hold"|"no_data", "reason": ""}`."""

    url: HttpUrl
    """Who is asked."""
    timeout: PositiveDuration = 2.0
    """For one answer."""
    interval: PositiveDuration = 10.0
    """Between questions."""
    on_no_data: Literal["hold"] = "hold"
    """What follows where no answer comes."""

    def gate(self) -> ExternalGate:
        """Return the gate."""
        return ExternalGate(self.url, self.timeout, self.interval)


class PrometheusSettings(Section):
    """A PromQL expression that gives one number."""

    url: HttpUrl
    """The Prometheus server."""
    query: str = Field(min_length=1, max_length=8192)
    """The expression; `{canary}` and `{stable}` stand for version numbers, `{model}` for the model."""
    max: float | None = Field(None, allow_inf_nan=False)
    """Harm beyond."""
    min: float | None = Field(None, allow_inf_nan=False)
    """Harm below."""
    out_of_bounds_for: Duration = Field(0.0, alias="for")
    """It must be out of bounds so long."""
    timeout: PositiveDuration = 5.0
    """For one answer."""
    interval: PositiveDuration = 15.0
    """Between questions."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max is None and self.min is None:
            raise ValueError("give max, min or both")
        if self.max is not None and self.min is not None and self.max < self.min:
            raise ValueError(f"max {self.max:g} is below min {self.min:g}")
        return self

    def gate(self) -> PrometheusGate:
        """Return the gate."""
        return PrometheusGate(
            url=self.url,
            query=self.query,
            max_value=self.max,
            min_value=self.min,
            for_s=self.out_of_bounds_for,
            timeout_s=self.timeout,
            interval_s=self.interval,
        )


class GateSettings(Section):
    """One gate; exactly one of its keys."""

    srm: SrmSettings | None = None
    """The arms get the shares that they should; holds."""
    errors: ErrorsSettings | None = None
    """Failed requests against stable's."""
    exceed: ExceedSettings | None = None
    """Slow requests against stable's."""
    crashes: CrashesSettings | None = None
    """Crashes of the canary."""
    fallbacks: FallbacksSettings | None = None
    """Requests that stable had to answer instead."""
    disagree: DisagreeSettings | None = None
    """A shadow's answers that differ."""
    external: ExternalSettings | None = None
    """Anybody's verdict by HTTP."""
    prometheus: PrometheusSettings | None = None
    """A PromQL expression."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.given()) != 1 or None in self.given().values():
            raise ValueError(f"a gate is exactly one of {', '.join(type(self).model_fields)}")
        return self

    def gate(self) -> Gate:
        """Return the gate."""
        (settings,) = self.given().values()
        gate: Gate = settings.gate()
        return gate
