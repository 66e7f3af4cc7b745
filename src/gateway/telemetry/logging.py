"""Structured logs: every record of the process as one JSON object or console line, written by a thread.

Packages log through the standard library (`logging.getLogger(__name__)`): the message is the event's name,
what belongs to it goes into `extra`. Payloads never do.
"""

from __future__ import annotations

import copy
import logging
import queue
import sys
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Final, Self, TextIO, TypeAlias

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from structlog.typing import EventDict, Processor

    from gateway.telemetry.options import LogOptions

    LogValues: TypeAlias = Mapping[str, bool | int | str]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_CHATTY: Final = ("watchfiles.main",)
"""Loggers that tell every single event of their own work at INFO: heard from WARNING on."""


class LevelSwitches(logging.Filter):
    """Which levels are written: Triton's switches, each level by itself, and verbose for debug."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.info = least <= logging.INFO
        self.warning = least <= logging.WARNING
        self.error = least <= logging.ERROR
        self.verbose_level = int(least <= logging.DEBUG)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; called on the logging thread."""
        if record.levelno >= logging.ERROR:
            return self.error
        if record.levelno >= logging.WARNING:
            return self.warning
        if record.levelno >= logging.INFO:
            return self.info
        return self.verbose_level > 0

    def least(self) -> int:
        """Return the lowest level that may be written, to spare building records below it."""
        switches = (
            (self.verbose_level > 0, logging.DEBUG),
            (self.info, logging.INFO),
            (self.warning, logging.WARNING),
            (self.error, logging.ERROR),
        )
        return next((level for on, level in switches if on), logging.CRITICAL + 1)


class _BoundedQueueHandler(QueueHandler):
    """Hands records to the writing thread; drops and counts when it cannot keep up."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__(records)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Turn arguments and traceback into text now: frames kept in a queue would keep payloads alive."""
        prepared = copy.copy(record)
        prepared.msg = record.getMessage()
        prepared.args = None
        if record.exc_info:
            prepared.exception = logging.Formatter().formatException(record.exc_info)  # an extra
            prepared.exc_info = prepared.exc_text = None
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue the record or drop it; never waits."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _PatientListener(QueueListener):
    """Stops after what is queued, be the queue full."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None], writer: logging.Handler) -> None:
        super().__init__(records, writer)
        self._records = records

    def enqueue_sentinel(self) -> None:
        """Wait for room for the mark that ends the thread."""
        self._records.put(None)


class Logging:
    """Owns the process's logging while entered; puts back what was there before when left.

    Leaving writes every queued record first, on the caller's thread's time.

    Args:
        options: format, level, queue bound.
        stream: where lines go; standard error when None.
    """

    def __init__(self, options: LogOptions, stream: TextIO | None = None) -> None:
        target = stream or sys.stderr
        records: queue.Queue[logging.LogRecord | None] = queue.Queue(options.max_queued_records)
        self._handler = _BoundedQueueHandler(records)
        self._switches = LevelSwitches(_LEVELS[options.level])
        self._handler.addFilter(self._switches)
        writer = logging.StreamHandler(target)
        writer.setFormatter(_formatter(options, target))
        self._listener = _PatientListener(records, writer)
        self._before: tuple[list[logging.Handler], int] = ([], logging.WARNING)
        self._levels_before: dict[str, int] = {}

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._before = (root.handlers[:], root.level)
        root.handlers[:] = [self._handler]
        root.setLevel(self._switches.least())
        self._levels_before = {name: logging.getLogger(name).level for name in _CHATTY}
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        root.handlers[:], level = self._before
        root.setLevel(level)
        for name, level in self._levels_before.items():
            logging.getLogger(name).setLevel(level)
        self._listener.stop()

    @property
    def dropped(self) -> int:
        """Records dropped because the queue was full."""
        return self._handler.dropped

    def values(self) -> LogValues:
        """Return the switches in the protocol's names."""
        switches = self._switches
        return {
            "log_info": switches.info,
            "log_warning": switches.warning,
            "log_error": switches.error,
            "log_verbose_level": switches.verbose_level,
        }

    def changed(self, values: LogValues) -> None:
        """Take over validated log settings, in the protocol's names; takes effect at once."""
        switches = self._switches
        switches.info = bool(values["log_info"])
        switches.warning = bool(values["log_warning"])
        switches.error = bool(values["log_error"])
        switches.verbose_level = int(values["log_verbose_level"])
        logging.getLogger().setLevel(switches.least())


def _formatter(options: LogOptions, target: TextIO) -> ProcessorFormatter:
    terminal = target.isatty()
    console = options.format == "console" or (options.format == "auto" and terminal)
    shared: list[Processor] = [
        ExtraAdder(),
        structlog.stdlib.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        ProcessorFormatter.remove_processors_meta,
    ]
    if console:
        return ProcessorFormatter(processors=[*shared, _escape_controls, _console(colors=terminal)])
    return ProcessorFormatter(processors=[*shared, structlog.processors.JSONRenderer(default=str)])


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    # The default traceback formatter prints local variables, and with them payloads.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _add_logger_name(_: object, __: str, event: EventDict) -> EventDict:
    event["logger"] = event["_record"].name
    return event


def _escape_controls(_: object, __: str, event: EventDict) -> EventDict:
    """Escape control characters, or a client's name with a newline in it could forge a line."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = repr(value)
    return event
