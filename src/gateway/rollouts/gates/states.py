"""What gates remember, and its JSON form for the journal."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gateway.statistics.dispersion import Spread
from gateway.statistics.mixture import EProcess
from gateway.statistics.ratio import Window

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """Of ErrorsGate and ExceedGate.

    Attributes:
        harm: evidence that the ratio is above `abort_ratio`.
        proof: evidence that it is below `pass_margin`.
        absolute: evidence that the canary's own rate is below `or_abs_below`.
        open: what was counted since the last window was closed.
        opened_s: when that was.
        closed: sum of the windows in `harm` and `proof`.
        requests: of the canary; units whose latency counted for an ExceedGate.
        canary: how the canary's bad units are spread over the closed windows.
        stable: how stable's are.
    """

    harm: EProcess
    proof: EProcess
    absolute: EProcess
    open: Window
    opened_s: float
    closed: Window = field(default_factory=Window)
    requests: int = 0
    canary: Spread = field(default_factory=Spread)
    stable: Spread = field(default_factory=Spread)


@dataclass(frozen=True, slots=True)
class SrmState:
    """Of SrmGate; arms in the order canary, stable.

    Attributes:
        shares: that they should get.
        requests: that they got.
        keys: distinct keys that they got; zeros where they are not counted.
    """

    shares: tuple[float, float]
    requests: tuple[int, int] = (0, 0)
    keys: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class CrashesState:
    """Of CrashesGate: crashes of the canary, and its requests, or pairs where it is a shadow."""

    crashes: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class FallbacksState:
    """Of FallbacksGate: evidence of too many, fallbacks, canary requests, and how fallbacks are spread."""

    harm: EProcess
    fallbacks: int = 0
    requests: int = 0
    canary: Spread = field(default_factory=Spread)


@dataclass(frozen=True, slots=True)
class SliceValue:
    """Disagreement among the pairs that have one value in a slice."""

    value: str
    harm: EProcess
    pairs: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class DisagreeState:
    """Of DisagreeGate.

    Attributes:
        harm: evidence of too much disagreement.
        proof: evidence of little enough.
        pairs: compared, or failed in the shadow alone.
        bad: of those, the ones that differ or failed.
        slices: by slice, its values in the order in which they were first seen.
    """

    harm: EProcess
    proof: EProcess
    pairs: int = 0
    bad: int = 0
    slices: Mapping[str, tuple[SliceValue, ...]] = field(default_factory=dict)


class AnswerKind(enum.Enum):
    """What somebody outside said."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    HOLD = "hold"
    NO_DATA = "no_data"
    """Nothing could be said, or nobody answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer from outside, to an ExternalGate or a PrometheusGate.

    Attributes:
        at_s: monotonic time at which it arrived.
        kind: the verdict; for a PrometheusGate NO_DATA where there is no number, else not looked at.
        value: what the expression gave; None for an ExternalGate.
        reason: in words.
    """

    at_s: float
    kind: AnswerKind = AnswerKind.PASS
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AnswerState:
    """Of ExternalGate and PrometheusGate.

    Attributes:
        answer: the last; None before the first.
        beyond_since_s: when the first of the unbroken run of answers out of bounds arrived.
    """

    answer: Answer | None = None
    beyond_since_s: float | None = None


GateState: TypeAlias = (
    ComparisonState | SrmState | CrashesState | FallbacksState | DisagreeState | AnswerState
)

_KINDS: Final[Mapping[str, type[GateState]]] = {
    "comparison": ComparisonState,
    "srm": SrmState,
    "crashes": CrashesState,
    "fallbacks": FallbacksState,
    "disagree": DisagreeState,
    "answer": AnswerState,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def gate_state_to_json(state: GateState) -> dict[str, Any]:
    """Return the state as JSON types."""
    values = asdict(state)
    if isinstance(state, AnswerState) and state.answer is not None:
        values["answer"]["kind"] = state.answer.kind.value
    return {"kind": _NAMES[type(state)], **values}


def gate_state_from_json(document: Mapping[str, Any]) -> GateState:
    """Return the state of which `gate_state_to_json` made the document.

    Raises:
        ValueError: the document is not such a one.
    """
    values = {key: value for key, value in document.items() if key != "kind"}
    try:
        kind = _KINDS[document["kind"]]
        return kind(**{name: _READERS.get(name, _plain)(value) for name, value in values.items()})
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not the state of a gate: {exc}") from exc


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _process(value: Mapping[str, Any]) -> EProcess:
    return EProcess(tuple(value["logs"]), value["peak"])


def _window(value: Mapping[str, Any]) -> Window:
    return Window(**value)


def _spread(value: Mapping[str, Any]) -> Spread:
    return Spread(**value)


def _answer(value: Mapping[str, Any] | None) -> Answer | None:
    return None if value is None else Answer(**{**value, "kind": AnswerKind(value["kind"])})


def _slices(value: Mapping[str, Any]) -> dict[str, tuple[SliceValue, ...]]:
    return {
        name: tuple(SliceValue(**{**v, "harm": _process(v["harm"])}) for v in values)
        for name, values in value.items()
    }


_READERS: Final[Mapping[str, Any]] = {
    "harm": _process,
    "proof": _process,
    "absolute": _process,
    "open": _window,
    "closed": _window,
    "canary": _spread,
    "stable": _spread,
    "answer": _answer,
    "slices": _slices,
}
