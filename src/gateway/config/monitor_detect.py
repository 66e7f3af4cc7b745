"""The sections `profiles:`, `detection:` and `arms:` of a monitor's configuration."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from gateway.config.rollout_values import Duration, PositiveDuration
from gateway.config.section import Section

_MINUTE_S = 60

Share = Annotated[float, Field(ge=0, le=1)]
Floor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ProfileSettings(Section):
    """Where reference profiles come from."""

    directories: tuple[Path, ...] = ()
    """Searched for `MODEL/VERSION/profile.json` and `MODEL/profile.json` (any version): model repositories,
    and directories that `gateway monitor profile` wrote to. The first that has one wins."""
    learned: Path | None = None
    """Where profiles that were learned from live traffic are kept; unset: they are learned anew after each
    start."""
    learn_rows: Annotated[int, Field(ge=0)] = 10_000
    """A version without a profile gets one from this many of its rows; 0: never."""
    learn_time: Duration = 3600.0
    """And from at least this much time, so that the first burst is not taken for the whole."""


class FloorSettings(Section):
    """Effects that are too small to matter, however certain they are."""

    psi: Floor = 0.1
    """Population stability index."""
    js: Floor = 0.1
    """Jensen-Shannon distance, 0 to 1."""
    ks: Floor = 0.1
    """Largest difference of the distribution functions."""
    wasserstein: Floor = 0.1
    """Earth mover's distance in standard deviations of the reference."""
    chi2: Floor = 0.3
    """Cohen's w, the root of chi-square times (1/n + 1/m): 0.1 is small, 0.3 medium, 0.5 large."""
    mmd: Floor = 0.01
    """Squared maximum mean discrepancy, 0 to 2."""
    adwin: Floor = 0.25
    """Change of the mean over minutes, in standard deviations of the reference."""
    missing: Floor = 0.01
    """Rise of the share of missing values."""
    type: Floor = 0.001
    """Share of values of the wrong type, infinite ones among them."""
    range: Floor = 0.01
    """Rise of the share of values in the reference's outermost 0.2 %."""
    novel: Floor = 0.01
    """Rise of the share of categories that the reference's dictionary lacks."""
    errors: Floor = 0.01
    """Rise of the share of failed rows over the minutes before."""


class DetectSettings(Section):
    """When a difference is called drift, and when somebody is woken for it."""

    windows: dict[str, PositiveInt] = Field(
        default_factory=lambda: {"5m": 300, "1h": 3600, "1d": 86_400}, min_length=1, max_length=8
    )
    """What is compared with the reference: name, and length in seconds, a multiple of 60."""
    false_pages: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Budget: false alarms of one model that are accepted within `horizon_days`. Levels follow from it."""
    horizon_days: Annotated[float, Field(gt=0, le=3650)] = 90.0
    """Time that `false_pages` is about."""
    needed: Annotated[int, Field(ge=1, le=8)] = 2
    """An alarm is raised when a signal drifted in the newest and in all this many..."""
    of: Annotated[int, Field(ge=1, le=8)] = 3
    """...of this many windows in a row that do not overlap."""
    clear_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    """An alarm is cleared when as many windows in a row are calm: below this part of the threshold."""
    min_rows: Annotated[int, Field(ge=20)] = 100
    """Fewer effective rows in a window are not tested."""
    min_coverage: Share = 0.95
    """Windows of which less arrived are shown as degraded and never raise an alarm."""
    settle: Duration = 20.0
    """How long after its end a minute is tested: rows may be under way."""
    floors: FloorSettings = FloorSettings()
    """Effects that are too small to matter."""
    history_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """How long scores and ended alarms are kept."""

    @field_validator("windows")
    @classmethod
    def _whole_minutes(cls, windows: dict[str, int]) -> dict[str, int]:
        for name, length_s in windows.items():
            if length_s % _MINUTE_S or length_s > 30 * 86_400:
                raise ValueError(f"window {name} must be whole minutes, at most 30 days, not {length_s} s")
        return windows

    @model_validator(mode="after")
    def _m_of_n(self) -> Self:
        if self.needed > self.of:
            raise ValueError(f"needed {self.needed} is more than of {self.of}: no alarm could be raised")
        return self


class ArmSettings(Section):
    """When a candidate is said to be as good as its baseline."""

    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Chance of a wrong verdict, however often it is asked for."""
    margin_sigma: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Means of predictions may differ by this many standard deviations of the baseline's."""
    margin_rate: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Shares (missing, failed, disagreeing beyond the baseline's) may be higher by this."""
    min_rows: Annotated[int, Field(ge=20)] = 200
    """Rows of either arm before anything is said."""
    min_coverage: Share = 0.95
    """With less of either arm's rows, the verdict is inconclusive."""
    lookback: PositiveDuration = 86_400.0
    """How far back rows are compared."""
    on_drift: Literal["hold", "fail", "ignore"] = "hold"
    """While an alarm of drift stands that is not the candidate's alone: what the comparison comes to at best.
    An alarm of the candidate's alone fails it unless this is `ignore`."""
    pairs: Annotated[int, Field(ge=0, le=1_000_000)] = 20_000
    """Rows that may wait for their mirrored other half; 0: arms are never compared pair by pair."""
