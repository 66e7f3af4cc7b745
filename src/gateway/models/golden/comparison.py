"""Compares what a model answers with what a golden test expects. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from gateway.core.types import Array

_MOST_SHOWN: Final = 40
"""Bytes of a BYTES element that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an answer may be from what is expected: `atol + rtol * |expected|`, as NumPy's `allclose`.

    Attributes:
        rtol: share of the expected value.
        atol: in units of the value.
    """

    rtol: float = 1e-3
    atol: float = 1e-5


class Difference(NamedTuple):
    """How an answer differs from what is expected.

    Attributes:
        at: index of the first element that does; empty where the shapes differ already.
        text: got, expected, and how much differs in all; a sentence after the output's name.
    """

    at: tuple[int, ...]
    text: str


def difference(got: Array, expected: Array, tolerance: Tolerance) -> Difference | None:
    """Return how `got` differs from `expected`; None when it does not.

    Floats may differ by the tolerance; NaN equals NaN, and an infinity the same infinity. Everything else
    must be equal.

    Args:
        got: what the model answered.
        expected: what it should; floats in double precision, whatever those of the model are.
        tolerance: for floats.
    """
    if got.shape != expected.shape:
        return Difference((), f"has shape {list(got.shape)}, expected {list(expected.shape)}")
    if expected.dtype.kind == "f":
        got = got.astype(np.float64)
        errors = _too_far(got, expected, tolerance)
        allowed = f" (rtol {tolerance.rtol:g}, atol {tolerance.atol:g})"
    else:
        errors = _unequal(got, expected)
        allowed = ""
    wrong = np.argwhere(errors > 0)
    if not len(wrong):
        return None
    at = tuple(int(i) for i in wrong[0])
    values = f"got {_shown(got[at])}, expected {_shown(expected[at])}{allowed}"
    return Difference(at, f"at {list(at)}: {values}; {_summary(errors, len(wrong))}")


def _unequal(got: Array, expected: Array) -> Array:
    """Return the distance of each element, infinite for unequal ones that have none."""
    unequal = np.asarray(got != expected, np.bool_)
    distance: Array = np.where(unequal, np.inf, 0.0)
    if expected.dtype.kind in "iu":
        distance[unequal] = np.abs(got.astype(np.float64) - expected.astype(np.float64))[unequal]
        distance[unequal & (distance == 0)] = 1.0  # beyond 2**53 doubles do not tell neighbours apart
    return distance


def _too_far(got: Array, expected: Array, tolerance: Tolerance) -> Array:
    """Return the distance of each element that is too far off, infinite where it has none; 0 elsewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(got - expected)
        near = np.isfinite(expected) & (distance <= tolerance.atol + tolerance.rtol * np.abs(expected))
        same = near | (got == expected) | (np.isnan(got) & np.isnan(expected))
    errors: Array = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    return errors


def _summary(errors: Array, wrong: int) -> str:
    """Say how much is wrong, and where the most."""
    total = f"{wrong} of {errors.size} {'value differs' if wrong == 1 else 'values differ'}"
    worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
    if not math.isfinite(errors[worst]):
        return total
    return f"{total}, the worst by {errors[worst]:.3g} at {[int(i) for i in worst]}"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return repr(value[:_MOST_SHOWN]) + ("..." if len(value) > _MOST_SHOWN else "")
    return f"{float(value):.9g}" if isinstance(value, np.floating) else str(value)
