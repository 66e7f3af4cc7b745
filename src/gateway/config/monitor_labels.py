"""The sections `labels:` and `performance:` of a monitor's configuration."""

from typing import Annotated

from pydantic import Field

from gateway.config.rollout_values import Duration, PositiveDuration
from gateway.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)]


class LabelSettings(Section):
    """Ground truth that arrives later than the prediction, or, now and then, sooner."""

    waiting_rows: Annotated[int, Field(ge=0, le=10_000_000)] = 200_000
    """Labels that may wait for a prediction that has not arrived; the oldest makes way for the newest."""
    waiting_time: PositiveDuration = 86_400.0
    """A label whose prediction has not arrived by then is given up: the row was not sampled, most often."""


class RecordSettings(Section):
    """Predictions that are kept, one by one, for their labels to come."""

    rows: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    """Of all models together, about 150 bytes each in memory; the oldest makes way for the newest."""
    days: Days = 30.0
    """How long a prediction and its label are kept."""


class PerformanceSettings(Section):
    """When a model is said to be worse than it was on its reference."""

    records: RecordSettings = RecordSettings()
    """Predictions that are kept for their labels."""
    window: PositiveDuration = 86_400.0
    """What is compared with the reference: whole windows of this length."""
    lookback: Annotated[int, Field(ge=1, le=365)] = 30
    """Labels come late: the newest of so many windows that has enough of them is judged."""
    stale: Annotated[int, Field(ge=1, le=365)] = 7
    """An alarm ends when no newer window could be judged for the time of so many: the model's rows, or its
    labels, have stopped coming."""
    settle: Duration = 60.0
    """How long after its end a window is judged: rows may be under way."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals that are shown."""
    alarm_level: Annotated[float, Field(gt=0, le=0.1)] = 1e-4
    """Chance that one metric of one window raises an alarm although nothing changed."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Half width of the reference band of metrics between 0 and 1: a smaller loss does not matter."""
    relative_tolerance: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Half width of the band of the others (errors, log loss), as a part of the reference's value."""
    min_rows: Annotated[int, Field(ge=20)] = 100
    """Fewer effective rows in a window are not judged."""
    fairness: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Model -> segment columns whose groups must fare alike: `{car_loan: [region]}`."""
    fairness_gap: Share = 0.1
    """A larger gap between two groups is an alarm, once its interval excludes this one."""
    floor: Annotated[int, Field(ge=20)] = 20
    """Groups of fewer rows are shown nowhere: they would tell about single persons."""
