"""What a request asks for: query parameters and paths, with their bounds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.core.errors import InvalidRequest
from gateway.monitor.pages.shown import Period, Selection
from gateway.monitor.values import ALL, WINDOWS_S

if TYPE_CHECKING:
    from collections.abc import Mapping

RANGES_S: Final[Mapping[str, int]] = {
    "1h": 3600, "6h": 21_600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "90d": 7_776_000,
}  # fmt: skip
"""Periods up to now, by name."""

MOST_WINDOWS: Final = 200
"""A period is shown in the shortest window that fits into it at most so often."""

_DAY: Final = "1d"
_LONGEST: Final = 1000
_MOST_DAYS: Final = 400
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Asked:
    """Query parameters.

    Attributes:
        values: as sent.
        now_s: the wall clock.
        windows: that are compared with the reference: name -> length in seconds.
        usual: period shown where none is asked for, one of RANGES_S; empty: what suits the page.
    """

    values: Mapping[str, str]
    now_s: float
    windows: Mapping[str, int] = field(default_factory=lambda: WINDOWS_S)
    usual: str = ""

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter.

        Raises:
            InvalidRequest: it is longer than 1000 characters or has control characters.
        """
        value = self.values.get(name, default)
        if len(value) > _LONGEST or _CONTROL.search(value):
            raise InvalidRequest(f"'{name}' must be at most {_LONGEST} characters without control characters")
        return value

    def required(self, name: str) -> str:
        """Return a parameter that must be there.

        Raises:
            InvalidRequest: it is not, or as of `text`.
        """
        if not (value := self.text(name)):
            raise InvalidRequest(f"the query parameter '{name}' is missing")
        return value

    def selection(self, model: str) -> Selection:
        """Return the stream asked for: `version`, `arm`, `segment`.

        Raises:
            InvalidRequest: the version is no number.
        """
        version = self.text("version")
        if version and not (version.isdecimal() and version.isascii() and len(version) <= 18):
            raise InvalidRequest(f"'version' must be a number, not '{version[:40]}'")
        segment = self.text("segment", ALL)
        return Selection(
            model=model, version=int(version) if version else None, arm=self.text("arm"), segment=segment
        )

    def range_name(self, default: str = _DAY) -> str:
        """Return the name of the period up to now, one of RANGES_S.

        Raises:
            InvalidRequest: it is none of them.
        """
        name = self.text("range") or self.usual or default
        if name not in RANGES_S:
            raise InvalidRequest(f"'range' must be one of {', '.join(RANGES_S)}")
        return name

    def period(self, default: str = _DAY) -> Period:
        """Return `start` and `end` in seconds since the epoch, or else `range` up to now, in whole minutes.

        Raises:
            InvalidRequest: they are no numbers, the wrong way round or more than 400 days apart.
        """
        if "start" not in self.values and "end" not in self.values:
            end_s = math.ceil(self.now_s / 60) * 60.0
            return Period(end_s - RANGES_S[self.range_name(default)], end_s)
        end_s = self._seconds("end", self.now_s)
        period = Period(self._seconds("start", end_s - RANGES_S[_DAY]), end_s)
        if not 0 < period.end_s - period.start_s <= _MOST_DAYS * 86_400:
            raise InvalidRequest(f"'end' must be after 'start', by at most {_MOST_DAYS} days")
        return period

    def window(self, default: str = "") -> str:
        """Return the name of a window; by default the one that suits the period.

        Raises:
            InvalidRequest: it is none of them.
        """
        name = self.text("window") or default or self._fitting()
        if name not in self.windows:
            raise InvalidRequest(f"'window' must be one of {', '.join(self.windows)}")
        return name

    def _fitting(self) -> str:
        period = self.period()
        length_s = period.end_s - period.start_s
        by_length = sorted(self.windows, key=lambda name: self.windows[name])
        fitting = (name for name in by_length if length_s <= MOST_WINDOWS * self.windows[name])
        return next(fitting, by_length[-1])

    def _seconds(self, name: str, default: float) -> float:
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e11:
            raise InvalidRequest(f"'{name}' must be seconds since the epoch, not '{text[:40]}'")
        return value
