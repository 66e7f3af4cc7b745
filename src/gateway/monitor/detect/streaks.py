"""m of n windows with hysteresis: when a signal's findings become an alarm, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.monitor.detect.levels import Level


@dataclass(slots=True)
class Streak:
    """What the last windows of one signal said; bit 0 of either is the newest step.

    Attributes:
        step: number of the newest step.
        drifted: steps whose window drifted.
        calm: steps whose window was well below the threshold.
        active: an alarm was raised and has not cleared.
    """

    step: int
    drifted: int = 0
    calm: int = 0
    active: bool = False


def advanced(streak: Streak, step: int, *, drifted: bool, calm: bool, span: int) -> None:
    """Add the finding of a step; steps that were left out say neither. An older step changes nothing.

    Args:
        streak: changed.
        step: number of the step, window's end over the step's length.
        drifted: the window drifted.
        calm: it was well below its threshold.
        span: steps that are remembered.
    """
    by = step - streak.step
    if by < 0:
        return
    mask = (1 << span) - 1
    by = min(by, span)
    streak.drifted = (streak.drifted << by | drifted) & mask
    streak.calm = (streak.calm << by | calm) & mask
    streak.step = step


def due(streak: Streak, level: Level, needed: int, of: int) -> bool:
    """Say whether the newest window and `needed` of `of` windows that do not overlap drifted."""
    hits = sum(streak.drifted >> (i * level.stride) & 1 for i in range(of))
    return bool(streak.drifted & 1) and hits >= needed


def over(streak: Streak, level: Level, needed: int) -> bool:
    """Say whether the newest `needed` windows that do not overlap were calm."""
    return all(streak.calm >> (i * level.stride) & 1 for i in range(needed))


def span_of(level: Level, of: int) -> int:
    """Return how many steps decide."""
    return (of - 1) * level.stride + 1
