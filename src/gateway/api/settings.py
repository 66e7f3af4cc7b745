"""Trace and log settings that clients may read and change: the seams, and keepers in memory that validate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from gateway.core.errors import InvalidRequest

TraceValues: TypeAlias = Mapping[str, tuple[str, ...]]
LogValue: TypeAlias = bool | int | str
LogValues: TypeAlias = Mapping[str, LogValue]

_INT32_MAX: Final = (1 << 31) - 1
_UINT32_MAX: Final = (1 << 32) - 1
_TRACE_LEVELS: Final = ("OFF", "TIMESTAMPS")


class TraceSettings(Protocol):
    """Settings of tracing, the server's and each model's own. Event loop only; nothing waits."""

    def get(self, model: str = "") -> TraceValues:
        """Return every setting in force for `model`; the server's when it is empty."""

    def update(self, changes: TraceValues, model: str = "") -> TraceValues:
        """Change all of `changes` or nothing, and return as `get`.

        Args:
            changes: name -> values; no values put a setting back to the server's (for a model) or to what
                it was at start (for the server).
            model: the model meant; the caller has checked that it exists.

        Raises:
            InvalidRequest: an unknown name, or a value that the setting cannot take.
        """


class LogSettings(Protocol):
    """Settings of logging. Event loop only; nothing waits."""

    def get(self) -> LogValues:
        """Return every setting."""

    def update(self, changes: LogValues) -> LogValues:
        """Change all of `changes` or nothing, and return as `get`.

        Raises:
            InvalidRequest: an unknown name, or a value that the setting cannot take.
        """


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> InvalidRequest:
    return InvalidRequest(f"unknown {kind} setting '{name}'; the settings are {', '.join(sorted(known))}")


def _trace_level(values: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [value for value in values if value not in _TRACE_LEVELS]
    if wrong or ("OFF" in values and len(values) > 1):
        raise InvalidRequest(f"trace setting 'trace_level' takes OFF or TIMESTAMPS, got {_shown(values)}")
    return tuple(dict.fromkeys(values))


def _integer(name: str, least: int) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        text = values[0]
        digits = text.removeprefix("-")
        # The length bound keeps int() from chewing on megabytes of digits.
        valid = len(values) == 1 and digits.isascii() and digits.isdigit() and len(digits) <= 10
        if not valid or not least <= int(text) <= _INT32_MAX:
            raise InvalidRequest(
                f"trace setting '{name}' takes an integer from {least} to {_INT32_MAX}, got {_shown(values)}"
            )
        return (str(int(text)),)

    return check


_TRACE_CHECKS: Final[Mapping[str, Callable[[tuple[str, ...]], tuple[str, ...]]]] = MappingProxyType(
    {
        "trace_level": _trace_level,
        "trace_rate": _integer("trace_rate", 1),
        "trace_count": _integer("trace_count", -1),
        "log_frequency": _integer("log_frequency", 0),
    }
)

TRACE_DEFAULTS: Final[TraceValues] = MappingProxyType(
    {"trace_level": ("OFF",), "trace_rate": ("1000",), "trace_count": ("-1",), "log_frequency": ("0",)}
)
"""Tracing off; one request in 1000 once on, without end."""


def _always(_model: str) -> bool:
    return True


class InMemoryTraceSettings:
    """Keeps trace settings and tells one listener of every change.

    Invariant: what is kept is valid, and a refused update changes nothing. After each update it holds
    records only of models that exist and have settings of their own.

    Args:
        start: the server's settings at start, by name.
        on_change: told the model ("" for the server) and its settings in force after each change; of a
            model that has none of its own any more, no settings.
        exists: whether a model still exists; what is kept of others is dropped with the next update.
    """

    def __init__(
        self,
        start: TraceValues = TRACE_DEFAULTS,
        on_change: Callable[[str, TraceValues], None] | None = None,
        exists: Callable[[str], bool] = _always,
    ) -> None:
        self._start: TraceValues = {**TRACE_DEFAULTS, **_checked_trace(start)}
        self._own: dict[str, TraceValues] = {}
        self._on_change = on_change
        self._exists = exists

    def get(self, model: str = "") -> TraceValues:
        """Return the settings in force, as `TraceSettings.get`."""
        server = {**self._start, **self._own.get("", {})}
        return {**server, **self._own.get(model, {})}

    def update(self, changes: TraceValues, model: str = "") -> TraceValues:
        """Change settings, as `TraceSettings.update`."""
        checked = _checked_trace(changes)
        for gone in [name for name in self._own if name not in {"", model} and not self._exists(name)]:
            self._keep(gone, {})
        if changes:
            own = {**self._own.get(model, {}), **checked}
            self._keep(model, {name: values for name, values in own.items() if values})
        return self.get(model)

    def _keep(self, model: str, own: TraceValues) -> None:
        """Replace a model's own settings, and tell."""
        if own:
            self._own[model] = own
        else:
            self._own.pop(model, None)
        if self._on_change is not None:
            self._on_change(model, self.get(model) if own or not model else {})


def _checked_trace(changes: TraceValues) -> dict[str, tuple[str, ...]]:
    checked: dict[str, tuple[str, ...]] = {}
    for name, values in changes.items():
        if name not in _TRACE_CHECKS:
            raise _unknown("trace", name, _TRACE_CHECKS)
        checked[name] = _TRACE_CHECKS[name](values) if values else ()
    return checked


LOG_DEFAULTS: Final[LogValues] = MappingProxyType(
    {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0}
)


class InMemoryLogSettings:
    """Keeps log settings and tells one listener of every change.

    Invariant: what is kept is valid, and a refused update changes nothing.

    Args:
        start: settings at start, by name.
        on_change: told all settings after each change.
    """

    def __init__(
        self, start: LogValues = LOG_DEFAULTS, on_change: Callable[[LogValues], None] | None = None
    ) -> None:
        self._values: LogValues = {**LOG_DEFAULTS, **_checked_log(start)}
        self._on_change = on_change

    def get(self) -> LogValues:
        """Return every setting, as `LogSettings.get`."""
        return dict(self._values)

    def update(self, changes: LogValues) -> LogValues:
        """Change settings, as `LogSettings.update`."""
        self._values = {**self._values, **_checked_log(changes)}
        if self._on_change is not None and changes:
            self._on_change(self.get())
        return self.get()


def _checked_log(changes: LogValues) -> LogValues:
    for name, value in changes.items():
        if name not in LOG_DEFAULTS:
            raise _unknown("log", name, LOG_DEFAULTS)
        if name == "log_verbose_level":
            # bool is an int to Python, not to the protocol.
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _UINT32_MAX:
                raise InvalidRequest(
                    f"log setting '{name}' takes an integer from 0 to 2**32 - 1, got {_shown(value)}"
                )
        elif not isinstance(value, bool):
            raise InvalidRequest(f"log setting '{name}' takes true or false, got {_shown(value)}")
    return changes


def _shown(value: object) -> str:
    return repr(value)[:40]
