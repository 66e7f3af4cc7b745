"""The files of a version that MLflow keeps in an object store and does not hand out itself."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError
from gateway.core.registry import RegistryError, RegistryFile
from gateway.registry.object_store import open_reader
from gateway.registry.stored_versions import fault_of_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from gateway.registry.object_reader import ObjectReader
    from gateway.registry.stores import ObjectStoreOptions

_AZURE: Final = re.compile(r"(?:abfss?|wasbs?)://([^@/]+)@([a-z0-9]+)\.[a-z]+\.core\.windows\.net/(.+)")
_OTHER: Final = re.compile(r"(s3|gs)://([^/@]+)/(.+)")


class StoredArtifacts:
    """An ArtifactSource over an object store.

    Args:
        reader: reads the store.
        prefix: of the version's files there.
    """

    def __init__(self, reader: ObjectReader, prefix: str) -> None:
        self._reader = reader
        self._prefix = prefix

    async def files(self) -> Sequence[RegistryFile]:
        """List them; as `ModelRegistry.files`."""
        objects = await self._reader.list("fetch", self._prefix)
        for seen in objects:
            if (fault := fault_of_path(seen.path)) is not None:
                raise RegistryError("fetch", fault, may_pass=False)
        if not objects:
            raise RegistryError("fetch", "the bucket that MLflow names has no files of it", may_pass=True)
        return [RegistryFile(path=seen.path, size=seen.size, etag=seen.etag) for seen in objects]

    async def read(self, file: RegistryFile, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Give bytes of a file; as `ModelRegistry.read`."""
        async for piece in self._reader.read(f"{self._prefix}/{file.path}", file, start, end):
            yield piece


def store_opener(settings: ObjectStoreOptions) -> Callable[[str], StoredArtifacts]:
    """Return what an MlflowRegistry opens stores by.

    Args:
        settings: of every store that MLflow names; its URL and account are replaced.
    """

    def open_store(url: str) -> StoredArtifacts:
        bucket, account, prefix = _taken_apart(url)
        options = dataclasses.replace(settings, url=bucket, account=account or settings.account)
        try:
            return StoredArtifacts(open_reader(options), prefix)
        except ConfigError as exc:
            raise RegistryError("fetch", str(exc), may_pass=False) from exc

    return open_store


def _taken_apart(url: str) -> tuple[str, str, str]:
    """Return bucket as a URL, Azure account, and prefix."""
    if azure := _AZURE.fullmatch(url):
        bucket, account, prefix = f"az://{azure[1]}", azure[2], azure[3]
    elif other := _OTHER.fullmatch(url):
        bucket, account, prefix = f"{other[1]}://{other[2]}", "", other[3]
    else:
        raise RegistryError("fetch", "MLflow names a place of its files that is no bucket", may_pass=False)
    prefix = prefix.strip("/")
    if (fault := fault_of_path(prefix)) is not None:
        raise RegistryError(
            "fetch", f"MLflow names a place of its files that is none: {fault}", may_pass=False
        )
    return bucket, account, prefix
