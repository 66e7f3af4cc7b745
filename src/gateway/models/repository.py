"""Repository control: what is loaded at start, on a client's wish, or because the repository changed."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from gateway.core.errors import ConfigError, ModelLoadError, NotFound, Unavailable
from gateway.core.types import VersionState
from gateway.models.sent_files import SentFiles

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from gateway.core.interfaces import WantedVersion
    from gateway.models.manager import ModelManager

_log = logging.getLogger(__name__)

EVERY_MODEL: Final = "*"
FOLLOW_PAUSE_S: Final = 5.0
"""Seconds after which a repository whose watch failed is followed again."""
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


class Followed(Repository, Protocol):
    """A Repository that is followed in every mode: a registry says which versions there are."""

    def wanted(self) -> Sequence[WantedVersion]:
        """Return the complete set as it is known now, without asking anybody."""

    def problems(self) -> Mapping[str, str]:
        """Return, by model, why its versions cannot be found out now; as `Catalog.announce` takes it."""


@dataclass(frozen=True, slots=True)
class _Order:
    """One model loaded on a client's wish, and the private directory its files are in, if any."""

    versions: tuple[WantedVersion, ...]
    files: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOptions:
    """Settings of a RepositoryController.

    Attributes:
        load_at_start: in mode explicit, what to load at start; `*` is everything.
        required: models without which the server is not ready, whether or not a repository offers them; one
            that a client unloads is required no more.
        followed: registries, whose models clients may have looked at again, and neither changed nor unloaded.
        pause: waits before a repository is followed again.
    """

    load_at_start: Sequence[str] = ()
    required: Collection[str] = ()
    followed: Sequence[Followed] = ()
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


_DEFAULTS: Final = ControlOptions()


class RepositoryController:
    """A RepositoryControl. Owns the task that follows the repository and the files that clients sent.

    Files that were sent stay until another load of the model replaces them, or an unload, and no load that
    is under way needs them, whether or not its client still waits.

    Args:
        manager: loads and unloads; must be entered before and left after.
        repositories: looked through in order for a model's name.
        mode: who decides what is loaded.
        private: opens a directory in Triton's layout as a repository; for files that clients send.
        options: settings.
    """

    def __init__(
        self,
        manager: ModelManager,
        repositories: Sequence[Repository],
        mode: RepositoryMode,
        *,
        private: Callable[[Path], Repository],
        options: ControlOptions = _DEFAULTS,
    ) -> None:
        self._manager = manager
        self._repositories = tuple(repositories)
        self._followed = tuple(options.followed)
        self._mode = mode
        self._options = options
        self._required = set(options.required)
        self._private = private
        self._sent = SentFiles()
        self._orders: dict[str, _Order] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Claim what is served from the start; `ModelManager.wait_settled` tells when it is loaded.

        Raises:
            ConfigError: a repository could not be read, or lacks a model named for the start.
        """
        self._manager.require(self._required)
        if self._mode is RepositoryMode.EXPLICIT:
            await self._load_first()
        else:
            for repository in self._repositories:
                self._manager.apply(repository.name, await repository.snapshot())
        # Together: one that does not answer is waited for, and is not to delay the others.
        snapshots = await asyncio.gather(*(registry.snapshot() for registry in self._followed))
        for registry, snapshot in zip(self._followed, snapshots, strict=True):
            self._manager.apply(registry.name, snapshot)
        await self._announce()
        self._group = await asyncio.TaskGroup().__aenter__()
        polled = self._repositories if self._mode is RepositoryMode.POLL else ()
        for repository in (*polled, *self._followed):
            self._start(self._group, self._follow(repository))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following, and delete the files that clients sent. What is loaded stays loaded."""
        group, self._group = self._group, None
        for task in self._tasks:
            task.cancel()
        if group is not None:
            await group.__aexit__(None, None, None)
        await self._sent.aclose()

    async def load(self, model: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model; as `RepositoryControl.load`.

        Cancelling the call does not call off the load.
        """
        self._check_allowed()
        if (registry := await self._registry_of(model)) is not None:
            await self._look_again(registry, model, overridden=bool(config or files))
            return
        if files and not config:
            raise ModelLoadError(f"failed to load '{model}', override files need the parameter 'config'")
        async with self._turn:
            order = _eager(await self._order(model, config, files or {}))
            replaced = self._orders.get(model)
            self._orders[model] = order
            self._manager.apply(_CLAIM, self._wanted(), retry=model)
            deletion = self._let_go(replaced)
            await self._announce()
        await self._loaded(model, order)
        if deletion is not None:
            await asyncio.shield(deletion)

    async def unload(self, model: str) -> None:
        """Unload every version of a model; as `RepositoryControl.unload`."""
        self._check_allowed()
        if (registry := await self._registry_of(model)) is not None:
            raise Unavailable(
                f"failed to unload '{model}', it is served from registry '{registry.name}' for as long as "
                "the configuration names it"
            )
        async with self._turn:
            order = self._orders.pop(model, None)
            if order is None and not await self._exists(model):
                raise NotFound(f"failed to unload '{model}', model is not found")
            self._required.discard(model)
            self._manager.require(self._required)
            self._manager.apply(_CLAIM, self._wanted())
            deletion = self._let_go(order)
        await self._manager.unloaded(model)
        if deletion is not None:
            await asyncio.shield(deletion)

    def _check_allowed(self) -> None:
        if self._mode is RepositoryMode.POLL:
            raise Unavailable("explicit model load / unload is not allowed if polling is enabled")
        if self._mode is RepositoryMode.NONE:
            raise Unavailable("explicit model load / unload is not allowed in repository mode 'none'")

    async def _registry_of(self, model: str) -> Followed | None:
        for registry in self._followed:
            if model in await registry.models():
                return registry
        return None

    async def _look_again(self, registry: Followed, model: str, *, overridden: bool) -> None:
        """Ask the registry for one model now, try again what failed, and wait for what is wanted of it."""
        if overridden:
            raise ModelLoadError(
                f"failed to load '{model}', it is served from registry '{registry.name}': its configuration "
                "and files are not replaced"
            )
        versions = await registry.versions(model)
        self._manager.apply(registry.name, registry.wanted(), retry=model)
        await self._loaded(model, _Order(tuple(versions), None))

    async def _load_first(self) -> None:
        start = self._options.load_at_start
        names = [n for n in start if n != EVERY_MODEL]
        for repository in self._repositories if EVERY_MODEL in start else ():
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
        directory = await self._sent.write(model, files)
        try:
            versions = await self._private(directory).versions(model, config)
        except BaseException:
            await self._sent.delete(directory)
            raise
        return _Order(tuple(versions), directory)

    async def _versions(self, model: str, config: str) -> Sequence[WantedVersion]:
        for repository in self._repositories:
            with contextlib.suppress(NotFound):
                return await repository.versions(model, config)
        raise NotFound(f"failed to load '{model}', failed to poll from model repository: no such model")

    async def _loaded(self, model: str, order: _Order) -> None:
        """Wait for every version of the order.

        Raises:
            ModelLoadError: some failed; from a cause outside their files if none of them is to blame.
        """
        failures: list[str] = []
        causes: list[Exception | None] = []
        for version in order.versions:
            status = await self._manager.outcome(version.id)
            if status is None and version.spec.lazy:
                continue  # of a registry, and asleep: loaded when somebody asks for it
            if status is None:
                failures.append(f"version {version.id.number} was withdrawn while it loaded")
            elif status.state is not VersionState.READY:
                failures.append(f"version {version.id.number}: {status.reason}")
                causes.append(self._manager.cause(version.id))
        if failures:
            cause = causes[0] if causes and all(causes) else None
            raise ModelLoadError(f"failed to load '{model}', {'; '.join(failures)}") from cause

    async def _exists(self, model: str) -> bool:
        for repository in self._repositories:
            if model in await repository.models():
                return True
        return False

    async def _announce(self) -> None:
        for repository in (*self._repositories, *self._followed):
            await self._announce_one(repository)

    async def _announce_one(self, repository: Repository) -> None:
        problems = next((r.problems() for r in self._followed if r is repository), {})
        self._manager.announce(repository.name, await repository.models(), problems)

    async def _follow(self, repository: Repository) -> None:
        """Claim whatever the repository wants now, until cancelled; a fault of it leaves the claims be."""
        while True:
            try:
                await self._claim_all(repository)
                return
            except Exception:  # noqa: BLE001 - logged: what is loaded serves on, which beats ending it
                _log.exception(
                    "following repository %r failed, again in %g s", repository.name, FOLLOW_PAUSE_S
                )
            await self._options.pause(FOLLOW_PAUSE_S)

    async def _claim_all(self, repository: Repository) -> None:
        async with contextlib.aclosing(repository.watch()) as sets:
            async for wanted in sets:
                self._manager.apply(repository.name, wanted)
                # The names are for the index alone: the repository may be away for a moment.
                with contextlib.suppress(ConfigError):
                    await self._announce_one(repository)

    def _let_go(self, order: _Order | None) -> asyncio.Task[None] | None:
        """Delete the files of an order that stands no more, once no load needs them.

        Returns:
            The task that deletes, when it need not wait for a load; None when there is nothing to wait for.
        """
        if order is None or order.files is None or self._group is None:
            return None
        waits = self._manager.is_loading_from(order.files)
        task = self._start(self._group, self._delete_unneeded(order.files))
        return None if waits else task

    async def _delete_unneeded(self, directory: Path) -> None:
        await self._manager.loaded_from(directory)
        await self._sent.delete(directory)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _eager(order: _Order) -> _Order:
    """Return an order of the same versions, to be loaded whether or not somebody asks for them."""
    versions = [copy.copy(version) for version in order.versions]
    for version in versions:
        version.spec = dataclasses.replace(version.spec, lazy=False)
    return _Order(tuple(versions), order.files)
