"""What may be logged of each model: rules by tensor, segments, sampling. Everything else never leaves."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError
from gateway.predlog.rows import Role
from gateway.predlog.sampling import SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import ModelSignature
    from gateway.predlog.join_keys import Source

MAX_COLUMN_WIDTH: Final = 64
"""Widest tensor, in values per row, that is logged value by value unless a rule asks for something else."""


class Rule(enum.Enum):
    """What becomes of a tensor."""

    AUTO = "auto"
    """Numbers: as they are up to MAX_COLUMN_WIDTH values per row, wider ones as summary and projection.
    BYTES: dropped."""
    DROP = "drop"
    KEEP = "keep"
    """Value by value, whatever the width; BYTES as categories."""
    SUMMARY = "summary"
    """Mean, deviation, extremes, share of zeros and of missing values of each row."""
    PROJECTION = "projection"
    """A random projection of each row, and the summary."""
    CATEGORY = "category"
    """Whole numbers and BYTES as they are, told apart but not ordered."""
    HMAC = "hmac"
    """A keyed hash in place of whole numbers and BYTES."""
    TRUNCATE = "truncate"
    """The first bytes of BYTES."""
    BUCKET = "bucket"
    """The interval that a number falls into."""
    LENGTH = "length"
    """How long BYTES are."""


@dataclass(frozen=True, slots=True)
class TensorRule:
    """The rule of one tensor.

    Attributes:
        rule: what becomes of it.
        length: bytes that TRUNCATE leaves.
        edges: of BUCKET, ascending: interval i is (edges[i-1], edges[i]], the first and last are open.
        labels: names of the values of a row, where they are logged one by one.
    """

    rule: Rule = Rule.AUTO
    length: int = 0
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentRule:
    """A column that rows are told apart by.

    Attributes:
        name: of the column.
        source: where requests say it.
        values: the values there are; every other is `__other__`. Empty: the first `max_values` that come.
        max_values: values told apart where none are declared.
    """

    name: str
    source: Source
    values: tuple[str, ...] = ()
    max_values: int = 64


@dataclass(frozen=True, slots=True)
class OutlierRule:
    """Values of a numeric input outside of these bounds make a row unusual: it is always kept.

    Attributes:
        input: tensor name.
        low: least usual value.
        high: largest usual value.
    """

    input: str
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """What is logged of one model.

    Attributes:
        enabled: whether anything is.
        sampling: which rows.
        inputs: rules by tensor name; AUTO for those not named.
        outputs: likewise.
        segments: columns from headers and parameters.
        outliers: what makes a row unusual.
        place: where it is declared, for messages.
    """

    enabled: bool = True
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    inputs: Mapping[str, TensorRule] = field(default_factory=dict)
    outputs: Mapping[str, TensorRule] = field(default_factory=dict)
    segments: tuple[SegmentRule, ...] = ()
    outliers: tuple[OutlierRule, ...] = ()
    place: str = ""

    def rule(self, role: Role, name: str) -> TensorRule:
        """Return the rule of a tensor."""
        return (self.inputs if role is Role.INPUT else self.outputs).get(name, TensorRule())

    def id(self) -> str:
        """Return the identity of the redaction: equal policies have the same; secrets are no part of it."""
        rules = [sorted(self.inputs.items(), key=lambda item: item[0])]
        rules.append(sorted(self.outputs.items(), key=lambda item: item[0]))
        return sha256(repr((rules, self.segments)).encode()).hexdigest()[:16]

    def check(self, model: str, signature: ModelSignature) -> None:
        """Compare with what a model takes and gives.

        Raises:
            ConfigError: a rule is for a tensor that the model has not: whoever wrote it protects nothing.
        """
        inputs = {spec.name for spec in signature.inputs}
        outputs = {spec.name for spec in signature.outputs}
        unknown = sorted({*self.inputs, *(outlier.input for outlier in self.outliers)} - inputs)
        known, what = inputs, "input"
        if not unknown:
            unknown, known, what = sorted(set(self.outputs) - outputs), outputs, "output"
        if unknown:
            raise ConfigError(
                f"{self.place or 'prediction_log'}: model '{model}' has no {what} '{unknown[0]}', "
                f"it has {sorted(known)}; nothing of it is logged until this is put right"
            )


class Policies:
    """The policies of all models.

    Args:
        default: of models that are not named.
        models: by public name.
    """

    def __init__(self, default: ModelPolicy, models: Mapping[str, ModelPolicy] | None = None) -> None:
        self._default = default
        self._models = dict(models or {})

    def of(self, model: str) -> ModelPolicy:
        """Return a model's policy."""
        return self._models.get(model, self._default)

    def logs(self, model: str) -> bool:
        """Whether anything of a model is logged."""
        return self._models.get(model, self._default).enabled
