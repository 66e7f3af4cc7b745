"""Lists and reads the files of a directory of models; nothing outside it is reached. Blocking."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.registry.files import FileSeen, Unfit, VersionFiles, check_inside, glance, shown
from gateway.registry.stored_versions import ALIASES, UPLOAD_MARKERS, StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ChangedMeanwhile(Exception):
    """A file is not, or no longer, the one that was listed."""


@dataclass(slots=True)
class Listed:
    """Files of one model.

    Attributes:
        objects: the files, by path relative to the model.
        unfit: label -> why that directory cannot be a version.
        moving: label -> why it cannot be looked at now.
    """

    objects: list[StoredObject] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)


class DirectoryFiles:
    """The files below one directory.

    Args:
        directory: may be a link, followed anew each time.
        max_files: a model with more fails.
    """

    def __init__(self, directory: Path, max_files: int) -> None:
        self._directory = directory
        self._max_files = max_files

    def model(self, name: str) -> Listed | None:
        """Return the files of one model, None when there is none of that name.

        Raises:
            OSError: the directory cannot be read, or is not there.
            Unfit: the model is a link that leads out, or has too many files.
        """
        root = self._directory.resolve(strict=True)
        model = root / name
        if not model.is_dir():
            # A parent that is gone or unreadable is no sign that the model is.
            next(root.iterdir(), None)
            return None
        check_inside(model, root)
        listed = Listed()
        for entry in sorted(model.iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                self._add(listed, root, entry)
            elif entry.is_file():
                listed.objects.append(_object(entry.name, glance(model, entry.name)))
        return listed

    def version(self, model: str, label: str) -> list[StoredObject]:
        """Return the files of one version, with paths relative to it; none when it is not there.

        Raises:
            OSError: they cannot be looked at.
            Unfit: a link leads out.
        """
        root = self._directory.resolve(strict=True)
        directory = root / model / label
        return list(_version(root, directory)) if directory.is_dir() else []

    def read(self, path: str, etag: str, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start`.

        Args:
            path: relative to the directory.
            etag: as the file was listed; empty for any.
            start: where to begin.
            size: how much.

        Raises:
            ChangedMeanwhile: the file is another one.
            OSError: it cannot be read.
            Unfit: it leads out.
        """
        root = self._directory.resolve(strict=True)
        file = root / path
        check_inside(file, root)
        with file.open("rb", buffering=0) as opened:
            opened.seek(start)
            content = opened.read(size)
            seen = os.fstat(opened.fileno())
        times = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
        if etag and _etag(("", *times)) != etag:
            raise ChangedMeanwhile("it is another file by now; the next look finds it")
        return content

    def _add(self, listed: Listed, root: Path, entry: Path) -> None:
        try:
            for seen in _version(root, entry):
                path = f"{entry.name}/{seen.path}"
                listed.objects.append(
                    StoredObject(path=path, size=seen.size, etag=seen.etag, modified_s=seen.modified_s)
                )
        except Unfit as error:
            listed.unfit[shown(entry.name)] = str(error)
        except OSError as error:
            if entry.name == ALIASES:
                raise
            listed.moving[shown(entry.name)] = f"its files cannot be looked at: {error.strerror}"
        if len(listed.objects) > self._max_files:
            raise Unfit(
                f"it holds more than {self._max_files} files: delete old versions, or raise the limit"
            )


def _version(root: Path, directory: Path) -> Iterator[StoredObject]:
    for seen in VersionFiles(root, directory).look():
        yield _object(seen[0], seen)
    for name in UPLOAD_MARKERS:
        if name.startswith(".") and (directory / name).exists():  # looks leave out such names
            yield StoredObject(path=name, size=0, etag="")


def _object(path: str, seen: FileSeen) -> StoredObject:
    return StoredObject(path=path, size=seen[1], etag=_etag(seen), modified_s=seen[2] / 1e9)


def _etag(seen: FileSeen) -> str:
    return "-".join(f"{number:x}" for number in seen[1:])
