"""Repository control: what is loaded at start, on a client's wish, or because the repository changed."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol, Self

from gateway.core.errors import ConfigError, ModelLoadError, NotFound, Unavailable
from gateway.core.types import VersionState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from types import TracebackType

    from gateway.core.interfaces import WantedVersion
    from gateway.models.manager import ModelManager

_log = logging.getLogger(__name__)

EVERY_MODEL: Final = "*"
_CLAIM: Final = "operator"


class RepositoryMode(enum.Enum):
    """Who decides what is loaded."""

    NONE = "none"
    """Everything at start, nothing later."""
    EXPLICIT = "explicit"
    """The models named for the start, then clients."""
    POLL = "poll"
    """Everything, following the repository."""


class Repository(Protocol):
    """A ModelSource that can also be asked for one model at a time."""

    name: str

    async def snapshot(self) -> Sequence[WantedVersion]:
        """As `ModelSource.snapshot`."""

    def watch(self) -> AsyncGenerator[Sequence[WantedVersion], None]:
        """As `ModelSource.watch`."""

    async def models(self) -> Sequence[str]:
        """Return the names of the models there are, loadable or not."""

    async def versions(self, model: str, config: str = "") -> Sequence[WantedVersion]:
        """Return what would be served of one model, with the JSON `config` in place of its own if given.

        Raises:
            NotFound: no such model.
            ModelLoadError: `config` is wrong, or no version can be offered; the message says why.
        """


@dataclass(frozen=True, slots=True)
class _Order:
    """One model loaded on a client's wish, and the private directory its files are in, if any."""

    versions: tuple[WantedVersion, ...]
    files: Path | None


class RepositoryController:
    """A RepositoryControl. Owns the task that follows the repository and the files that clients sent.

    Args:
        manager: loads and unloads; must be entered before and left after.
        repositories: looked through in order for a model's name.
        mode: who decides what is loaded.
        load_at_start: in mode explicit, what to load at start; `*` is everything.
        private: opens a directory in Triton's layout as a repository; for files that clients send.
    """

    def __init__(
        self,
        manager: ModelManager,
        repositories: Sequence[Repository],
        mode: RepositoryMode,
        *,
        private: Callable[[Path], Repository],
        load_at_start: Sequence[str] = (),
    ) -> None:
        self._manager = manager
        self._repositories = tuple(repositories)
        self._mode = mode
        self._load_at_start = tuple(load_at_start)
        self._private = private
        self._orders: dict[str, _Order] = {}
        self._turn = asyncio.Lock()
        self._watches: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Claim what is served from the start; `ModelManager.wait_settled` tells when it is loaded.

        Raises:
            ConfigError: a repository could not be read, or lacks a model named for the start.
        """
        if self._mode is RepositoryMode.EXPLICIT:
            await self._load_first()
        else:
            for repository in self._repositories:
                self._manager.apply(repository.name, await repository.snapshot())
        await self._announce()
        self._group = await asyncio.TaskGroup().__aenter__()
        if self._mode is RepositoryMode.POLL:
            self._watches = [self._group.create_task(self._follow(r)) for r in self._repositories]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following, and delete the files that clients sent. What is loaded stays loaded."""
        for task in self._watches:
            task.cancel()
        if self._group is not None:
            await self._group.__aexit__(None, None, None)
        for order in self._orders.values():
            await _delete(order.files)

    async def load(self, model: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model; as `RepositoryControl.load`.

        Cancelling the call does not call off the load.
        """
        self._check_allowed()
        if files and not config:
            raise ModelLoadError(f"failed to load '{model}', override files need the parameter 'config'")
        async with self._turn:
            order = await self._order(model, config, files or {})
            replaced = self._orders.get(model)
            self._orders[model] = order
            self._manager.apply(_CLAIM, self._wanted(), retry=model)
            await self._announce()
        try:
            await self._loaded(model, order)
        finally:
            if replaced is not None and replaced.files != order.files:
                # What was loaded from it is open by now or unloaded; the name is needed no more.
                await _delete(replaced.files)

    async def unload(self, model: str) -> None:
        """Unload every version of a model; as `RepositoryControl.unload`."""
        self._check_allowed()
        async with self._turn:
            order = self._orders.pop(model, None)
            if order is None and not await self._exists(model):
                raise NotFound(f"failed to unload '{model}', model is not found")
            self._manager.apply(_CLAIM, self._wanted())
        await self._manager.unloaded(model)
        if order is not None:
            await _delete(order.files)

    def _check_allowed(self) -> None:
        if self._mode is RepositoryMode.POLL:
            raise Unavailable("explicit model load / unload is not allowed if polling is enabled")
        if self._mode is RepositoryMode.NONE:
            raise Unavailable("explicit model load / unload is not allowed in repository mode 'none'")

    async def _load_first(self) -> None:
        names = [n for n in self._load_at_start if n != EVERY_MODEL]
        for repository in self._repositories if EVERY_MODEL in self._load_at_start else ():
            names += await repository.models()
        for name in dict.fromkeys(names):
            try:
                self._orders[name] = await self._order(name, "", {})
            except NotFound as exc:
                raise ConfigError(
                    f"model '{name}' is to be loaded at start, but no repository has it"
                ) from exc
            except ModelLoadError as exc:
                _log.warning("%s", exc)
        self._manager.apply(_CLAIM, self._wanted())

    def _wanted(self) -> list[WantedVersion]:
        return [version for order in self._orders.values() for version in order.versions]

    async def _order(self, model: str, config: str, files: Mapping[str, bytes]) -> _Order:
        """Find out what to load; with files, from a private directory that holds just them."""
        if not files:
            return _Order(tuple(await self._versions(model, config)), None)
        directory = await asyncio.to_thread(_write, model, files)
        try:
            versions = await self._private(directory).versions(model, config)
        except BaseException:
            await _delete(directory)
            raise
        return _Order(tuple(versions), directory)

    async def _versions(self, model: str, config: str) -> Sequence[WantedVersion]:
        for repository in self._repositories:
            with contextlib.suppress(NotFound):
                return await repository.versions(model, config)
        raise NotFound(f"failed to load '{model}', failed to poll from model repository: no such model")

    async def _loaded(self, model: str, order: _Order) -> None:
        """Wait for every version of the order; raise for those that failed."""
        failures: list[str] = []
        for version in order.versions:
            status = await self._manager.outcome(version.id)
            if status is None:
                failures.append(f"version {version.id.number} was withdrawn while it loaded")
            elif status.state is not VersionState.READY:
                failures.append(f"version {version.id.number}: {status.reason}")
        if failures:
            raise ModelLoadError(f"failed to load '{model}', {'; '.join(failures)}")

    async def _exists(self, model: str) -> bool:
        for repository in self._repositories:
            if model in await repository.models():
                return True
        return False

    async def _announce(self) -> None:
        for repository in self._repositories:
            self._manager.announce(repository.name, await repository.models())

    async def _follow(self, repository: Repository) -> None:
        """Claim whatever the repository wants now, until cancelled; a fault of it leaves the claims be."""
        try:
            async with contextlib.aclosing(repository.watch()) as sets:
                async for wanted in sets:
                    self._manager.apply(repository.name, wanted)
                    # The names are for the index alone: the repository may be away for a moment.
                    with contextlib.suppress(ConfigError):
                        self._manager.announce(repository.name, await repository.models())
        except Exception:  # noqa: BLE001 - logged: what is loaded serves on, which beats ending the process
            _log.exception("repository %r is no longer followed", repository.name)


def _write(model: str, files: Mapping[str, bytes]) -> Path:
    """Write `files` below a new private directory, as the model's own; return the directory.

    Raises:
        ModelLoadError: the model's name or a path is not plain and relative.
    """
    paths = {_plain(model, name): content for name, content in files.items()}
    root = Path(tempfile.mkdtemp(prefix="gateway-model-"))
    try:
        for path, content in paths.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as exc:
        shutil.rmtree(root, ignore_errors=True)
        raise ModelLoadError(f"failed to load '{model}', the files sent could not be written") from exc
    return root


def _plain(model: str, name: str) -> PurePosixPath:
    path = PurePosixPath(model, name.removeprefix("file:"))
    unsafe = "\0" in name or "\\" in name or ".." in path.parts or "/" in model
    if unsafe or path.is_absolute() or len(path.parts) < 2 or model in {"", "."}:
        raise ModelLoadError(
            f"failed to load '{model}', file path '{name[:128]}' must be relative to the model and plain"
        )
    return path


async def _delete(directory: Path | None) -> None:
    if directory is not None:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
