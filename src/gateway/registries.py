"""The registries of a running gateway: their cache, their sources, and the removal of what nobody needs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Final, Protocol, Self

from gateway import wiring_registries as wiring
from gateway.core.errors import ConfigError
from gateway.core.registry import RegistryError
from gateway.registry.cache.store import ArtifactCache
from gateway.registry.changes import changes
from gateway.registry.client_threads import start_giving_way
from gateway.registry.resolutions import ResolutionStore
from gateway.registry.source import PollObserver

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from gateway.config.schema import GatewayConfig
    from gateway.core.clock import Clock
    from gateway.registry.cache.collection import CollectReport
    from gateway.registry.following import ModelResolution
    from gateway.registry.mlflow.webhook import WebhookVerifier
    from gateway.registry.source import RegistrySource
    from gateway.wiring_registries import OpenRegistry

_log = logging.getLogger(__name__)

_WITHOUT_EVENTS_S: Final = 3600.0
"""Polling is what finds changes; events are hints."""


class RegistryObserver(PollObserver, Protocol):
    """Told of every look at a registry, and of what is removed from the cache."""

    def on_collected(self, report: CollectReport) -> None:
        """Take note of a garbage collection."""


class Registries:
    """What follows the registries that models name; without such a model there is no cache either.

    Entered before the models that it fetches for are loaded, left after they are closed: their files are
    in its cache.

    Args:
        config: the whole configuration.
        clock: time and timers.
        observer: told of every look at a registry, and of what is removed from the cache.
    """

    def __init__(self, config: GatewayConfig, clock: Clock, observer: RegistryObserver) -> None:
        self._config = config
        self._clock = clock
        self._observer = observer
        self._open: Sequence[OpenRegistry] = ()
        self._resources = AsyncExitStack()

    @property
    def sources(self) -> Sequence[RegistrySource]:
        """What follows each registry; valid once entered."""
        return [opened.source for opened in self._open]

    @property
    def webhooks(self) -> Mapping[str, WebhookVerifier]:
        """What tells genuine webhooks, by registry, for those that have a secret; valid once entered."""
        return {opened.name: opened.webhook for opened in self._open if opened.webhook is not None}

    def resolutions(self) -> Sequence[ModelResolution]:
        """Return where every model stands with its registry."""
        return [resolution for source in self.sources for resolution in source.resolutions()]

    async def __aenter__(self) -> Self:
        """Make the cache and the sources; nothing is asked of a registry yet.

        Raises:
            ConfigError: a source or a registry's settings are wrong, an extra is missing, or the cache
                directory cannot be used.
        """
        if all(model.source is None for model in self._config.models):
            return self
        directory = wiring.cache_directory(self._config.cache)
        cache = ArtifactCache(directory / "artifacts", wiring.cache_options(self._config))
        parts = wiring.RegistryParts(
            cache=cache,
            resolutions=ResolutionStore(directory / "resolutions"),
            clock=self._clock,
            observer=self._observer,
        )
        try:
            self._resources.push_async_callback(cache.aclose)
            await _prepare(cache)
            # Reading keys and importing the libraries of registries takes a while.
            self._open = await asyncio.to_thread(lambda: list(wiring.open_registries(self._config, parts)))
            await asyncio.to_thread(start_giving_way)
            for opened in self._open:
                self._resources.push_async_callback(opened.registry.aclose)
            self._start(self._collect(cache), "collect")
            for opened in self._open:
                if opened.directory is not None:
                    self._start(_hinted(opened.source, opened.directory), f"watch {opened.name}")
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what is fetched, keeping what is there, and free everything."""
        await self._resources.aclose()

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        self._resources.push_async_callback(_cancelled, asyncio.create_task(work, name=name))

    async def _collect(self, cache: ArtifactCache) -> None:
        """Remove from the cache, time and again, what nobody needs."""
        while True:
            await asyncio.sleep(self._config.cache.collect_interval_s)
            try:
                keep = frozenset[str]().union(*(source.keep_digests() for source in self.sources))
                report = await cache.collect(keep)
                self._observer.on_collected(report)
            except RegistryError as error:
                _log.warning("nothing was removed from the cache: %s", error)
            except Exception:  # noqa: BLE001 - logged: the next time may do better
                _log.exception("looking for what may be removed from the cache failed")
            else:
                _log.info("cache: %s", report)


async def _prepare(cache: ArtifactCache) -> None:
    try:
        await cache.prepare()
    except RegistryError as error:
        raise ConfigError(str(error)) from error


async def _hinted(source: RegistrySource, directory: Path) -> None:
    """Have a directory looked at when the system tells of a change, sooner than it would be."""
    async with aclosing(changes([directory], [], _WITHOUT_EVENTS_S)) as events:
        async for _ in events:
            source.hint()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
