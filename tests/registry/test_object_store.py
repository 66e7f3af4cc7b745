"""A registry in a real S3 server: what it says of models, and of what is in the way."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from obstore.store import S3Store

from gateway.core.errors import ConfigError
from gateway.core.registry import NotInRegistry, RegistryError, RegistryFile, RegistryVersion
from gateway.registry.model_specs import ModelFileReader
from gateway.registry.object_store import ObjectStoreRegistry
from gateway.registry.stores import ObjectStoreOptions, ReadLimits, open_registry
from tests.servers.seaweed import BUCKET, Seaweed


@dataclass(frozen=True, slots=True)
class Shelf:
    """A prefix of its own in the bucket."""

    bucket: S3Store
    prefix: str
    options: ObjectStoreOptions

    def registry(self, **changes: object) -> ObjectStoreRegistry:
        return ObjectStoreRegistry("store", replace(self.options, **changes))  # type: ignore[arg-type]  # a test's own

    async def put(self, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            await self.bucket.put_async(f"{self.prefix}/{path}", content)


@pytest.fixture
def shelf(s3: Seaweed) -> Shelf:
    prefix = uuid.uuid4().hex
    options = ObjectStoreOptions(
        url=f"s3://{BUCKET}/{prefix}", endpoint=s3.endpoint, credentials=s3.credentials, allow_http=True
    )
    return Shelf(s3.bucket(BUCKET), prefix, options)


async def content(registry: ObjectStoreRegistry, version: RegistryVersion, file: RegistryFile) -> bytes:
    return b"".join([piece async for piece in registry.read(version, file, 0, None)])


async def test_versions_aliases_and_faults_are_told_together(shelf: Shelf) -> None:
    """One look at a model says what can be served, under which names, and why the rest cannot."""
    await shelf.put(
        {
            "fraud/1.4/model.onnx": b"old",
            "fraud/v1.10.2/model.onnx": b"new",
            "fraud/1.11.0/weights.bin": b"no model file",
            "fraud/1.12.0/model.onnx": b"half",
            "fraud/1.12.0/_UPLOADING": b"",
            "fraud/latest/model.onnx": b"a label that is none",
            "fraud/aliases/champion": b"  1.4.0\r\n",
            "fraud/aliases/challenger": b"9.9.9",
            "fraud/config.pbtxt": b"max_batch_size: 8",
            "fraudulent/1/model.onnx": b"another model",
        }
    )
    model = await shelf.registry().model("fraud")
    assert [version.label for version in model.versions] == ["1.4", "v1.10.2"]
    assert model.aliases == {"champion": "1.4", "challenger": "9.9.9"}
    assert model.unusable.keys() == {"1.11.0", "1.12.0", "latest"}
    assert "no model file" in model.unusable["1.11.0"]
    assert "_UPLOADING" in model.unusable["1.12.0"]
    assert "positive integer" in model.unusable["latest"]


async def test_a_version_can_be_made_to_need_a_marker(shelf: Shelf) -> None:
    """It is offered once its uploader has written the agreed file."""
    await shelf.put({"fraud/1/model.onnx": b"m", "fraud/2/model.onnx": b"m", "fraud/1/_SUCCESS": b""})
    registry = shelf.registry(completion_marker="_SUCCESS")
    model = await registry.model("fraud")
    assert [version.label for version in model.versions] == ["1"]
    assert "_SUCCESS" in model.unusable["2"]
    await shelf.put({"fraud/2/_SUCCESS": b""})
    assert [version.label for version in (await registry.model("fraud")).versions] == ["1", "2"]


async def test_a_version_that_is_uploaded_anew_is_offered_as_it_was(shelf: Shelf) -> None:
    """What is served is not taken away while its successor under the same label is on its way."""
    await shelf.put({"fraud/1/model.onnx": b"first"})
    registry = shelf.registry()
    before = await registry.model("fraud")
    await shelf.put({"fraud/1/_UPLOADING": b"", "fraud/1/model.onnx": b"second"})
    assert (await registry.model("fraud")).versions == before.versions
    with pytest.raises(RegistryError, match="still being uploaded"):
        await registry.files(before.versions[0])
    await shelf.bucket.delete_async(f"{shelf.prefix}/fraud/1/_UPLOADING")
    after = (await registry.model("fraud")).versions
    assert after[0].revision != before.versions[0].revision
    assert await content(registry, after[0], (await registry.files(after[0]))[0]) == b"second"


async def test_lineage_is_what_lies_with_the_version(shelf: Shelf) -> None:
    """lineage.json and the model card are told; a broken one is told as broken."""
    await shelf.put(
        {
            "fraud/1/model.onnx": b"m",
            "fraud/1/lineage.json": b'{"run_id": "r1", "tags": {"team": "risk"}}',
            "fraud/1/MODEL_CARD.md": "# Fraud, r\u00e9sum\u00e9\n".encode(),
            "fraud/2/model.onnx": b"m",
            "fraud/2/lineage.json": b"[1, 2",
        }
    )
    first, second = (await shelf.registry().model("fraud")).versions
    assert first.lineage["run_id"] == "r1"
    assert first.lineage["tags"] == {"team": "risk"}
    assert first.lineage["model_card"] == "# Fraud, r\u00e9sum\u00e9\n"
    assert first.lineage["source"] == f"{shelf.options.url}/fraud/1"
    assert first.lineage["created_s"] > 0
    assert "lineage.json" in second.lineage["lineage_problem"]


async def test_files_beside_the_versions_are_read_once(shelf: Shelf) -> None:
    """config.pbtxt is given again by its etag, and anew when it has changed."""
    await shelf.put({"fraud/1/model.onnx": b"m", "fraud/config.pbtxt": b"one"})
    registry = shelf.registry()
    assert isinstance(registry, ModelFileReader)
    first = await registry.model_file("fraud", "config.pbtxt", None)
    assert first is not None
    assert first.content == b"one"
    assert await registry.model_file("fraud", "config.pbtxt", first) is first
    assert await registry.model_file("fraud", "labels.txt", None) is None
    await shelf.put({"fraud/config.pbtxt": b"two"})
    await registry.model("fraud")
    second = await registry.model_file("fraud", "config.pbtxt", first)
    assert second is not None
    assert second.content == b"two"
    await shelf.put({"fraud/config.pbtxt": b"#" * (300 << 10)})
    await registry.model("fraud")
    with pytest.raises(RegistryError, match=r"config\.pbtxt.*more than"):
        await registry.model_file("fraud", "config.pbtxt", second)


async def test_a_file_replaced_after_the_look_is_noticed(shelf: Shelf) -> None:
    """Nothing of the new file passes as the old one."""
    await shelf.put({"fraud/1/model.onnx": b"a" * 1000})
    registry = shelf.registry()
    version = (await registry.model("fraud")).versions[0]
    file = (await registry.files(version))[0]
    await shelf.put({"fraud/1/model.onnx": b"b" * 1000})
    with pytest.raises(RegistryError, match=r"model\.onnx") as read:
        await content(registry, version, file)
    assert read.value.may_pass
    with pytest.raises(RegistryError, match="another one") as listed:
        await registry.files(version)
    assert (listed.value.step, listed.value.may_pass) == ("fetch", True)


async def test_a_model_with_more_files_than_a_page_is_read_whole(shelf: Shelf) -> None:
    """Pages are followed to the end; the bound is said with its number."""
    await shelf.put({"fraud/1/model.onnx": b"m"} | {f"fraud/1/part/{n:04}": b"" for n in range(1100)})
    registry = shelf.registry()
    version = (await registry.model("fraud")).versions[0]
    assert len(await registry.files(version)) == 1101
    bounded = shelf.registry(limits=ReadLimits(max_objects=1100))
    with pytest.raises(RegistryError, match="more than 1100 files"):
        await bounded.model("fraud")


@pytest.mark.parametrize("name", ["a b.txt", "h#sh?q=1", "p%41", "gr\u00fc\u00dfe.bin", "plus+and&.txt"])
async def test_names_that_are_only_unusual_are_read(shelf: Shelf, name: str) -> None:
    """No escaping changes them on the way."""
    await shelf.put({"fraud/1/model.onnx": b"m", f"fraud/1/{name}": name.encode()})
    registry = shelf.registry()
    version = (await registry.model("fraud")).versions[0]
    file = next(file for file in await registry.files(version) if file.path == name)
    assert await content(registry, version, file) == name.encode()


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        (
            {"access_key_id": "tests-access-key", "secret_access_key": "a-wrong-secret"},
            "SignatureDoesNotMatch",
        ),
        ({"access_key_id": "who-is-this", "secret_access_key": "a-wrong-secret"}, "InvalidAccessKeyId"),
        ({}, "AccessDenied"),
    ],
    ids=["wrong secret", "unknown key", "anonymous"],
)
async def test_wrong_credentials_are_told(shelf: Shelf, credentials: Mapping[str, str], code: str) -> None:
    """With the store's own code and what to check, and without the secret."""
    await shelf.put({"fraud/1/model.onnx": b"m"})
    good = shelf.registry()
    version = (await good.model("fraud")).versions[0]
    file = (await good.files(version))[0]
    registry = shelf.registry(credentials=credentials, anonymous=not credentials)
    with pytest.raises(RegistryError, match=f"denies access.*{code}.*check the credentials") as look:
        await registry.model("fraud")
    with pytest.raises(RegistryError, match=f"denies access.*{code}") as read:
        await content(registry, version, file)
    for error in (look.value, read.value):
        assert not isinstance(error, NotInRegistry)
        assert shelf.options.endpoint in str(error)
        assert "a-wrong-secret" not in str(error)
        assert error.may_pass


async def test_a_bucket_that_does_not_exist_is_told(shelf: Shelf) -> None:
    """It is told from a model that does not exist."""
    with pytest.raises(RegistryError, match=r"no such bucket.*NoSuchBucket") as caught:
        await shelf.registry(url="s3://nothing-here/models").model("fraud")
    assert not isinstance(caught.value, NotInRegistry)


async def test_an_object_that_is_gone_is_told(shelf: Shelf) -> None:
    """As a fault of the fetch that may pass: the next look knows more."""
    await shelf.put({"fraud/1/model.onnx": b"m", "fraud/1/more.bin": b"more"})
    registry = shelf.registry()
    version = (await registry.model("fraud")).versions[0]
    await shelf.bucket.delete_async(f"{shelf.prefix}/fraud/1/more.bin")
    with pytest.raises(RegistryError, match=r"more\.bin.*404 NoSuchKey") as caught:
        await content(registry, version, RegistryFile(path="more.bin", size=4))
    assert (caught.value.step, caught.value.may_pass) == ("fetch", True)


def test_the_url_decides_the_kind_of_registry(shelf: Shelf) -> None:
    """Nothing is asked of the store yet."""
    registry = open_registry("store", shelf.options)
    assert isinstance(registry, ObjectStoreRegistry)
    assert registry.identity == f"{shelf.options.url} at {shelf.options.endpoint}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"credentials": {"acces_key_id": "hidden-value"}}, "acces_key_id"),
        ({"url": "gs://bucket", "credentials": {"service_account_key": "hidden-value"}}, "service account"),
        ({"ca_certificate": "hidden-value"}, "certificate"),
        ({"endpoint": "http://user:hidden-value@127.0.0.1"}, "credentials"),
        ({"url": "https://host/models"}, "endpoint"),
    ],
)
def test_settings_that_do_not_fit_are_refused(shelf: Shelf, changes: dict[str, object], message: str) -> None:
    """At once, in words that hold no secret."""
    with pytest.raises(ConfigError, match=message) as caught:
        shelf.registry(**changes)
    assert "hidden-value" not in str(caught.value)
    assert caught.value.__cause__ is None
