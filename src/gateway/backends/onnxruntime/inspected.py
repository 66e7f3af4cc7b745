"""Remembers inspections of files that have not changed since, so that a model loaded again starts sooner."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.inspector import inspect_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TypeAlias

    from gateway.backends.onnxruntime.graph import GraphReport
    from gateway.backends.onnxruntime.inspector import InspectionLimits
    from gateway.core.types import Artifact

    Fingerprint: TypeAlias = tuple[tuple[str, int, int, int, int, int], ...]

REMEMBERED: Final = 4096
"""Reports kept; some kilobytes each."""
_MOST_FILES: Final = 256


class Inspections:
    """Inspects files, each state of them once. Event loop only.

    A report is used again only for the same content digest, under the same limits, while every file in the
    version's directory is the same one: inode, size, and the times of its last change and last renaming, the
    second of which nobody but the kernel can set. Refusals are not remembered.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, InspectionLimits], tuple[Fingerprint, GraphReport]] = (
            OrderedDict()
        )

    async def inspect(self, artifact: Artifact, limits: InspectionLimits) -> GraphReport:
        """Return what is known of the files, or inspect them; as `inspect_file`."""
        key = (artifact.digest, str(artifact.model_file), limits)
        before = await asyncio.to_thread(fingerprint, artifact.directory)
        known = self._known.get(key)
        if known is not None and before is not None and known[0] == before:
            self._known.move_to_end(key)
            return known[1]
        report = await inspect_file(artifact, limits)
        # What changed meanwhile was perhaps not what was inspected.
        if before is not None and await asyncio.to_thread(fingerprint, artifact.directory) == before:
            self._known[key] = (before, report)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return report


def fingerprint(directory: Path) -> Fingerprint | None:
    """Return what tells the files below a directory from others; None if that cannot be told; blocking."""
    found: list[tuple[str, int, int, int, int, int]] = []
    try:
        for entry in _entries(str(directory)):
            stat = entry.stat(follow_symlinks=False)
            if entry.is_symlink() or len(found) == _MOST_FILES:
                return None  # what a link leads to may change unseen
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            found.append((entry.path, stat.st_mode, stat.st_ino, stat.st_size, *times))
    except OSError:
        return None
    return tuple(sorted(found))


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
