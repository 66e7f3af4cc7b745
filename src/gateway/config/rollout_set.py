"""Which rollout files are in force: whole files only, the last good one of each, all of one look. Pure.

A file is taken once two looks `settle_s` apart have found it the same, or when it was at rest before the
first look. What is wrong with a file never changes what is in force; neither does a directory that is
missing or cannot be read. A file counts as deleted when two looks `gone_s` apart, both at a readable
directory, did not find it. Two files for one model or name: the one in force stays, the others are refused;
where none is in force yet, all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.config.rollout_file import parse_rollout
from gateway.config.rollout_values import MAX_DURATION_S
from gateway.core.errors import ConfigError
from gateway.core.rollout import RolloutSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.config.rollout_file import RolloutFile
    from gateway.config.rollout_listing import FileRead, Listing

GONE_S: Final = 1.0
_NS_PER_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One file, for status and metrics.

    Attributes:
        path: of the file.
        file_hash: of what was found last; empty when it cannot be read.
        active_hash: of what is in force; empty while it never was valid.
        name: of the rollout or split in force; empty likewise.
        error: why what was found is not in force, one complaint per line; empty when it is.
        since_s: monotonic time since when the error stands, or the file is in force.
        warnings: what is odd in what is in force.
    """

    path: str
    file_hash: str
    active_hash: str
    name: str
    error: str
    since_s: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutFiles:
    """What is in force.

    Attributes:
        specs: of every valid file, ascending by path.
        statuses: of every file, ascending by path.
        error: why the directory cannot be read; empty when it can.
        complete: whether every file there is in force in some version. While it is False a rollout that is
            not among `specs` may be one that cannot be read: it must not be taken for deleted.
    """

    specs: tuple[RolloutFile, ...] = ()
    statuses: tuple[FileStatus, ...] = ()
    error: str = ""
    complete: bool = False


@dataclass(slots=True)
class _Entry:
    """What is remembered of one path.

    Attributes:
        seen: what was found last, at `seen_s` for the first time.
        judged: what `parsed` and `complaint` are about; None before the first judgement.
        parsed: what was judged says, if it is valid.
        complaint: what is wrong with it otherwise.
        active: what is in force.
        error: why that is not what was judged.
        since_s: time of the last change of the two.
        gone_since_s: since when it is not listed.
    """

    seen: FileRead
    seen_s: float
    since_s: float
    judged: FileRead | None = None
    parsed: RolloutFile | None = None
    complaint: str = ""
    active: RolloutFile | None = None
    error: str = ""
    gone_since_s: float | None = None

    def judge(self, path: str, max_window_s: float) -> None:
        """Parse what was seen, unless that was judged before."""
        found, self.judged = self.seen, self.seen
        self.parsed, self.complaint = None, found.error
        if found.content is None:
            return
        try:
            self.parsed = parse_rollout(found.content, path, found.owner, max_window_s=max_window_s)
        except ConfigError as exc:
            self.complaint = str(exc)


class RolloutSet:
    """The files of one directory; `see` every look at it."""

    def __init__(
        self,
        *,
        settle_s: float = 0.3,
        fixed: Sequence[RolloutFile] = (),
        max_window_s: float = MAX_DURATION_S,
    ) -> None:
        """Start with nothing known.

        Args:
            settle_s: a file must have been at rest so long.
            fixed: rollouts and splits from elsewhere, which files may not contradict; not among the results.
            max_window_s: longest `keep_stable_warm` allowed.
        """
        self._settle_s = settle_s
        self._fixed = tuple(fixed)
        self._max_window_s = max_window_s
        self._entries: dict[str, _Entry] = {}
        self._identity: tuple[int, int] | None = None
        self.unsettled = False
        """Whether another look is due after `settle_s`, or `GONE_S`, whatever the directory does."""

    def see(self, listing: Listing, now_s: float, wall_s: float) -> RolloutFiles:
        """Take in one look and return what is in force.

        Args:
            listing: the look.
            now_s: monotonic time of it.
            wall_s: the same on the clock that file times are from.
        """
        self.unsettled = False
        error = listing.error or self._not_mounted(listing)
        if not error:
            self._identity = listing.identity
            for path, found in listing.files.items():
                self._note(path, found, now_s, wall_s)
            self._forget_deleted(listing.files, now_s)
            self._activate(now_s)
        return self._result(error)

    def _not_mounted(self, listing: Listing) -> str:
        if listing.files or not self._entries or listing.identity == self._identity:
            return ""
        return "the directory is another one than before and empty: is its volume mounted?"

    def _note(self, path: str, found: FileRead, now_s: float, wall_s: float) -> None:
        entry = self._entries.get(path)
        if entry is None:
            entry = self._entries[path] = _Entry(found, now_s, now_s)
            changed_s = max(found.stamp[3:], default=0) / _NS_PER_S
            at_rest = changed_s <= wall_s - self._settle_s
        else:
            if found != entry.seen:
                entry.seen, entry.seen_s = found, now_s
            at_rest = now_s - entry.seen_s >= self._settle_s
        entry.gone_since_s = None
        if not at_rest:
            self.unsettled = True
        elif entry.judged != entry.seen:
            entry.judge(path, self._max_window_s)

    def _forget_deleted(self, files: Mapping[str, FileRead], now_s: float) -> None:
        for path in self._entries.keys() - files.keys():
            entry = self._entries[path]
            if entry.gone_since_s is None:
                entry.gone_since_s = now_s
            if now_s - entry.gone_since_s >= GONE_S:
                del self._entries[path]
            else:
                self.unsettled = True

    def _activate(self, now_s: float) -> None:
        """Put in force what was judged valid, unless two files would then speak for one model."""
        wanted = {path: entry.parsed or entry.active for path, entry in self._entries.items()}
        refused: dict[str, str] = {}
        while clashes := dict(self._clashes(wanted)):
            refused |= clashes
            wanted |= {path: self._entries[path].active for path in clashes}
        for path, entry in self._entries.items():
            error = refused.get(path, entry.complaint)
            if (error, wanted[path]) != (entry.error, entry.active):
                entry.since_s = now_s
            entry.error, entry.active = error, wanted[path]

    def _clashes(self, wanted: Mapping[str, RolloutFile | None]) -> Iterator[tuple[str, str]]:
        """Yield files that would take over the model or the name of another; who had it before keeps it."""
        places: dict[tuple[str, str], list[str]] = {}
        for file in (*self._fixed, *filter(None, wanted.values())):
            for key in keys_of(file):
                places.setdefault(key, []).append(file.path)
        for path, candidate in wanted.items():
            active = self._entries[path].active
            if candidate is None or candidate is active:
                continue
            kept = set(keys_of(active)) if active else set()
            for what, name in keys_of(candidate):
                others = [place for place in places[what, name] if place != path]
                if others and (what, name) not in kept:
                    yield path, clash_text(path, what, name, others)

    def _result(self, error: str) -> RolloutFiles:
        entries = sorted(self._entries.items())
        return RolloutFiles(
            specs=tuple(entry.active for _, entry in entries if entry.active),
            statuses=tuple(_status(path, entry) for path, entry in entries),
            error=error,
            complete=not error and all(entry.active for _, entry in entries),
        )


def keys_of(file: RolloutFile) -> Iterator[tuple[str, str]]:
    """Yield what only one file may speak for."""
    yield "model", file.spec.model
    if isinstance(file.spec, RolloutSpec):
        yield "rollout", file.spec.name


def clash_text(path: str, what: str, name: str, others: Sequence[str]) -> str:
    """Return the complaint about a file that speaks for what `others` speak for."""
    listed = " and ".join(sorted(set(others)))
    return f"{path}:1: {what} '{name}' is spoken for by {listed} too; keep one of them"


def _status(path: str, entry: _Entry) -> FileStatus:
    active = entry.active
    return FileStatus(
        path=path,
        file_hash=entry.seen.hash,
        active_hash=active.hash if active else "",
        name=active.name if active else "",
        error=entry.error,
        since_s=entry.since_s,
        warnings=active.warnings if active else (),
    )
