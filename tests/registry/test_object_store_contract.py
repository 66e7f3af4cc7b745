"""Registries in a real S3 server and in a directory, as ModelRegistries."""

import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from obstore.store import S3Store

from gateway.registry.directory_registry import DirectoryOptions, DirectoryRegistry
from gateway.registry.object_store import ObjectStoreRegistry
from gateway.registry.stores import ObjectStoreOptions, ReadLimits
from tests.registry.registry_contract import ModelRegistryContract, RegistryUnderTest
from tests.servers.seaweed import BUCKET, Seaweed

NOBODY = "http://127.0.0.1:9"
"""Nothing listens there."""


class BucketWriter:
    """Publishes by a client of the bucket."""

    def __init__(self, bucket: S3Store, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.labels: dict[str, int] = {}

    async def publish(self, model: str, files: Mapping[str, bytes]) -> str:
        self.labels[model] = self.labels.get(model, 0) + 1
        label = str(self.labels[model])
        for path, content in files.items():
            await self.bucket.put_async(f"{self.prefix}/{model}/{label}/{path}", content)
        return label

    async def set_alias(self, model: str, alias: str, label: str) -> None:
        await self.bucket.put_async(f"{self.prefix}/{model}/aliases/{alias}", f"{label}\n".encode())

    async def delete_alias(self, model: str, alias: str) -> None:
        await self.bucket.delete_async(f"{self.prefix}/{model}/aliases/{alias}")

    async def delete_version(self, model: str, label: str) -> None:
        async for page in self.bucket.list(f"{self.prefix}/{model}/{label}"):
            await self.bucket.delete_async([meta["path"] for meta in page])


def subject_in_bucket(
    s3: Seaweed, prefix: str, here: ObjectStoreOptions, nowhere: ObjectStoreOptions
) -> RegistryUnderTest:
    writer = BucketWriter(s3.bucket(BUCKET), prefix)
    return RegistryUnderTest(
        registry=ObjectStoreRegistry("store", here),
        other=ObjectStoreRegistry("store", here),
        unreachable=ObjectStoreRegistry("store", nowhere),
        publish=writer.publish,
        set_alias=writer.set_alias,
        delete_alias=writer.delete_alias,
        delete_version=writer.delete_version,
        secrets=tuple(s3.credentials.values()),
    )


class TestS3(ModelRegistryContract):
    """A bucket of a real server."""

    @pytest.fixture
    def subject(self, s3: Seaweed) -> RegistryUnderTest:
        prefix = uuid.uuid4().hex
        here, nowhere = [
            ObjectStoreOptions(
                url=f"s3://{BUCKET}/{prefix}",
                endpoint=endpoint,
                credentials=s3.credentials,
                allow_http=True,
                limits=ReadLimits(retries=0),
            )
            for endpoint in (s3.endpoint, NOBODY)
        ]
        return subject_in_bucket(s3, prefix, here, nowhere)


class TestWebDav(ModelRegistryContract):
    """The same server, read by WebDAV."""

    @pytest.fixture
    def subject(self, s3: Seaweed) -> RegistryUnderTest:
        prefix = uuid.uuid4().hex
        here, nowhere = [
            ObjectStoreOptions(
                url=f"{server}/{BUCKET}/{prefix}", allow_http=True, limits=ReadLimits(retries=0)
            )
            for server in (s3.webdav, NOBODY)
        ]
        return subject_in_bucket(s3, prefix, here, nowhere)


class DirectoryWriter:
    """Publishes by renaming into place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.labels: dict[str, int] = {}

    async def publish(self, model: str, files: Mapping[str, bytes]) -> str:
        self.labels[model] = self.labels.get(model, 0) + 1
        label = str(self.labels[model])
        built = self.directory / f".{model}-{label}"
        for path, content in files.items():
            (built / path).parent.mkdir(parents=True, exist_ok=True)
            (built / path).write_bytes(content)
        (self.directory / model).mkdir(exist_ok=True)
        built.rename(self.directory / model / label)
        return label

    async def set_alias(self, model: str, alias: str, label: str) -> None:
        aliases = self.directory / model / "aliases"
        aliases.mkdir(exist_ok=True)
        (aliases / alias).write_text(f"{label}\n")

    async def delete_alias(self, model: str, alias: str) -> None:
        (self.directory / model / "aliases" / alias).unlink()

    async def delete_version(self, model: str, label: str) -> None:
        shutil.rmtree(self.directory / model / label)


class TestDirectory(ModelRegistryContract):
    """A plain directory."""

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[RegistryUnderTest]:
        models = tmp_path / "models"
        models.mkdir()
        options = DirectoryOptions(settle_s=0.0)
        registries = [DirectoryRegistry("disk", at, options) for at in (models, models, tmp_path / "lost")]
        writer = DirectoryWriter(models)
        yield RegistryUnderTest(
            registry=registries[0],
            other=registries[1],
            unreachable=registries[2],
            publish=writer.publish,
            set_alias=writer.set_alias,
            delete_alias=writer.delete_alias,
            delete_version=writer.delete_version,
        )
        for registry in registries:
            await registry.aclose()
