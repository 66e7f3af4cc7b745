"""The `prediction_log:` section, and what an entry of `models:` says of it: what is logged, and how much."""

from __future__ import annotations

import re
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, PositiveInt, model_validator

from gateway.config.prediction_sinks import ProducerName, SinkSettings
from gateway.config.registry_settings import SecretSettings  # noqa: TC001 - pydantic reads it
from gateway.config.section import PositiveSeconds, Seconds, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20

_SOURCE: Final = re.compile(r"request_id|(header|parameter):[A-Za-z0-9_.\-]{1,128}")


def parse_source(value: Any) -> str:
    """Return `request_id`, `header:NAME` (the name in lower case) or `parameter:NAME`.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str) or not _SOURCE.fullmatch(value):
        raise ValueError(f"expected request_id, header:NAME or parameter:NAME, got {value!r}")
    return value.lower() if value.startswith("header:") else value


SourceText = Annotated[str, BeforeValidator(parse_source)]
RuleName = Literal[
    "auto",
    "drop",
    "keep",
    "summary",
    "projection",
    "category",
    "hmac",
    "truncate",
    "bucket",
    "length",
]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class TensorRuleSettings(Section):
    """What becomes of one tensor; its rule may also stand alone, `income: keep`."""

    rule: RuleName = "auto"
    """`auto`: numbers as they are up to 64 per row, more of them as summary and projection, BYTES dropped.
    `drop`. `keep`: value by value; BYTES as categories. `summary`: mean, deviation, extremes, shares of zeros
    and missing values of a row. `projection`: 64 random combinations of a row's values, and the summary.
    `category`: whole numbers or BYTES as they are. `hmac`: a keyed hash of them. `truncate`: the first
    `length` bytes. `bucket`: the interval between `edges` that a number is in. `length`: that of BYTES."""
    length: PositiveInt | None = None
    """Bytes that `truncate` leaves."""
    edges: tuple[float, ...] = Field((), max_length=1000)
    """Of `bucket`, ascending."""
    labels: tuple[Name, ...] = Field((), max_length=4096)
    """Names of the values of a row, in order; unset: their index."""

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        return {"rule": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.rule == "truncate") != (self.length is not None):
            raise ValueError("rule truncate needs a length, and no other does")
        if (self.rule == "bucket") != bool(self.edges):
            raise ValueError("rule bucket needs edges, and no other does")
        if any(not low < high for low, high in pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self


class SegmentSettings(Section):
    """A column that rows are told apart by; where it is may also stand alone, `country: header:x-country`."""

    source: SourceText
    """`header:NAME`, `parameter:NAME` or `request_id`."""
    values: tuple[Name, ...] = Field((), max_length=1000)
    """The values there are; any other is logged as `__other__`."""
    max_values: PositiveInt = Field(64, le=1000)
    """Without `values`: the first so many that come are told apart."""

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class OutlierSettings(Section):
    """Values of a numeric input that make a row unusual: it is logged whatever the sampling says."""

    below: float | None = None
    """Less than this."""
    above: float | None = None
    """More than this."""


class ModelLogSettings(Section):
    """What is logged of a model. What an entry of `models` leaves out is as in `prediction_log.defaults`."""

    enabled: bool = True
    """Whether anything is."""
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """Share of the join keys whose rows are logged; each row carries how many it stands for."""
    max_rows_per_s: int = Field(10_000, ge=0)
    """When more rows are kept, fewer keys are sampled from the next second on. 0: no limit."""
    key: SourceText = "request_id"
    """What labels are joined by: `request_id`, `header:NAME` or `parameter:NAME`."""
    subject: SourceText | None = None
    """Whom a row is about, so that it can be erased; logged as a keyed hash, which needs `secret`."""
    always: SourceText | None = None
    """A request that has this header or parameter is logged whatever the sampling says."""
    keep_errors: bool = True
    """Log all failed requests, within `max_rows_per_s`."""
    keep_canary: bool = True
    """Log all requests of the arm `canary`, within `max_rows_per_s`."""
    inputs: dict[Name, TensorRuleSettings] = Field(default_factory=dict)
    """Rules by input; those not named have `auto`. A rule for an input that a model has not
    stops its log."""
    outputs: dict[Name, TensorRuleSettings] = Field(default_factory=dict)
    """Rules by output, likewise."""
    segments: dict[Name, SegmentSettings] = Field(default_factory=dict, max_length=16)
    """Columns from headers or parameters that rows are told apart by."""
    outliers: dict[Name, OutlierSettings] = Field(default_factory=dict)
    """By input: what is unusual."""

    def overlaid(self, entry: ModelLogSettings | None) -> ModelLogSettings:
        """Return these settings with what an entry sets in their place."""
        return self if entry is None else self.model_copy(update=entry.given())

    def needs_secret(self) -> bool:
        """Whether keyed hashes are asked for."""
        rules = [*self.inputs.values(), *self.outputs.values()]
        return self.subject is not None or any(rule.rule == "hmac" for rule in rules)


class RingSettings(Section):
    """Between the request path and the log's own thread; what does not fit is dropped and counted."""

    max_rows: PositiveInt = 65_536
    """Rows."""
    max_bytes: ByteSize = Field(ByteSize(128 * MIB), gt=0)
    """Bytes that they keep in memory."""


class PredictionLogSettings(Section):
    """Every prediction logged to a monitor or a store; off without this section."""

    producer: ProducerName = ""
    """Name of this process in the log, stable over restarts; empty: the host's name."""
    secret: SecretSettings | None = None
    """Key of the hashes that rules and `subject` ask for; who has it can tell known values."""
    linger_s: Seconds = 1.0
    """How long rows are gathered before they travel."""
    max_batch_bytes: ByteSize = Field(ByteSize(512 << 10), ge=4096, le=2 * MIB)
    """Rows travel together up to this size."""
    compression: Literal["none", "deflate"] = "none"
    """Deflate costs far more processor time than a Unix socket saves; use it for slow networks."""
    ring: RingSettings = Field(default_factory=RingSettings)
    """Between the request path and the log's own thread."""
    sinks: SinkSettings = Field(default_factory=SinkSettings)
    """Where it goes."""
    close_grace_s: PositiveSeconds = 5.0
    """Time at shutdown for what is not sent yet; the rest stays in spools."""
    defaults: ModelLogSettings = Field(default_factory=ModelLogSettings)
    """What is logged of models whose entry does not say otherwise."""

    def producer_name(self) -> str:
        """Return the name of this process."""
        return self.producer or socket.gethostname()

    def check_entries(self, entries: Mapping[str, ModelLogSettings | None]) -> None:
        """Compare with the entries of `models`.

        Args:
            entries: what each says of its log, by model.

        Raises:
            ValueError: keyed hashes are asked for, and there is no secret.
        """
        if self.secret is not None:
            return
        if self.defaults.needs_secret():
            raise ValueError("prediction_log.defaults asks for keyed hashes; give prediction_log.secret")
        for model, entry in entries.items():
            if entry is not None and entry.needs_secret():
                raise ValueError(f"model '{model}' asks for keyed hashes; give prediction_log.secret")
