"""Which profile a model version is compared with: files that are watched, and what was learned."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.monitor.profile.artifact import FILE_NAME, ProfileError, read, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.profile.reference import Profile

_log = logging.getLogger(__name__)

MAX_KEPT: Final = 256
"""Profiles in memory; the one that was asked for longest ago makes room, and is read again when asked for."""

MAX_LOOKED_FOR: Final = 10_000
"""(model, version) pairs remembered, those without a profile among them."""

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+\-]{0,199}")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells that a file was replaced."""

    path: Path
    modified_ns: int
    size: int
    inode: int


class ProfileCatalog:
    """Finds `DIRECTORY/MODEL/VERSION/profile.json`, else `DIRECTORY/MODEL/profile.json`.

    Used on one thread. A file is read when it is first asked for, and again by `refresh` when it was
    replaced; one that cannot be used is logged once, and what was known before stays in force.

    Attributes:
        generation: grows with every change that `find` may answer differently after.
        faults: file -> why it cannot be used.
    """

    def __init__(self, directories: Sequence[Path] = (), learned: Path | None = None) -> None:
        """Search no file yet.

        Args:
            directories: searched in order.
            learned: where `put` keeps profiles; searched last. None: in memory alone.
        """
        self.generation = 0
        self.faults: dict[str, str] = {}
        self._directories = (*directories, *((learned,) if learned else ()))
        self._learned = learned
        self._put: OrderedDict[tuple[str, int], Profile] = OrderedDict()
        self._stamps: OrderedDict[tuple[str, int], _Stamp | None] = OrderedDict()
        self._read: OrderedDict[_Stamp, Profile | None] = OrderedDict()

    def find(self, model: str, version: int, digest: str = "") -> Profile | None:  # noqa: ARG002 - for the caller
        """Return the profile of a version; None while it has none.

        Cheap after the first time: one look into a dictionary.

        Args:
            model: public model name.
            version: protocol version number.
            digest: content digest of the version: not needed to find a file beside it.
        """
        key = (model, version)
        if key not in self._stamps:
            self._stamps[key] = self._stamp(model, version)
            while len(self._stamps) > MAX_LOOKED_FOR:
                self._stamps.popitem(last=False)
        stamp = self._stamps[key]
        profile = self._load(stamp) if stamp else None
        return profile or self._put.get(key)

    def put(self, profile: Profile) -> None:
        """Take a learned profile in force for its model and version; a file's own comes before it.

        It is written beside the other learned ones too; where that fails it is logged and kept in memory.
        """
        key = (profile.model, profile.version)
        self._put[key] = profile
        while len(self._put) > MAX_KEPT:
            self._put.popitem(last=False)
        if self._learned is not None and _SAFE.fullmatch(profile.model):
            try:
                write(profile, self._learned / profile.model / str(profile.version) / FILE_NAME)
            except ProfileError as error:
                _log.warning("a learned profile is kept in memory only: %s", error)
        self._stamps.pop(key, None)
        self.generation += 1

    def refresh(self) -> list[tuple[str, int]]:
        """Look for files that came, went or were replaced; return the (model, version) concerned.

        A few `stat` calls per version that was asked for: call it every few seconds.
        """
        changed = []
        for key, before in list(self._stamps.items()):
            now = self._stamp(*key)
            if now == before or (now is not None and before is not None and self._load(now) is None):
                continue
            self._stamps[key] = now
            changed.append(key)
        self.generation += bool(changed)
        return changed

    def _stamp(self, model: str, version: int) -> _Stamp | None:
        if not _SAFE.fullmatch(model):
            return None
        for place in (Path(model, str(version)), Path(model)):
            for directory in self._directories:
                path = directory / place / FILE_NAME
                try:
                    found = path.stat()
                except OSError:
                    continue
                return _Stamp(path, found.st_mtime_ns, found.st_size, found.st_ino)
        return None

    def _load(self, stamp: _Stamp) -> Profile | None:
        if stamp not in self._read:
            try:
                self._read[stamp] = read(stamp.path)
                self.faults.pop(str(stamp.path), None)
            except ProfileError as error:
                _log.warning("a profile cannot be used: %s", error)
                self.faults[str(stamp.path)] = str(error)
                self._read[stamp] = None
        self._read.move_to_end(stamp)
        while len(self._read) > MAX_KEPT:
            self._read.popitem(last=False)
        return self._read[stamp]
