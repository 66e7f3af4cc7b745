"""Files that clients send with a load: private directories, owned until nothing needs them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping


class SentFiles:
    """The private directories there are; one for each load with files that was not deleted yet."""

    def __init__(self) -> None:
        self._directories: set[Path] = set()

    async def write(self, model: str, files: Mapping[str, bytes]) -> Path:
        """Write `files` below a new private directory, as the model's own; return the directory.

        Raises:
            ModelLoadError: the model's name or a path is not plain and relative, or writing failed.
        """
        paths = {_plain(model, name): content for name, content in files.items()}
        root = _new_directory()
        self._directories.add(root)
        try:
            await asyncio.to_thread(_write, root, paths)
        except BaseException as error:
            await self.delete(root)
            if isinstance(error, OSError):
                raise ModelLoadError(
                    f"failed to load '{model}', the files sent could not be written"
                ) from error
            raise
        return root

    async def delete(self, directory: Path) -> None:
        """Delete one directory, in a thread. Cancelling the call does not stop it."""
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self._directories.discard(directory)

    async def aclose(self) -> None:
        """Delete every directory that is left."""
        for directory in tuple(self._directories):
            await self.delete(directory)


def _new_directory() -> Path:
    # On the loop: it is one system call, and a cancellation between it and its owner's note would leak it.
    return Path(tempfile.mkdtemp(prefix="gateway-model-")).resolve()


def _write(root: Path, paths: Mapping[PurePosixPath, bytes]) -> None:
    for path, content in paths.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _plain(model: str, name: str) -> PurePosixPath:
    path = PurePosixPath(model, name.removeprefix("file:"))
    unsafe = "\0" in name or "\\" in name or ".." in path.parts or "/" in model
    if unsafe or path.is_absolute() or len(path.parts) < 2 or model in {"", "."}:
        raise ModelLoadError(
            f"failed to load '{model}', file path '{name[:128]}' must be relative to the model and plain"
        )
    return path
