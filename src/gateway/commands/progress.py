"""Shows models loading at start-up: moving lines on a terminal, plain ones otherwise."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from gateway.commands.ready import label
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Task, TaskID

    from gateway.core.types import VersionId, VersionStatus

_WORDS: Final = {
    VersionState.FETCHING: "fetching",
    VersionState.VERIFYING: "verifying",
    VersionState.LOADING: "loading",
    VersionState.CHECKING: "checking its signature",
    VersionState.WARMING: "warming up",
    VersionState.TESTING: "running its golden tests",
    VersionState.READY: "ready",
    VersionState.FAILED: "FAILED",
}
_PLAIN_INTERVAL_S: Final = 5.0


class PlainProgress:
    """A `LifecycleObserver` that prints one line per change, until it is left as a context manager.

    Of files on their way it says how far they are, every few seconds; a fetch that is soon over is one line.

    Args:
        console: where to print.
        now_s: monotonic seconds.
    """

    def __init__(self, console: Console, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now_s = now_s
        self._open = True
        self._told_s: dict[VersionId, float] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Fall silent: once the server runs, changes are the log's affair."""
        self._open = False
        self._told_s.clear()

    def on_transition(self, status: VersionStatus) -> None:
        """Print the new state; READY is left to `on_loaded`, which knows how long it took."""
        if self._open:
            self._told_s[status.id] = self._now_s()
        if self._open and status.state in _WORDS and status.state is not VersionState.READY:
            reason = f": {status.reason}" if status.reason else ""
            self._line(f"{label(status)}: {_WORDS[status.state]}{reason}")

    def on_progress(self, status: VersionStatus) -> None:
        """Print how far the version's files are, unless a line about it came a short time ago."""
        now_s = self._now_s()
        if not self._open or now_s - self._told_s.get(status.id, now_s) < _PLAIN_INTERVAL_S:
            return
        self._told_s[status.id] = now_s
        self._line(f"{label(status)}: {_WORDS[status.state]}, {_megabytes(status)}")

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Print that the version is ready and after how long."""
        if self._open and status.state is VersionState.READY:
            self._line(f"{label(status)}: ready after {seconds:.2f} s")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _FetchBar(ProgressColumn):
    """A bar on the lines of versions whose files are being fetched or verified."""

    def render(self, task: Task) -> ProgressBar | Text:
        """Draw the bar; nothing where there is nothing to count."""
        total, done = task.fields.get("total_bytes", 0), task.fields.get("done_bytes", 0)
        return ProgressBar(total=total, completed=done, width=20) if total else Text()


class TerminalProgress:
    """A `LifecycleObserver` that keeps one line per version moving, until it is left as a context manager."""

    def __init__(self, console: Console) -> None:
        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, _FetchBar(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[VersionId, TaskID] = {}
        self._open = True

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing and leave the last state on the screen."""
        self._open = False
        self._progress.stop()

    def on_transition(self, status: VersionStatus) -> None:
        """Show the new state on the version's line; stop its clock when it is ready or has failed."""
        if not self._open or status.state not in _WORDS:
            return
        task = self._task(status)
        reason = f": {status.reason}" if status.reason else ""
        text = f"{label(status)}: {_WORDS[status.state]}{reason}"
        self._progress.update(task, description=text, done_bytes=0, total_bytes=0)
        if status.state in {VersionState.READY, VersionState.FAILED}:
            self._progress.update(task, total=1, completed=1)

    def on_progress(self, status: VersionStatus) -> None:
        """Move the version's bar."""
        if not self._open or status.state not in _WORDS:
            return
        text = f"{label(status)}: {_WORDS[status.state]}, {_megabytes(status)}"
        done, total = status.done_bytes, status.total_bytes
        self._progress.update(self._task(status), description=text, done_bytes=done, total_bytes=total)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Do nothing: the line's own clock has shown it."""

    def _task(self, status: VersionStatus) -> TaskID:
        if status.id not in self._tasks:
            self._tasks[status.id] = self._progress.add_task(label(status), total=None)
        return self._tasks[status.id]


def _megabytes(status: VersionStatus) -> str:
    total = f" of {status.total_bytes / 1e6:.1f}" if status.total_bytes else ""
    return f"{status.done_bytes / 1e6:.1f}{total} MB"


def load_progress(console: Console) -> PlainProgress | TerminalProgress:
    """Return the kind of progress that suits where `console` writes."""
    return TerminalProgress(console) if console.is_terminal else PlainProgress(console)
