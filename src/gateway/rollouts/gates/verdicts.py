"""What a gate says, and what it is asked."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.core.rollout import Requirement

if TYPE_CHECKING:
    from collections.abc import Mapping


class Outcome(enum.Enum):
    """What follows from a verdict."""

    PASS = "pass"  # noqa: S105 - a verdict
    """As far as this gate goes, the step may advance."""
    HARM = "harm"
    """Shown: withdraw the canary at once."""
    UNDECIDED = "undecided"
    """Not enough evidence yet."""
    HOLD = "hold"
    """The evidence cannot be relied on, or somebody says wait: neither advance nor, by itself, withdraw."""


def _no_numbers() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """A verdict with what it rests on.

    Attributes:
        outcome: what follows.
        reason: a sentence for people.
        numbers: JSON types; `log_e...` are evidence in nats, `log_bound...` what they must reach.
    """

    outcome: Outcome
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=_no_numbers)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a gate.

    Attributes:
        now_s: monotonic time.
        require: what it takes to pass.
        alpha_abort: this gate's part of the chance of a false harm.
        alpha_pass: this gate's part of the chance of a false pass.
    """

    now_s: float
    require: Requirement = Requirement.NON_INFERIOR
    alpha_abort: float = 0.01
    alpha_pass: float = 0.05

    @property
    def harm_bound(self) -> float:
        """Evidence in nats that is harm."""
        return -math.log(self.alpha_abort)

    @property
    def pass_bound(self) -> float:
        """Evidence in nats that is a pass."""
        return -math.log(self.alpha_pass)


def rate(events: float, units: float) -> float | None:
    """Return the rate rounded for reading, None without units."""
    return round(events / units, 9) if units else None


def nats(value: float) -> float:
    """Return evidence rounded for reading."""
    return round(value, 4)
