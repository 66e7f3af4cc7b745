"""Documents in one append-only file. Blocking, for one thread at a time.

The first line says what the file is. Each other line is a write: 16 hex digits of the SHA-256 of the rest, a
space, and a JSON object of `key`, `revision` and `value`; the value is null when the document was deleted,
and the line is kept so that its revisions are never used again. JSON is Python's: keys sorted, integers of
any size, and NaN and the infinities under those names. The last line of a key is what it is.

When the file has grown to several times what it would be with one line per key, it is written anew beside
the old one and takes its name, in one step.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.state import RevisionConflict, StateUnavailable
from gateway.state.append_file import MAX_APPEND_BYTES, AppendFile, is_unwritten
from gateway.state.disk import write_all
from gateway.state.errors import StateDamaged, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.state.disk import Disk

_log = logging.getLogger(__name__)

FILE: Final = "documents.journal"
_NEW_FILE: Final = ".new-documents.journal"
_HEADER: Final = b"model-gateway documents, format 1\n"
_CHECKSUM_DIGITS: Final = 16


class Entry(NamedTuple):
    """What a key is: its revision, and its value as JSON; None when it was deleted."""

    revision: int
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """Bounds of a journal.

    Attributes:
        max_bytes: of all documents together; a write beyond is refused.
        compact_bytes: the file is written anew when it is longer than this and than twice what it would be.
    """

    max_bytes: int = 64 << 20
    compact_bytes: int = 4 << 20


class Journal:
    """The documents of a directory. `entries` is what is on the disk, as far as it is known."""

    def __init__(self, directory: Path, options: JournalOptions, disk: Disk) -> None:
        self.entries: dict[str, Entry] = {}
        self._directory = directory
        self._path = directory / FILE
        self._options = options
        self._disk = disk
        self._file: AppendFile | None = None
        self._name_in_doubt = False
        self._sizes: dict[str, int] = {}
        self._live_bytes = len(_HEADER)
        self._compact_at = options.compact_bytes

    def open(self) -> None:
        """Read what is there; an incomplete last line is dropped, with a warning.

        A directory that can be read and not written is no error here: writes will be refused.

        Raises:
            StateDamaged: something else than the last line is wrong, or the file is none of ours.
            StateUnavailable: it cannot be read, or not be made.
        """
        try:
            self._disk.make_directory(self._directory)
            content = self._content()
            if content is None:
                self._rewrite()
                return
        except OSError as error:
            raise unavailable("the documents cannot be read", error) from error
        self._file = AppendFile(self._disk, self._path, self._loaded(content))
        try:
            self._mend()
        except OSError as error:
            _log.warning("%s", unavailable("documents can be read, and not be written", error))

    def close(self) -> None:
        """Close the file; harmless twice."""
        if self._file is not None:
            self._file.close()

    def put(self, key: str, text: str | None, revision: int) -> Entry:
        """Write a document's value, as `encode` gives it, or None to delete it; durable on return.

        Raises:
            RevisionConflict, StateUnavailable: as `StateStore.write`.
        """
        before = self.entries.get(key)
        current = before.revision if before is not None and before.text is not None else 0
        if revision != current:
            raise RevisionConflict(f"document '{key}' has revision {current}, not {revision}")
        entry = Entry((before.revision if before is not None else 0) + 1, text)
        line = _line(key, entry)
        self._check_room(key, line)
        self._append(key, line)
        self._set(key, entry, len(line))
        self._compact()
        return entry

    def _check_room(self, key: str, line: bytes) -> None:
        if len(line) > MAX_APPEND_BYTES:
            raise StateUnavailable(
                f"document '{key}' cannot be written: it has {len(line)} bytes, more than "
                f"{MAX_APPEND_BYTES}; nothing was changed"
            )
        total = self._live_bytes + len(line) - self._sizes.get(key, 0)
        if total > self._options.max_bytes:
            raise StateUnavailable(
                f"document '{key}' cannot be written: all documents would have {total} bytes, more than "
                f"{self._options.max_bytes}; nothing was changed"
            )

    def _append(self, key: str, line: bytes) -> None:
        what = f"document '{key}' cannot be written"
        try:
            self._mend()
        except OSError as error:
            raise unavailable(what, error) from error
        assert self._file is not None
        try:
            self._file.append(line)
        except OSError as error:
            raise unavailable(what, error, undone=self._file.sound) from error

    def _set(self, key: str, entry: Entry, size: int) -> None:
        self._live_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self.entries[key] = entry

    def _mend(self) -> None:
        """Make the file what it should be, if a failure has left that open."""
        if self._name_in_doubt or self._file is None:
            self._rewrite()
        elif not self._file.sound:
            self._file.mend()

    # Reading.

    def _content(self) -> bytes | None:
        names = self._disk.names(self._directory)
        if _NEW_FILE in names:
            with suppress(OSError):
                self._disk.remove(self._directory / _NEW_FILE)
        return self._disk.read(self._path) if FILE in names else None

    def _loaded(self, content: bytes) -> bytes:
        """Take over the entries of a file's content; return the part of it that is sound."""
        if not content.startswith(_HEADER):
            raise self._damaged(0, "it does not begin as documents of this gateway do")
        sound = bytearray(_HEADER)
        for offset, line, is_last in _lines(content, len(_HEADER)):
            read = _read(line) or _read(line[:-1])
            if read is None and is_last and (line[-1:] != b"\n" or is_unwritten(line, offset)):
                _log.warning("an incomplete write of %d bytes at the end of the documents dropped", len(line))
                break
            if read is None:
                raise self._damaged(offset, "the line's checksum is wrong")
            key, entry = read
            if entry.revision <= self.entries.get(key, Entry(0, None)).revision:
                raise self._damaged(offset, f"document '{key}' goes back to revision {entry.revision}")
            whole = line if line.endswith(b"\n") else line[: line.rindex(b"}") + 1] + b"\n"
            self._set(key, entry, len(whole))
            sound += whole
        return bytes(sound)

    def _damaged(self, offset: int, what: str) -> StateDamaged:
        return StateDamaged(
            f"{self._path} is damaged at byte {offset}: {what}; nothing was changed. Put back a copy of the "
            "file, or move it away: then every rollout begins anew, with its stable version serving"
        )

    # Writing anew.

    def _compact(self) -> None:
        """Write the file anew when it is due; what was appended is on the disk whatever comes of this."""
        assert self._file is not None
        if self._file.size <= max(self._compact_at, 2 * self._live_bytes):
            return
        try:
            self._rewrite()
        except OSError as error:
            self._compact_at = 2 * self._file.size
            _log.warning("%s", unavailable("the documents cannot be written anew, shorter", error))
        else:
            self._compact_at = self._options.compact_bytes

    def _rewrite(self) -> None:
        content = _HEADER + b"".join(_line(key, self.entries[key]) for key in sorted(self.entries))
        new = self._directory / _NEW_FILE
        try:
            self._write_file(new, content)
        except OSError:
            with suppress(OSError):
                self._disk.remove(new)
            raise
        self._name_in_doubt = True
        self._disk.rename(new, self._path)
        self._disk.sync_directory(self._directory)
        if self._file is not None:
            self._file.close()
        self._file = AppendFile(self._disk, self._path, content)
        self._file.mend()
        self._name_in_doubt = False

    def _write_file(self, path: Path, content: bytes) -> None:
        descriptor = self._disk.open(path, create=True)
        try:
            self._disk.truncate(descriptor, 0)
            write_all(self._disk, descriptor, content, 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)


def encode(value: Mapping[str, Any]) -> str:
    """Return a value as JSON; equal values give equal text.

    Raises:
        TypeError: something in it is not of JSON types.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a document cannot hold a {type(value).__name__}")


def _line(key: str, entry: Entry) -> bytes:
    body = f'{{"key":{json.dumps(key)},"revision":{entry.revision},"value":{entry.text or "null"}}}'.encode()
    return b"%s %s\n" % (_checksum(body), body)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_CHECKSUM_DIGITS].encode()


def _read(line: bytes) -> tuple[str, Entry] | None:
    """Return what a line says, with or without its end; None when its checksum is wrong."""
    checksum, body = line[:_CHECKSUM_DIGITS], line[_CHECKSUM_DIGITS + 1 :].removesuffix(b"\n")
    if _checksum(body) != checksum or line[_CHECKSUM_DIGITS : _CHECKSUM_DIGITS + 1] != b" ":
        return None
    try:
        said = json.loads(body)
        value = said["value"]
        return said["key"], Entry(said["revision"], None if value is None else encode(value))
    except (ValueError, TypeError, KeyError):
        return None


def _lines(content: bytes, start: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield offset, line with its end, and whether it is the last."""
    while start < len(content):
        end = content.find(b"\n", start) + 1 or len(content)
        yield start, content[start:end], end == len(content)
        start = end
