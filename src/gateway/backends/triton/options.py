"""The options of the Triton backend and how they are read from a model's settings."""

from __future__ import annotations

import difflib
import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Batching(enum.Enum):
    """Who forms the batches of a model that Triton runs."""

    AUTO = "auto"
    """Triton where it batches dynamically, unless this gateway's batches are measured to be faster."""
    GATEWAY = "gateway"
    """This gateway."""
    PASSTHROUGH = "passthrough"
    """Triton, or nobody: every request goes on alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOptions:
    """How one model is found on a fleet and run there.

    Attributes:
        fleet: name of the fleet.
        model: the model's name on Triton; the public name may be another.
        version: number on Triton; None: as here, or where there is none the highest that enough endpoints
            have ready.
        batching: who forms batches.
        min_ready: endpoints that must have the version before it is ready here: a count from 1 on, or a
            share of the fleet below 1.
        ready_timeout_s: how long a load waits for that.
        shared_memory: tensors travel in shared memory where an endpoint is on this host and allows it.
        control: versions are published to the fleet's repository, loaded and unloaded by this gateway.
    """

    fleet: str
    model: str
    version: int | None = None
    batching: Batching = Batching.AUTO
    min_ready: float = 1
    ready_timeout_s: float = 30.0
    shared_memory: bool = True
    control: bool = False

    def enough(self, endpoints: int) -> int:
        """Return how many of so many endpoints must have the version; at least one."""
        wanted = math.ceil(self.min_ready * endpoints) if self.min_ready < 1 else int(self.min_ready)
        return max(1, wanted)


def parse_options(raw: Mapping[str, Any], *, name: str = "") -> TritonOptions:
    """Read options from `ModelSpec.backend_options`.

    Args:
        raw: the options.
        name: the public name, which the model has on Triton too if they say nothing else.

    Raises:
        ModelLoadError: an unknown option, with near matches, one that is missing, or a value that does not
            fit.
    """
    values: dict[str, Any] = {"model": name}
    for key, value in raw.items():
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(_READERS)}"
            raise ModelLoadError(f"unknown option '{key}' of backend triton{hint}")
        try:
            values[key] = _READERS[key](value)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f"option '{key}' of backend triton: {error}") from error
    if "fleet" not in values:
        raise ModelLoadError("backend triton needs the option 'fleet': the name of a fleet under 'triton'")
    if not values["model"]:
        raise ModelLoadError("backend triton needs the option 'model': the model's name on Triton")
    return TritonOptions(**values)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is not a name")
    return value


def _version(value: Any) -> int | None:
    if value is None:
        return None
    number = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value))
    if number < 1:
        raise ValueError(f"{value!r} is not a version: those are integers from 1 on")
    return number


def _batching(value: Any) -> Batching:
    try:
        return value if isinstance(value, Batching) else Batching(value)
    except ValueError:
        raise ValueError(f"{value!r} is none of {', '.join(b.value for b in Batching)}") from None


def _min_ready(value: Any) -> float:
    number = float(value)
    if not (0 < number < 1 or (number >= 1 and number.is_integer())):
        raise ValueError(f"{value!r} is neither a count of endpoints from 1 on nor a share below 1")
    return number


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{value!r} is not a positive number of seconds")
    return seconds


def _shared_memory(value: Any) -> bool:
    if value in {"auto", True}:
        return True
    if value in {"off", False}:  # YAML reads a bare `off` as false
        return False
    raise ValueError(f"{value!r} is neither auto nor off")


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "fleet": _name,
    "model": _name,
    "version": _version,
    "batching": _batching,
    "min_ready": _min_ready,
    "ready_timeout_s": _seconds,
    "shared_memory": _shared_memory,
    "control": _switch,
}
