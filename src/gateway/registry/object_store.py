"""Models in an object store: S3 and what is compatible, Google Cloud Storage, Azure, WebDAV."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from obstore.exceptions import BaseError
from obstore.store import from_url

from gateway.core.errors import ConfigError
from gateway.core.registry import NotInRegistry
from gateway.registry.look import ModelLooks
from gateway.registry.object_reader import ObjectReader
from gateway.registry.stored_versions import (
    StoredObject,
    arrange,
    check_model_name,
    printable,
    version_files,
)
from gateway.registry.stores import ObjectStoreOptions, StoreUrl, parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from gateway.core.registry import RegisteredModel, RegistryFile, RegistryVersion
    from gateway.registry.model_specs import ModelFile

_WHOLE_DOWNLOAD: Final = timedelta(days=1)
"""obstore bounds the time of a whole download, which says nothing; each piece is bounded by us."""
_FIRST_PAUSE: Final = timedelta(milliseconds=100)
_LONGEST_PAUSE: Final = timedelta(seconds=2)
"""Between attempts."""
_ENDPOINT_KEY: Final = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}


def open_reader(options: ObjectStoreOptions) -> ObjectReader:
    """Return a reader of the store at `options.url`; paths are relative to it.

    Raises:
        ConfigError: the options do not fit the store.
    """
    url = parse_url(options.url)
    return ObjectReader(_open_store(url, options), url.prefix, _place(url, options), options.limits)


class ObjectStoreRegistry:
    """A ModelRegistry in an object store.

    Layout: `<model>/<label>/model.onnx ...`, `<model>/aliases/<alias>` with the label as its text,
    `<model>/config.pbtxt`. One listing is one look; while nothing has changed nothing else is asked.

    Args:
        name: as configured.
        options: settings.

    Raises:
        ConfigError: the options do not fit the store.
    """

    def __init__(self, name: str, options: ObjectStoreOptions) -> None:
        self.name = name
        url = parse_url(options.url)
        self._url = url
        self._place = _place(url, options)
        self._marker = options.completion_marker
        self._reader = open_reader(options)
        self._looks = ModelLooks(self._small, lambda model, label: f"{url}/{model}/{label}")
        self.identity = self._place

    def __repr__(self) -> str:
        """Return name and place."""
        return f"ObjectStoreRegistry({self.name!r}, {self._place!r})"

    async def model(self, name: str) -> RegisteredModel:
        """As `ModelRegistry.model`."""
        check_model_name(name)
        objects = await self._reader.list("resolve", name)
        if not objects:
            self._looks.forget(name)
            raise NotInRegistry(f"there is no model '{printable(name)}' at {self._place}")
        stored = await asyncio.to_thread(arrange, objects, self._marker)
        return await self._looks.model(name, stored)

    async def model_file(self, model: str, path: str, known: ModelFile | None) -> ModelFile | None:
        """As `ModelFileReader.model_file`, as of the last look at the model."""
        if not self._looks.knows(model):
            await self.model(model)
        return await self._looks.beside(model, path, known)

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        """As `ModelRegistry.files`; also fails when they are not those of the version's revision."""
        objects = await self._reader.list("fetch", version.location)
        return await asyncio.to_thread(version_files, version, objects, self._marker, self._place)

    async def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncGenerator[bytes, None]:
        """As `ModelRegistry.read`, in pieces of about 256 KiB."""
        async for piece in self._reader.read(f"{version.location}/{file.path}", file, start, end):
            yield piece

    async def aclose(self) -> None:
        """Nothing is held: obstore closes idle connections by itself."""

    async def _small(self, model: str, seen: StoredObject, limit: int) -> bytes:
        return await self._reader.small("resolve", f"{model}/{seen.path}", limit)


def _open_store(url: StoreUrl, options: ObjectStoreOptions) -> ObjectStore:
    settings: dict[str, Any] = dict(options.credentials)
    if options.endpoint:
        if url.scheme not in _ENDPOINT_KEY:
            raise ConfigError(f"{url}: an endpoint is for s3, gs and az; the URL names the server")
        settings[_ENDPOINT_KEY[url.scheme]] = options.endpoint.rstrip("/")
    if options.region:
        settings["region"] = options.region
    if options.account:
        settings["account_name"] = options.account
    if options.anonymous:
        settings["skip_signature"] = True
    if "@" in options.endpoint:
        raise ConfigError(f"{url}: an endpoint must not hold credentials: set them apart")
    try:
        return from_url(
            f"{url.scheme}://{url.bucket}",
            client_options=_client(options),
            retry_config=_retries(options),
            **settings,
        )
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"{url}: {_first_line(error, options)}") from None


def _client(options: ObjectStoreOptions) -> ClientConfig:
    limits = options.limits
    client: ClientConfig = {
        "allow_http": options.allow_http,
        "connect_timeout": timedelta(seconds=limits.connect_timeout_s),
        "read_timeout": timedelta(seconds=2 * limits.read_timeout_s),  # ours comes first and says more
        "timeout": _WHOLE_DOWNLOAD,
    }
    if options.ca_certificate:
        client["root_certificate"] = options.ca_certificate
    return client


def _retries(options: ObjectStoreOptions) -> RetryConfig:
    return {
        "max_retries": options.limits.retries,
        "retry_timeout": timedelta(seconds=options.limits.request_timeout_s),
        "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
    }


def _first_line(error: Exception, options: ObjectStoreOptions) -> str:
    said = str(error).partition("\n")[0]
    for secret in options.credentials.values():
        said = said.replace(secret, "...") if secret else said
    return printable(said, 200)


def _place(url: StoreUrl, options: ObjectStoreOptions) -> str:
    """Return the store in words for people, without anything secret."""
    where = options.endpoint.rstrip("/") or options.account
    return f"{url} at {where}" if where else str(url)
