"""The `alerts:` section of a monitor's configuration: who is told of alarms, and when nobody is."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from gateway.config.registry_settings import SecretSettings
from gateway.config.rollout_checks import freeze_complaints
from gateway.config.rollout_schema import FreezeSettings
from gateway.config.rollout_values import Duration, HttpUrl, ModelName, Name, PositiveDuration
from gateway.config.section import Section

Kind = Literal["drift", "performance", "estimated_performance", "fairness", "quality", "pipeline"]
Severity = Literal["page", "ticket"]

_MOST: Final = 16


class AboutSettings(Section):
    """Which alarms something is about; all of them where nothing is named."""

    models: tuple[ModelName, ...] = Field((), max_length=256)
    """Models; all if empty."""
    kinds: tuple[Kind, ...] = ()
    """Kinds of alarms; all if empty."""
    severities: tuple[Severity, ...] = ()
    """Severities; all if empty."""


class SilenceSettings(FreezeSettings):
    """When nobody is told: what still stands at its end is told then."""

    models: tuple[ModelName, ...] = Field((), max_length=256)
    """Models; all if empty."""
    kinds: tuple[Kind, ...] = ()
    """Kinds of alarms; all if empty."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for _, message in freeze_complaints((), self):
            raise ValueError(message)
        return self


class AlertmanagerSettings(Section):
    """A Prometheus Alertmanager: it inhibits, repeats and routes by itself; told of every group of alarms."""

    url: HttpUrl
    """Its address without a path of the API, `http://alertmanager:9093`."""
    resend: PositiveDuration = 60.0
    """Alarms that stand are sent again so often; after four times this without us they end there."""
    about: AboutSettings = AboutSettings()
    """Alarms that it is sent."""


class WebhookSettings(Section):
    """Posts JSON when alarms are raised and when they have cleared."""

    name: Name
    """For metrics and logs."""
    url: HttpUrl
    """Posted to."""
    secret: SecretSettings | None = None
    """What deliveries are signed with, as the Standard Webhooks specification says; unset: they are not."""
    cleared: bool = True
    """Whether the end of an alarm is told as well."""
    about: AboutSettings = AboutSettings()
    """Alarms that it is sent."""


def _worth_retraining() -> AboutSettings:
    return AboutSettings(kinds=("drift", "performance", "estimated_performance"), severities=("page",))


class RetrainingSettings(Section):
    """Asks, once per model and `cooldown`, for a new version, with all evidence that stands."""

    url: HttpUrl
    """Posted to."""
    secret: SecretSettings | None = None
    """As a webhook's."""
    cooldown: PositiveDuration = 86_400.0
    """Time for a training to come to something before it is asked for again."""
    stands: Duration = 0.0
    """Only alarms that have stood so long."""
    about: AboutSettings = Field(default_factory=_worth_retraining)
    """Alarms that ask for one."""


class AlertSettings(Section):
    """Who is told of alarms."""

    pages_url: HttpUrl = "http://127.0.0.1:8010"
    """Where readers of messages find the monitor's pages."""
    group_wait: Duration = 10.0
    """Alarms of one model that come within this time are one message."""
    group_window: Duration = 3600.0
    """Alarms of one kind, model, version and arm that are raised within this time of the first, while one of
    them stands, are told together: one page when the first comes, one word when the last has ended."""
    cooldown: Duration = 4 * 3600.0
    """What was told of one subject of a model is not told again within this time, however often it flaps."""
    silences: tuple[SilenceSettings, ...] = Field((), max_length=64)
    """Times without messages."""
    alertmanagers: tuple[AlertmanagerSettings, ...] = Field((), max_length=_MOST)
    """Alertmanagers, every one of a cluster."""
    webhooks: tuple[WebhookSettings, ...] = Field((), max_length=_MOST)
    """Webhooks."""
    retraining: RetrainingSettings | None = None
    """Who is asked for new versions."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [hook.name for hook in self.webhooks]
        if repeated := {name for name in names if names.count(name) > 1 or name == "retraining"}:
            raise ValueError(f"webhooks need names of their own, got {sorted(repeated)} twice")
        return self
