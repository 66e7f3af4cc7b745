"""When requests come: closed loops, and open ones as schedules that no slow answer changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy.typing as npt

    Offsets = npt.NDArray[np.float64]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Closed(_Record):
    """So many requests are always in flight: the next goes out when an answer comes in.

    Attributes:
        in_flight: over all connections.
        connections: 0: HTTP one each, gRPC at most 8.
    """

    kind: Literal["closed"]
    in_flight: int = Field(ge=1, le=65536)
    connections: int = Field(default=0, ge=0, le=16384)

    def connections_for(self, *, http: bool) -> int:
        """Return the number of connections."""
        return self.connections or (self.in_flight if http else min(self.in_flight, 8))


class _Open(_Record):
    """An open loop.

    Attributes:
        connections: requests are spread over them in turn; over HTTP/1.1 the most that can be in flight.
        seed: of whatever is random in the schedule.
    """

    connections: int = Field(default=64, ge=1, le=16384)
    seed: int = 1


class _Rated(_Open):
    """An open loop with a rate, in requests per second or as a multiple of the peak of a closed loop.

    Attributes:
        rate: requests per second.
        of_peak: the rate as a multiple of what 64 requests in flight reach, measured just before.
    """

    rate: float | None = Field(default=None, gt=0, le=1e6)
    of_peak: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.rate is None) == (self.of_peak is None):
            raise ValueError(
                "give either rate, in requests per second, or of_peak, as a multiple of the peak"
            )
        return self

    @property
    def rate_per_s(self) -> float:
        """The rate; a multiple of the peak must have been resolved."""
        if self.rate is None:
            raise ValueError("the peak has not been measured")
        return self.rate


class Constant(_Rated):
    """Requests at equal distances."""

    kind: Literal["constant"]


class Poisson(_Rated):
    """Requests at random times, independent of each other."""

    kind: Literal["poisson"]


class Bursts(_Rated):
    """Requests in bursts of `size`, each at one instant, at equal distances that give the rate."""

    kind: Literal["bursts"]
    size: int = Field(ge=1, le=65536)


class Ramp(_Open):
    """A rate that grows evenly from `start_rate` to `end_rate`, or falls."""

    kind: Literal["ramp"]
    start_rate: float = Field(ge=0, le=1e6)
    end_rate: float = Field(ge=0, le=1e6)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.start_rate and not self.end_rate:
            raise ValueError("start_rate and end_rate are both 0: nothing would be sent")
        return self


class Replay(_Open):
    """Requests at the times of a trace.

    Attributes:
        file: a time in seconds per line, ascending; what follows it on the line is not read.
        speed: 2 replays twice as fast.
    """

    kind: Literal["replay"]
    file: Path
    speed: float = Field(default=1, gt=0, le=1e4)


Arrival = Annotated[Closed | Constant | Poisson | Bursts | Ramp | Replay, Field(discriminator="kind")]


def offsets_s(arrival: Any, duration_s: float) -> Offsets:
    """Return when requests are due, in seconds from the start, ascending and below `duration_s`.

    Args:
        arrival: one of the open kinds, its rate resolved.
        duration_s: of the run.

    Raises:
        TypeError: a closed loop has no schedule.
        ValueError: a trace cannot be read.
    """
    match arrival:
        case Constant():
            return np.arange(round(arrival.rate_per_s * duration_s)) / arrival.rate_per_s
        case Poisson():
            return _poisson(arrival, duration_s)
        case Bursts():
            period_s = arrival.size / arrival.rate_per_s
            starts_s = np.arange(np.ceil(duration_s / period_s)) * period_s
            return np.repeat(starts_s, arrival.size)
        case Ramp():
            return _ramp(arrival, duration_s)
        case Replay():
            return _trace(arrival, duration_s)
    raise TypeError(f"{type(arrival).__name__} has no schedule")


def _poisson(arrival: Poisson, duration_s: float) -> Offsets:
    """Draw the count, then the times: given their number, arrivals are uniform (Kingman 1993, 2.4)."""
    random = np.random.default_rng(arrival.seed)
    count = random.poisson(arrival.rate_per_s * duration_s)
    return np.sort(random.uniform(0, duration_s, count))


def _ramp(arrival: Ramp, duration_s: float) -> Offsets:
    """Return when the integral of the rate, a parabola, passes 0, 1, 2, ..."""
    start, slope = arrival.start_rate, (arrival.end_rate - arrival.start_rate) / duration_s
    due = np.arange(np.floor((arrival.start_rate + arrival.end_rate) / 2 * duration_s), dtype=np.float64)
    if not slope:
        return due / start
    # The stable form of the quadratic's root: for a ramp from 0 the usual one divides nothing by nothing.
    below = start + np.sqrt(np.maximum(start * start + 2 * slope * due, 0.0))
    times_s: Offsets = np.divide(2 * due, below, out=np.zeros_like(due), where=below > 0)
    return times_s


def _trace(arrival: Replay, duration_s: float) -> Offsets:
    try:
        lines = arrival.file.read_text().splitlines()
        times_s = np.array([float(line.split()[0].rstrip(",")) for line in lines if line.strip()])
    except (OSError, ValueError) as exc:
        raise ValueError(f"{arrival.file} is no trace, a time in seconds per line: {exc}") from exc
    if not len(times_s):
        raise ValueError(f"{arrival.file} holds no times")
    if np.any(np.diff(times_s) < 0):
        raise ValueError(f"{arrival.file}: times must ascend")
    from_start_s: Offsets = (times_s - times_s[0]) / arrival.speed
    within: Offsets = from_start_s[from_start_s < duration_s]
    return within
