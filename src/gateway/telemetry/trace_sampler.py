"""Which requests are traced: the caller's flag, a ratio for the rest, and the protocol's trace settings."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.types import TraceContext
    from gateway.telemetry.options import TracingOptions

    TraceValues: TypeAlias = Mapping[str, tuple[str, ...]]

_MAX_RATE: Final = (1 << 31) - 1


@dataclass(slots=True)
class _Policy:
    """Settings in force for one model.

    Attributes:
        on: anything is traced at all.
        ratio: share of requests without a context that are traced.
        remaining: traces still to take; negative: without end.
    """

    on: bool
    ratio: float
    remaining: int = -1


class TraceSampler:
    """Decides, before anything is built, whether a request is traced; under 0.3 us when it is not.

    A caller's sampled flag is followed both ways; the ratio is for requests that bring no context; level
    OFF and an exhausted count are the operator's and stop both. Event loop only. Holds one policy per model
    that has settings of its own.
    """

    def __init__(self, options: TracingOptions, uniform: Callable[[], float] = random.random) -> None:
        """Start from `options`; `uniform` gives numbers in [0, 1)."""
        self._start_ratio = options.sample_ratio
        self._start_rate = (
            min(_MAX_RATE, round(1 / options.sample_ratio)) if options.sample_ratio else _MAX_RATE
        )
        self._uniform = uniform
        self._read: Callable[[str], TraceValues] | None = None
        self._server = _Policy(options.endpoint is not None, options.sample_ratio)
        self._models: dict[str, _Policy] = {}

    def start_values(self) -> TraceValues:
        """Return the settings at start in the protocol's names; `trace_rate` is the nearest 1 in N."""
        return {
            "trace_level": ("TIMESTAMPS" if self._server.on else "OFF",),
            "trace_rate": (str(self._start_rate),),
            "trace_count": ("-1",),
        }

    def follow(self, read: Callable[[str], TraceValues]) -> None:
        """Use `read(model)` to look settings up again where a change of the server's touches a model's."""
        self._read = read

    def changed(self, model: str, values: TraceValues) -> None:
        """Take over settings: of a model, or of the server when `model` is empty.

        Args:
            model: the model, or empty.
            values: all settings in force for it, validated; none for a model that follows the server's.
        """
        if model and values:
            self._models[model] = self._policy(values)
            return
        if model:
            self._models.pop(model, None)
            return
        self._server = self._policy(values)
        if self._read is not None:
            for name in self._models:
                self._models[name] = self._policy(self._read(name))

    def decide(self, model: str, parent: TraceContext | None) -> bool:
        """Decide for one request; True takes one off the count."""
        policy = self._models.get(model, self._server) if self._models else self._server
        if not policy.on or not policy.remaining:
            return False
        sampled = self._uniform() < policy.ratio if parent is None else parent.sampled
        if sampled and policy.remaining > 0:
            policy.remaining -= 1
        return sampled

    def _policy(self, values: TraceValues) -> _Policy:
        rate = int(values["trace_rate"][0])
        # 1 in N cannot say every ratio: the one configured stays exact until the rate is changed.
        ratio = self._start_ratio if rate == self._start_rate else 1 / rate
        return _Policy("TIMESTAMPS" in values["trace_level"], ratio, int(values["trace_count"][0]))
