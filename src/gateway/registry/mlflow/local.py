"""The files of a version in a directory of this machine, for an MLflow without a server; no links."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from gateway.core.registry import RegistryError, RegistryFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from gateway.registry.mlflow.threads import BlockingCalls

_PIECE_BYTES: Final = 256 << 10
_MAX_FILES: Final = 10_000


class LocalArtifacts:
    """An ArtifactSource over a directory.

    Args:
        directory: the version's.
        calls: threads to read in.
    """

    def __init__(self, directory: Path, calls: BlockingCalls) -> None:
        self._directory = directory
        self._calls = calls

    async def files(self) -> Sequence[RegistryFile]:
        """List them; as `ModelRegistry.files`."""
        return await self._calls.run(self._list)

    async def read(self, file: RegistryFile, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Give bytes of a file; as `ModelRegistry.read`."""
        opened = await self._calls.run(partial(self._open, file, start))
        with opened:
            left = (file.size or 0 if end is None else end) - start
            while left > 0:
                piece = await self._calls.run(partial(opened.read, min(left, _PIECE_BYTES)))
                if not piece:
                    raise _failed(f"{file.path} is shorter than when it was listed")
                left -= len(piece)
                yield piece

    # In a thread.

    def _list(self) -> list[RegistryFile]:
        found: list[RegistryFile] = []
        for folder, _, names in os.walk(self._directory):
            for path in (Path(folder) / name for name in names):
                seen = path.lstat()
                name = path.relative_to(self._directory).as_posix()
                if not stat.S_ISREG(seen.st_mode):
                    raise _failed(f"{name!a} is not a plain file", may_pass=False)
                found.append(RegistryFile(path=name, size=seen.st_size, etag=_etag(seen)))
            if len(found) > _MAX_FILES:
                raise _failed(f"it has more than {_MAX_FILES} files", may_pass=False)
        if not found:
            raise _failed("the directory that MLflow names has no files of it")
        return found

    def _open(self, file: RegistryFile, start: int) -> IO[bytes]:
        try:
            opened = os.fdopen(os.open(self._directory / file.path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
        except OSError as exc:
            raise _failed(f"{file.path} cannot be read: {exc.strerror}") from exc
        if _etag(os.fstat(opened.fileno())) != file.etag:
            opened.close()
            raise _failed(f"{file.path} has changed since it was listed")
        opened.seek(start)
        return opened


def _etag(seen: os.stat_result) -> str:
    return f"{seen.st_size}-{seen.st_mtime_ns}-{seen.st_ino}"


def _failed(message: str, *, may_pass: bool = True) -> RegistryError:
    return RegistryError("fetch", message, may_pass=may_pass)
