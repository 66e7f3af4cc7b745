"""What is announced when start-up is over, and the progress before."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.app import Ports
from gateway.commands.progress import PlainProgress, TerminalProgress, load_progress
from gateway.commands.ready import Listening, announcement
from gateway.core.interfaces import FetchObserver
from gateway.core.types import ModelSignature, VersionState
from gateway.testing import VirtualClock
from tests.commands.catalog import PIXELS, FixedCatalog, status

PORTS = Ports(http=8000, grpc=8001, metrics=8002, admin=8003)
LOCAL = Listening("127.0.0.1", "127.0.0.1", PORTS)


def test_addresses_and_snippets_of_the_newest_version() -> None:
    """Every address, one curl line and one Python snippet per model, starting in the first column."""
    text = announcement(LOCAL, FixedCatalog([status("a", 1), status("a", 2), status("b", 7)]))
    lines = text.splitlines()
    assert lines[0] == "Ready."
    for address in (
        "http://127.0.0.1:8000",
        "127.0.0.1:8001",
        "http://127.0.0.1:8002/metrics",
        "http://127.0.0.1:8003",
    ):
        assert any(line.startswith("  ") and line.endswith(address) for line in lines)
    assert "a, versions 1, 2" in lines
    assert "b, version 7" in lines
    assert len([line for line in lines if line.startswith("curl -s ")]) == 2
    assert len([line for line in lines if line.startswith("import json")]) == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
    ],
)
def test_the_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    """An address that means every interface is announced as the loopback."""
    assert Listening(host, "127.0.0.1", PORTS).http_url == url


def test_tls_is_announced() -> None:
    """HTTPS in every URL, TLS beside gRPC."""
    listening = Listening("127.0.0.1", "127.0.0.1", PORTS, http_secure=True, grpc_secure=True)
    text = announcement(listening, FixedCatalog([status("a", 1)]))
    assert "https://127.0.0.1:8000/v2/models/a/infer" in text
    assert "127.0.0.1:8001 (TLS)" in text


def test_a_failed_model_is_announced_with_its_reason() -> None:
    """The server is up and not ready: both are said, and why."""
    failed = status("bad", 1, VersionState.FAILED, "the file is truncated")
    text = announcement(LOCAL, FixedCatalog([status("a", 1), failed]))
    assert text.startswith("NOT READY")
    assert "FAILED   bad version 1: the file is truncated" in text
    assert "models/bad/infer" not in text


def test_a_decoupled_model_gets_no_snippet_that_would_fail() -> None:
    """It answers with a stream, which curl cannot ask for by infer."""
    catalog = FixedCatalog([status("a", 1)], ModelSignature((PIXELS,), (), decoupled=True))
    text = announcement(LOCAL, catalog)
    assert "ModelStreamInfer" in text
    assert "curl" not in text


def test_plain_progress_is_one_line_per_change() -> None:
    """State, time and reason, each change on its own unbroken line; silent once left."""
    out = io.StringIO()
    with load_progress(Console(file=out, width=20)) as progress:
        assert isinstance(progress, PlainProgress)
        for state in (VersionState.NEW, VersionState.LOADING, VersionState.WARMING, VersionState.READY):
            progress.on_transition(status("digits", 2, state))
        progress.on_loaded(status("digits", 2), 1.25)
        progress.on_transition(status("bad", 1, VersionState.FAILED, "[red] is no markup"))
    progress.on_transition(status("late", 1, VersionState.LOADING))
    assert out.getvalue().splitlines() == [
        "digits version 2: loading",
        "digits version 2: warming up",
        "digits version 2: ready after 1.25 s",
        "bad version 1: FAILED: [red] is no markup",
    ]


def test_plain_progress_names_every_step() -> None:
    """A version of a registry is followed through fetch, checks and golden tests; bytes are left out."""
    out = io.StringIO()
    with load_progress(Console(file=out)) as progress:
        for state in list(VersionState)[: list(VersionState).index(VersionState.READY)]:
            progress.on_transition(status("fraud", 3, state))
    assert [line.partition(": ")[2] for line in out.getvalue().splitlines()] == [
        "fetching",
        "verifying",
        "loading",
        "checking its signature",
        "warming up",
        "running its golden tests",
    ]


def test_plain_progress_says_now_and_then_how_far_a_fetch_is() -> None:
    """A line every five seconds, counted for each version, from its last line on; silent once left."""
    out, clock = io.StringIO(), VirtualClock()
    fetching = status("fraud", 3, VersionState.FETCHING)
    other = status("iris", 1, VersionState.FETCHING)
    with PlainProgress(Console(file=out), clock.now_s) as progress:
        assert isinstance(progress, FetchObserver)
        progress.on_transition(fetching)
        for done in range(1, 12):
            clock.advance(1.0)
            progress.on_progress(replace(fetching, done_bytes=done * 20_000_000, total_bytes=231_000_000))
        progress.on_transition(other)
        progress.on_progress(replace(other, done_bytes=5_000_000))
        clock.advance(5.0)
        progress.on_progress(replace(other, done_bytes=6_000_000))
    clock.advance(60.0)
    progress.on_progress(replace(fetching, done_bytes=231_000_000, total_bytes=231_000_000))
    assert out.getvalue().splitlines() == [
        "fraud version 3: fetching",
        "fraud version 3: fetching, 100.0 of 231.0 MB",
        "fraud version 3: fetching, 200.0 of 231.0 MB",
        "iris version 1: fetching",
        "iris version 1: fetching, 6.0 MB",
    ]


def test_terminal_progress_shows_how_far_a_fetch_is() -> None:
    """Megabytes and a bar while files come, nothing of it afterwards; silent once left."""
    out = io.StringIO()
    fetching = status("fraud", 3, VersionState.FETCHING)
    with TerminalProgress(Console(file=out, force_terminal=True, width=120)) as progress:
        assert isinstance(progress, FetchObserver)
        progress.on_transition(fetching)
        progress.on_progress(replace(fetching, done_bytes=2_000_000))
        progress.on_progress(replace(fetching, done_bytes=12_300_000, total_bytes=45_600_000))
        progress._progress.refresh()
        assert "fraud version 3: fetching, 12.3 of 45.6 MB" in out.getvalue()
        assert "━━━━" in out.getvalue()
        progress.on_transition(status("fraud", 3, VersionState.LOADING))
        progress._progress.refresh()
    assert "━━━━" not in out.getvalue().rsplit("\x1b[2K", 1)[-1]
    progress.on_progress(replace(fetching, done_bytes=99_000_000))
    assert "99.0" not in out.getvalue()


def test_terminal_progress_keeps_one_line_per_version() -> None:
    """The last state of each version stays on the screen."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with load_progress(console) as progress:
        assert isinstance(progress, TerminalProgress)
        for state in (VersionState.LOADING, VersionState.READY):
            progress.on_transition(status("digits", 2, state))
        progress.on_loaded(status("digits", 2), 1.25)
        progress.on_transition(status("bad", 1, VersionState.FAILED, "truncated"))
    last_screen = out.getvalue().rsplit("\x1b[2K", 2)
    assert "digits version 2: ready" in out.getvalue()
    assert "bad version 1: FAILED: truncated" in last_screen[-1]
