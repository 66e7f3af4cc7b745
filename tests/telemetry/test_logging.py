"""Log lines as they are written."""

import io
import json
import logging
from threading import Event
from weakref import finalize

import pytest

from gateway.core.types import InferResponse, RequestTiming, TraceContext
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.logging import Logging
from gateway.telemetry.options import LogFormat, LogLevel, LogOptions
from gateway.telemetry.outcome import Outcome
from tests.telemetry.builders import request

LOGGER = logging.getLogger("gateway.some.part")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object() -> None:
    """Event, level, logger, time and what was given as extra are its members."""
    stream = io.StringIO()
    with Logging(LogOptions(), stream):
        LOGGER.warning("model.%s", "loaded", extra={"model": "digits", "seconds": 1.5})
    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "model.loaded",
        "level": "warning",
        "logger": "gateway.some.part",
        "model": "digits",
        "seconds": 1.5,
    }


def fail_with(payload: str) -> None:
    raise ValueError(f"bad length {len(payload)}")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_is_written_without_local_variables(log_format: LogFormat) -> None:
    """Tracebacks name the places and the error, never the values that were there."""
    stream = Terminal()
    with Logging(LogOptions(format=log_format), stream):
        try:
            fail_with("secret" + "payload")
        except ValueError:
            LOGGER.exception("step.failed")
    written = stream.getvalue()
    assert "in fail_with" in written
    assert "ValueError: bad length 13" in written
    assert "secretpayload" not in written


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
)
def test_the_format_follows_the_option_and_the_terminal(
    log_format: LogFormat, stream: io.StringIO, is_json: bool
) -> None:
    """Auto is console on a terminal and JSON elsewhere; colours are for terminals alone."""
    with Logging(LogOptions(format=log_format), stream):
        LOGGER.info("hello")
    written = stream.getvalue()
    assert written.startswith("{") is is_json
    assert ("\x1b[" in written) is (not is_json and stream.isatty())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_clients_text_cannot_forge_a_line(log_format: LogFormat) -> None:
    """Control characters in messages and values are escaped."""
    stream = io.StringIO()
    with Logging(LogOptions(format=log_format), stream):
        LOGGER.info("no model %s", "a\nforged\x1b[2J", extra={"model": "a\n[error] forged\x1b[2J"})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def emit_all() -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        LOGGER.log(level, "x")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_the_level_at_start_is_the_least_written(level: LogLevel, written: list[str]) -> None:
    """Records below it are left out."""
    stream = io.StringIO()
    with Logging(LogOptions(level=level), stream):
        emit_all()
    assert [line["level"] for line in lines(stream)] == written


def test_each_level_has_its_own_switch() -> None:
    """The protocol's settings work one by one and at once."""
    stream = io.StringIO()
    with Logging(LogOptions(), stream) as log:
        assert log.values() == {
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
        }
        log.changed({"log_info": False, "log_warning": True, "log_error": False, "log_verbose_level": 1})
        emit_all()
        log.changed({"log_info": False, "log_warning": False, "log_error": False, "log_verbose_level": 0})
        emit_all()
    assert [line["level"] for line in lines(stream)] == ["debug", "warning"]


def test_leaving_restores_what_was_there() -> None:
    """Handlers and level of the root logger are as before."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with Logging(LogOptions(level="error"), io.StringIO()):
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before


class StuckStream(io.StringIO):
    """A stream whose reader has stalled."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = Event()
        self.go_on = Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.go_on.wait()
        return super().write(text)


def test_a_stalled_reader_costs_lines_and_no_time() -> None:
    """What does not fit into the queue is dropped and counted; what fits is written when leaving."""
    stream = StuckStream()
    with Logging(LogOptions(max_queued_records=3), stream) as log:
        LOGGER.info("first")
        stream.entered.wait()
        for _ in range(5):
            LOGGER.info("later")
        assert log.dropped == 2
        stream.go_on.set()
    assert [line["event"] for line in lines(stream)] == ["first", "later", "later", "later"]


class Payload:
    """Something a failing frame holds."""


def fail_holding(dead: Event) -> None:
    payload = Payload()
    finalize(payload, dead.set)
    raise ValueError


def test_a_queued_traceback_keeps_no_frame_alive() -> None:
    """What the failing code held is freed though its record still waits to be written."""
    stream, dead = StuckStream(), Event()
    with Logging(LogOptions(), stream):
        LOGGER.info("first")
        stream.entered.wait()
        try:
            fail_holding(dead)
        except ValueError:
            LOGGER.exception("step.failed")
        freed = dead.is_set()
        stream.go_on.set()
    assert freed
    assert "fail_holding" in str(lines(stream)[1]["exception"])


def test_an_access_line_tells_names_times_and_sizes_only() -> None:
    """One line per request without a payload, its client-made names cut."""
    stream = io.StringIO()
    made = request(request_id="r" * 500, trace=TraceContext(255, 1, sampled=True))
    response = InferResponse(
        model_name="digits",
        model_version="3",
        outputs=made.inputs,
        timing=RequestTiming(queue_ns=1_500_000, compute_infer_ns=2_000_000, batch_rows=8),
    )
    with Logging(LogOptions(), stream):
        AccessLog().record(made, Outcome.OK, response, 0.0042)
    (line,) = lines(stream)
    line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "gateway.access",
        "model": "digits",
        "version": "3",
        "request_id": "r" * 128,
        "tenant": "",
        "outcome": "ok",
        "duration_ms": 4.2,
        "received_bytes": 4,
        "queue_ms": 1.5,
        "compute_ms": 2.0,
        "batch_rows": 8,
        "trace_id": f"{255:032x}",
    }


def test_a_refused_request_has_a_line_too() -> None:
    """Without a response there are no times of the batch."""
    stream = io.StringIO()
    with Logging(LogOptions(), stream):
        AccessLog().record(request("nope"), Outcome.NOT_FOUND, None, 0.001)
    (line,) = lines(stream)
    assert (line["model"], line["outcome"]) == ("nope", "not_found")
    assert "queue_ms" not in line


def test_the_watcher_of_files_is_heard_from_warnings_on_and_put_back() -> None:
    """Its count of changes at every event drowns what matters; leaving restores its level."""
    watcher = logging.getLogger("watchfiles.main")
    before = watcher.level
    stream = io.StringIO()
    with Logging(LogOptions(level="debug"), stream):
        watcher.info("1 change detected")
        watcher.warning("it failed")
    assert [line["event"] for line in lines(stream)] == ["it failed"]
    assert watcher.level == before
