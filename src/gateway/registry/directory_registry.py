"""Models in a directory, laid out as in an object store."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.core.registry import NotInRegistry, RegistryError
from gateway.registry.directory_files import ChangedMeanwhile, DirectoryFiles
from gateway.registry.files import Unfit
from gateway.registry.look import ModelLooks, Vanished
from gateway.registry.stored_versions import arrange, check_model_name, printable, version_files

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from gateway.core.registry import RegisteredModel, RegistryFile, RegistryVersion
    from gateway.registry.model_specs import ModelFile
    from gateway.registry.stored_versions import StoredModel, StoredObject

Result = TypeVar("Result")

PIECE_BYTES: Final = 1 << 20
_THREADS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """Settings of a DirectoryRegistry.

    Attributes:
        completion_marker: the name of a file that a version must have to be whole; empty for none.
        settle_s: of a model with files changed within this many seconds two looks are taken, so far apart; a
            version that differs is still being written. Longer than the pauses of whatever writes the files.
        read_timeout_s: for a look at a model, and for each MiB of a file: a network file system can hang.
        max_files: a model with more files fails.
        pause: waits between the two looks.
        wall_s: seconds since the epoch, as file times have them.
    """

    completion_marker: str = ""
    settle_s: float = 0.5
    read_timeout_s: float = 30.0
    max_files: int = 20_000
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    wall_s: Callable[[], float] = time.time


_DEFAULTS: Final = DirectoryOptions()


class DirectoryRegistry:
    """A ModelRegistry in a directory.

    Layout as `ObjectStoreRegistry`. Writers may switch links, rename into place or write in place: a version
    is offered once its files have stopped changing, and while one that was offered is written again it is
    offered as it was. Links may not lead out of the directory. Files are touched by threads of its own
    alone, so that a file system that hangs holds up nothing else.

    Args:
        name: as configured.
        directory: holds the models; it may itself be a link, and need not exist yet.
        options: settings.
    """

    def __init__(self, name: str, directory: Path, options: DirectoryOptions = _DEFAULTS) -> None:
        self.name = name
        self.identity = f"file://{directory.absolute()}"
        self._directory = directory
        self._options = options
        self._files = DirectoryFiles(directory, options.max_files)
        self._looks = ModelLooks(self._small, lambda model, label: f"{self.identity}/{model}/{label}")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"registry-{name}")

    def __repr__(self) -> str:
        """Return name and directory."""
        return f"DirectoryRegistry({self.name!r}, {str(self._directory)!r})"

    async def model(self, name: str) -> RegisteredModel:
        """As `ModelRegistry.model`."""
        check_model_name(name)
        subject = f"model '{printable(name)}'"
        first = await self._in_thread("resolve", subject, lambda: self._look(name))
        if first is None:
            self._looks.forget(name)
            raise NotInRegistry(f"there is no model '{printable(name)}' in {self._place}")
        stored, newest_s = first
        if newest_s >= self._options.wall_s() - self._options.settle_s:
            await self._options.pause(self._options.settle_s)
            second = await self._in_thread("resolve", subject, lambda: self._look(name))
            stored = _settled(stored, second[0]) if second is not None else stored
        return await self._looks.model(name, stored)

    async def model_file(self, model: str, path: str, known: ModelFile | None) -> ModelFile | None:
        """As `ModelFileReader.model_file`, as of the last look at the model."""
        if not self._looks.knows(model):
            await self.model(model)
        return await self._looks.beside(model, path, known)

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        """As `ModelRegistry.files`; also fails when they are not those of the version's revision."""
        subject = f"version '{printable(version.label)}' of model '{printable(version.model)}'"
        objects = await self._in_thread(
            "fetch", subject, lambda: self._files.version(version.model, version.label)
        )
        return await asyncio.to_thread(
            version_files, version, objects, self._options.completion_marker, self._place
        )

    async def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncGenerator[bytes, None]:
        """As `ModelRegistry.read`, in pieces of 1 MiB."""
        path = f"{version.location}/{file.path}"
        subject = f"'{printable(path)}'"
        stop = file.size if end is None else end if file.size is None else min(end, file.size)
        while stop is None or start < stop:
            size = PIECE_BYTES if stop is None else min(PIECE_BYTES, stop - start)
            at = start
            piece = await self._in_thread(
                "fetch",
                subject,
                lambda: self._files.read(path, file.etag, at, size),  # noqa: B023  # awaited at once
            )
            if not piece:
                break
            yield piece
            start += len(piece)
        if stop is not None and start < stop:
            raise RegistryError("fetch", f"{subject} ended {stop - start} bytes early", may_pass=True)

    async def aclose(self) -> None:
        """Let the threads go; one that a file system holds up is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _place(self) -> str:
        # Not its path: messages reach clients.
        return f"the directory of registry '{self.name}'"

    def _look(self, name: str) -> tuple[StoredModel, float] | None:
        """Return what there is, and when the newest file was written; None without the model."""
        listed = self._files.model(name)
        if listed is None:
            return None
        stored = arrange(listed.objects, self._options.completion_marker)
        for label, why in listed.unfit.items():
            stored.versions.pop(label, None)
            stored.unusable[label] = why
        stored.moving.update(listed.moving)
        return stored, max((seen.modified_s for seen in listed.objects), default=0.0)

    async def _small(self, model: str, seen: StoredObject, limit: int) -> bytes:
        path = f"{model}/{seen.path}"
        return await self._in_thread(
            "resolve", f"'{printable(path)}'", lambda: self._files.read(path, "", 0, limit), small=True
        )

    async def _in_thread(
        self, step: str, subject: str, work: Callable[[], Result], *, small: bool = False
    ) -> Result:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._options.read_timeout_s):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError:
            why = f"the file system gave nothing for {self._options.read_timeout_s:g} s"
        except FileNotFoundError as error:
            if small:
                raise Vanished from error
            why = "it is not there"
        except (Unfit, ChangedMeanwhile) as error:
            why = str(error)
        except (OSError, ValueError) as error:
            why = error.strerror or type(error).__name__ if isinstance(error, OSError) else "its name"
        raise RegistryError(step, f"{subject} in {self._place} cannot be read: {why}", may_pass=True)


def _settled(first: StoredModel, second: StoredModel) -> StoredModel:
    """Return the second look, in which a version that differs from the first one is still being written."""
    for label, version in list(second.versions.items()):
        before = first.versions.get(label)
        if before is None or before.revision != version.revision:
            second.moving[label] = "its files are still being written"
            del second.versions[label]
    return second
