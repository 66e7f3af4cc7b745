"""How labels and predictions are turned into class indexes and numbers by the task of their model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.monitor.profile.reference import TaskKind

if TYPE_CHECKING:
    from gateway.monitor.profile.reference import Task

UNKNOWN: Final = -1
"""A class that the task does not name."""

_BINARY: Final = ("0", "1")


def classes(task: Task) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the scores; 0 and 1 where a BINARY task names none."""
    return task.classes or (_BINARY if task.kind is TaskKind.BINARY else ())


def has_classes(task: Task) -> bool:
    """Tell whether labels are classes and not numbers."""
    return task.kind in {TaskKind.BINARY, TaskKind.MULTICLASS}


def label_value(task: Task, value: float | str) -> float | None:
    """Return a label as the index of its class, or as a number; None if it is neither."""
    if has_classes(task):
        index = class_index(classes(task), value)
        return None if index == UNKNOWN else float(index)
    return _number(value)


def class_index(names: tuple[str, ...], value: float | str) -> int:
    """Return the index of a class, UNKNOWN if it is none; numbers are names, or indexes where none is one."""
    text = value if isinstance(value, str) else f"{value:.15g}"
    if text in names:
        return names.index(text)
    number = _number(value)
    if number is None or number != int(number):
        return UNKNOWN
    if f"{number:.15g}" in names:
        return names.index(f"{number:.15g}")
    if any(_number(name) is not None for name in names):
        return UNKNOWN
    return int(number) if 0 <= number < len(names) else UNKNOWN


def _number(value: float | str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e300 else None
