"""Remembers inspections by the content they were made of, so that a model loaded again starts sooner."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.backends.onnxruntime.inspector import inspect_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from gateway.backends.onnxruntime.graph import GraphReport
    from gateway.backends.onnxruntime.inspector import InspectionLimits
    from gateway.core.types import Artifact

    Inspect: TypeAlias = Callable[[Artifact, InspectionLimits], Awaitable[GraphReport]]

REMEMBERED: Final = 4096
"""Reports kept; some kilobytes each."""
LARGEST_BYTES: Final = 64 << 20
"""Model files up to this size are read again to be recognised: 4 ms for 5 MB, where an inspection takes 260
to start. Larger ones are inspected every time, which is little beside their load."""
_MOST_FILES: Final = 256


class Inspected(NamedTuple):
    """All that an inspection's outcome hangs on, beside its limits.

    Attributes:
        model_file: path in the version's directory.
        sha256: of that file's content.
        layout: of everything in the directory: path, kind, and size of a file. Of weights kept in other
            files nothing else is looked at.
    """

    model_file: str
    sha256: str
    layout: tuple[tuple[str, int, int], ...]


class Inspections:
    """Inspects files, each content once. Event loop only.

    Nothing is taken on trust: neither the digest that a version is said to have, nor the times or the inode
    of a file. The model file is read and hashed at every load, and a report is used again only where the
    inspection hashed the same bytes itself, found the same files beside them, and had the same limits.
    Refusals are not remembered, and of directories with links nothing is.

    Args:
        inspect: inspects; its report says which bytes it saw.
    """

    def __init__(self, inspect: Inspect = inspect_file) -> None:
        self._inspect = inspect
        self._known: OrderedDict[tuple[Inspected, InspectionLimits], GraphReport] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many reports are kept."""
        return len(self._known)

    async def inspect(self, artifact: Artifact, limits: InspectionLimits) -> GraphReport:
        """Return what is known of the files, or inspect them; raises and warns as `inspect_file`."""
        seen = await asyncio.to_thread(look, artifact)
        if seen is None:
            return await self._inspect(artifact, limits)
        known = self._known.get((seen, limits))
        if known is not None:
            self._known.move_to_end((seen, limits))
            return known
        report = await self._inspect(artifact, limits)
        # What was inspected is perhaps not what was looked at.
        if report.sha256 == seen.sha256 and await asyncio.to_thread(look, artifact) == seen:
            self._known[seen, limits] = report
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return report


def look(artifact: Artifact) -> Inspected | None:
    """Return what a version's files are; None if that cannot be told, or takes too long; blocking."""
    directory = artifact.directory
    try:
        layout = tuple(sorted(_layout(directory)))
        model_file = str(artifact.model_file.relative_to(directory))
        if len(layout) > _MOST_FILES or any(stat.S_ISLNK(kind) for _, kind, _ in layout):
            return None
        sizes = {path: size for path, kind, size in layout if stat.S_ISREG(kind)}
        if sizes.get(model_file, LARGEST_BYTES + 1) > LARGEST_BYTES:
            return None
        with artifact.model_file.open("rb") as file:
            return Inspected(model_file, hashlib.file_digest(file, "sha256").hexdigest(), layout)
    except (OSError, ValueError):
        return None


def _layout(directory: Path) -> Iterator[tuple[str, int, int]]:
    """Give what lies below a directory, in any order, and one more than may be remembered at most."""
    waiting, left = [str(directory)], _MOST_FILES + 1
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                path = os.path.relpath(entry.path, directory)
                yield path, kind, status.st_size if stat.S_ISREG(kind) else 0
                left -= 1
                if not left:
                    return
                if stat.S_ISDIR(kind):
                    waiting.append(entry.path)
