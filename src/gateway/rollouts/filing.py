"""What the rollout files of a moment are to the lines: news to be told, or nothing new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.rollout import RolloutSpec
from gateway.rollouts import events
from gateway.rollouts.phases import RESTING

if TYPE_CHECKING:
    from gateway.rollouts.line import Line
    from gateway.rollouts.ports import SpecFile, SpecFiles, SpecStatus
    from gateway.rollouts.state import RolloutState


def has_file(state: RolloutState) -> bool:
    """Tell whether a line has a file, be it one that waits to begin."""
    return state.spec is not None or state.next_spec is not None


def tell(line: Line, file: SpecFile, files: SpecFiles) -> None:
    """Tell a line of its file, unless it is in force or was refused already."""
    known = line.state.file
    if has_file(line.state) and known.path == file.path:
        is_broken = any(status.path == file.path and status.error for status in files.statuses)
        if known.active_hash == file.hash and (is_broken or not known.error):
            return
        if known.seen_hash == file.hash and known.error and line.state.phase not in RESTING:
            return
    _give(line, file)


def tell_again(line: Line, files: SpecFiles) -> None:
    """Tell a line of the file that it refused while its rollout was in progress, once that is over."""
    known = line.state.file
    if not known.error or line.state.phase not in RESTING:
        return
    for file in files.specs:
        is_refused = file.hash == known.seen_hash != known.active_hash
        if isinstance(file.spec, RolloutSpec) and file.spec.name == line.name and is_refused:
            _give(line, file)


def tell_status(line: Line, status: SpecStatus) -> None:
    """Tell a line why its newest file is not in force."""
    if status.error and line.state.file.error != status.error:
        line.feed(events.SpecRefused(file_hash=status.file_hash, error=status.error, **line.now()))


def file_row(status: SpecStatus) -> dict[str, Any]:
    """Return where a file stands as a document."""
    return {
        "path": status.path,
        "name": status.name,
        "hash": status.file_hash,
        "active_hash": status.active_hash,
        "error": status.error,
        "warnings": list(status.warnings),
    }


def _give(line: Line, file: SpecFile) -> None:
    assert isinstance(file.spec, RolloutSpec)
    line.feed(
        events.SpecSeen(spec=file.spec, file_hash=file.hash, author=file.author, path=file.path, **line.now())
    )
