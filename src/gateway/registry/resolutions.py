"""Keeps on disk what registries said last, so that a restart without them serves what was served. Blocking.

One small JSON file for each reference, replaced atomically, in a directory that gateways may share: where two
follow the same reference, the one that wrote last is right, as both keep what the registry said last. A file
that is damaged, too large or of another format is as good as none, and the log says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.core.registry import RegistryVersion
from gateway.registry.labels import number_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 4 << 20
"""Largest file that is written or read."""
MAX_VERSIONS: Final = 4096
"""Most versions of one reference that are kept, the highest."""
MAX_FILES: Final = 10_000
"""Beyond so many files the oldest are deleted."""
MAX_AGE_S: Final = 90 * 86_400.0
"""A file that was not written for so long is of a reference that nobody follows any more."""
_SUFFIX: Final = ".json"
_PART: Final = ".part"
_PART_AGE_S: Final = 3600.0
"""A half-written file this much older than the newest was left by a process that was killed."""
_NAMES: Final = itertools.count()

_Count = Annotated[int, Field(ge=1, lt=1 << 63)]
_Wall = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Version(_Stored):
    model: str
    label: str
    number: _Count
    revision: str
    location: str
    lineage: dict[str, Any] = Field(default_factory=dict)


class ReadyVersion(_Stored):
    """A version that was READY: what a rollback would want back."""

    label: str
    """The registry's id."""
    revision: str
    """What was behind the label."""
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The content digest."""
    ready_s: _Wall
    """When it was READY last, wall-clock seconds since the epoch."""
    location: str = ""
    """As `RegistryVersion.location`; empty in files of before it was kept."""


class _Document(_Stored):
    format: Literal[1]
    key: str
    versions: list[_Version] = Field(max_length=MAX_VERSIONS)
    aliases: dict[str, str] = Field(default_factory=dict)
    texts: dict[str, str] = Field(default_factory=dict)
    ok_s: _Wall
    ready: list[ReadyVersion] = Field(default_factory=list, max_length=MAX_VERSIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a reference led to.

    Attributes:
        versions: those served, ascending numbers.
        aliases: alias -> label, as the registry had them.
        texts: the files beside the versions that shaped the spec, by path.
        ok_s: when the registry last said so, wall-clock seconds since the epoch.
        ready: versions that were READY, those served now included.
    """

    versions: tuple[RegistryVersion, ...]
    aliases: dict[str, str]
    texts: dict[str, str]
    ok_s: float
    ready: tuple[ReadyVersion, ...] = ()


class ResolutionStore:
    """Resolutions in a directory of their own. Any thread; one at a time for each key.

    Args:
        directory: made when it is missing; only the gateway's user may write to it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, keys: Collection[str]) -> dict[str, Resolution]:
        """Return what is kept of these keys, and delete what belongs to nobody any more."""
        found = {key: self._read(key) for key in keys}
        self._prune({_filename(key) for key in keys})
        return {key: resolution for key, resolution in found.items() if resolution is not None}

    def save(self, key: str, resolution: Resolution) -> None:
        """Keep a resolution in place of the key's last one.

        Raises:
            OSError: it could not be written; the last one stays.
            ValueError: it holds text that JSON cannot; the last one stays.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._directory / _filename(key)
        part = target.with_suffix(f".{os.getpid()}.{next(_NAMES)}{_PART}")
        try:
            with part.open("wb") as file:
                file.write(_encoded(key, resolution))
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _read(self, key: str) -> Resolution | None:
        path = self._directory / _filename(key)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the last resolution of %s cannot be read: %s", key, error.strerror)
            return None
        document = _document(text)
        if document is None or document.key != key:
            _log.warning("the last resolution of %s is damaged or of another format: it is ignored", key)
            return None
        return Resolution(
            versions=tuple(sorted((_version(v) for v in document.versions), key=lambda v: v.number)),
            aliases=document.aliases,
            texts=document.texts,
            ok_s=document.ok_s,
            ready=tuple(document.ready),
        )

    def _prune(self, wanted: Collection[str]) -> None:
        """Delete files of references that nobody follows; a fault of the disk is no reason to fail."""
        with contextlib.suppress(OSError):
            seen = sorted(self._ages(), reverse=True)
            newest = seen[0][0] if seen else 0.0
            for index, (written_s, path) in enumerate(seen):
                age_s = newest - written_s
                most_s = MAX_AGE_S if path.suffix == _SUFFIX else _PART_AGE_S
                if path.name not in wanted and (age_s > most_s or index >= MAX_FILES):
                    path.unlink(missing_ok=True)

    def _ages(self) -> Iterator[tuple[float, Path]]:
        for path in self._directory.iterdir():
            if path.suffix in {_SUFFIX, _PART}:
                with contextlib.suppress(FileNotFoundError):
                    yield path.stat().st_mtime, path


def rollback_window(
    ready: Collection[ReadyVersion], wanted: Collection[tuple[str, str]], keep_previous: int
) -> tuple[ReadyVersion, ...]:
    """Return the history without what nobody would go back to, oldest first. Pure.

    Args:
        ready: versions that were READY, the later entry of equal ones counts.
        wanted: label and revision of each version wanted now; their entries all stay.
        keep_previous: how many others stay, those READY last.
    """
    latest = {(entry.label, entry.revision): entry for entry in sorted(ready, key=lambda e: e.ready_s)}
    ordered = sorted(latest.values(), key=lambda e: e.ready_s)
    previous = [e for e in ordered if (e.label, e.revision) not in wanted]
    gone = previous[: max(0, len(previous) - keep_previous)]
    return tuple(entry for entry in ordered if entry not in gone)


def served_last(
    ready: Collection[ReadyVersion], wanted: Collection[RegistryVersion]
) -> tuple[RegistryVersion, ...]:
    """Return the version to serve until one of those wanted does, none of which ever was READY. Pure.

    It is the one that was READY last. There is none where a wanted one was READY before, where nothing is
    wanted, and where it has the number of a wanted one, as of a number only one can be wanted.

    Args:
        ready: versions that were READY.
        wanted: of the same model.
    """
    known = {(v.label, v.revision) for v in wanted}
    if not wanted or not ready or any((e.label, e.revision) in known for e in ready):
        return ()
    last = max(ready, key=lambda e: e.ready_s)
    number = number_of(last.label)
    if number is None or not last.location or number in {v.number for v in wanted}:
        return ()
    model = next(iter(wanted)).model
    return (
        RegistryVersion(
            model=model, label=last.label, number=number, revision=last.revision, location=last.location
        ),
    )


def _filename(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() + _SUFFIX


def _document(text: bytes) -> _Document | None:
    if len(text) > MAX_FILE_BYTES:
        return None
    try:
        return _Document.model_validate_json(text)
    except (ValidationError, ValueError, RecursionError):
        return None


def _encoded(key: str, resolution: Resolution) -> bytes:
    """Return the file's content: without lineage when that makes it too large, and then fewer versions."""
    versions = resolution.versions[-MAX_VERSIONS:]
    for count, lineage in ((MAX_VERSIONS, True), (MAX_VERSIONS, False), (16, False)):
        document = _Document(
            format=FORMAT,
            key=key,
            versions=[_stored(v, lineage=lineage) for v in versions[-count:]],
            aliases=resolution.aliases if lineage else {},
            texts=resolution.texts,
            ok_s=resolution.ok_s,
            ready=list(resolution.ready[-MAX_VERSIONS:]),
        )
        text = json.dumps(document.model_dump(), indent=1, ensure_ascii=False).encode()
        if len(text) <= MAX_FILE_BYTES:
            return text
    raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES} bytes")


def _stored(version: RegistryVersion, *, lineage: bool) -> _Version:
    return _Version(
        model=version.model,
        label=version.label,
        number=version.number,
        revision=version.revision,
        location=version.location,
        lineage=dict(version.lineage) if lineage else {},
    )


def _version(stored: _Version) -> RegistryVersion:
    return RegistryVersion(**stored.model_dump())
