"""A registry in a directory: writers of every kind, links, hung files, another user."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.registry import RegistryError, RegistryVersion
from gateway.registry.directory_registry import DirectoryOptions, DirectoryRegistry
from gateway.registry.stores import ObjectStoreOptions, StoreUrl, open_registry, parse_url


@dataclass(slots=True)
class Pauses:
    """Stands in for waiting; what happens meanwhile is up to the test."""

    meanwhile: Callable[[], object] = lambda: None
    taken: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.meanwhile()


@dataclass(slots=True)
class Shelf:
    """A directory of models and a registry on it whose pauses the test fills."""

    directory: Path
    pauses: Pauses
    registry: DirectoryRegistry

    def write(self, path: str, content: bytes = b"model", age_s: float = 3600.0) -> Path:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        written = file.stat().st_mtime - age_s
        os.utime(file, (written, written))
        return file

    async def labels(self) -> list[str]:
        return [version.label for version in (await self.registry.model("fraud")).versions]

    async def content(self, version: RegistryVersion) -> bytes:
        file = (await self.registry.files(version))[0]
        return b"".join([piece async for piece in self.registry.read(version, file, 0, None)])


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    directory = tmp_path / "models"
    directory.mkdir()
    pauses = Pauses()
    registry = DirectoryRegistry("disk", directory, DirectoryOptions(pause=pauses))
    yield Shelf(directory, pauses, registry)
    await registry.aclose()


async def test_old_files_are_looked_at_once(shelf: Shelf) -> None:
    """Only young ones are waited for."""
    shelf.write("fraud/1/model.onnx")
    assert await shelf.labels() == ["1"]
    assert shelf.pauses.taken == []
    shelf.write("fraud/2/model.onnx", age_s=0)
    assert await shelf.labels() == ["1", "2"]
    assert shelf.pauses.taken == [0.5]


async def test_a_version_that_is_being_written_is_not_offered(shelf: Shelf) -> None:
    """Its files differ between the two looks; the others are offered."""
    shelf.write("fraud/1/model.onnx")
    file = shelf.write("fraud/2/model.onnx", age_s=0)
    shelf.pauses.meanwhile = lambda: file.write_bytes(b"model, longer")
    model = await shelf.registry.model("fraud")
    assert [version.label for version in model.versions] == ["1"]
    assert model.unusable == {"2": "its files are still being written"}
    shelf.pauses.meanwhile = lambda: None
    assert await shelf.labels() == ["1", "2"]


async def test_a_version_that_is_rewritten_is_offered_as_it_was(shelf: Shelf) -> None:
    """Until it has settled; then it is another revision."""
    shelf.write("fraud/1/model.onnx", b"first")
    before = (await shelf.registry.model("fraud")).versions
    file = shelf.write("fraud/1/model.onnx", b"sec", age_s=0)
    shelf.pauses.meanwhile = lambda: file.write_bytes(b"second")
    assert (await shelf.registry.model("fraud")).versions == before
    shelf.pauses.meanwhile = lambda: None
    after = (await shelf.registry.model("fraud")).versions
    assert after[0].revision != before[0].revision
    assert await shelf.content(after[0]) == b"second"


@pytest.mark.parametrize("name", [".incomplete", "_UPLOADING", "model.onnx.part", "weights.bin.tmp"])
async def test_a_version_with_an_unfinished_file_is_not_offered(shelf: Shelf, name: str) -> None:
    """Markers and the names that copying programs give."""
    shelf.write("fraud/1/model.onnx")
    shelf.write(f"fraud/1/{name}")
    model = await shelf.registry.model("fraud")
    assert model.versions == ()
    assert model.unusable.keys() == {"1"}


async def test_a_link_can_be_switched(shelf: Shelf) -> None:
    """To another directory within; what is read is all of one of them."""
    for name in ("a", "b"):
        shelf.write(f".releases/{name}/model.onnx", name.encode())
    link = shelf.directory / "fraud" / "1"
    link.parent.mkdir()
    link.symlink_to("../.releases/a")
    before = (await shelf.registry.model("fraud")).versions[0]
    assert await shelf.content(before) == b"a"
    (shelf.directory / "fraud" / ".next").symlink_to("../.releases/b")
    (shelf.directory / "fraud" / ".next").rename(link)
    with pytest.raises(RegistryError, match="another one"):
        await shelf.registry.files(before)
    after = (await shelf.registry.model("fraud")).versions[0]
    assert after.revision != before.revision
    assert await shelf.content(after) == b"b"


async def test_the_directory_itself_may_be_a_link_that_is_switched(shelf: Shelf, tmp_path: Path) -> None:
    """It is followed anew at each look."""
    shelf.write("fraud/1/model.onnx")
    link = tmp_path / "current"
    link.symlink_to(shelf.directory)
    registry = DirectoryRegistry("disk", link)
    assert [v.label for v in (await registry.model("fraud")).versions] == ["1"]
    other = tmp_path / "other" / "fraud" / "2"
    other.mkdir(parents=True)
    (other / "model.onnx").write_bytes(b"model")
    (tmp_path / "next").symlink_to(tmp_path / "other")
    (tmp_path / "next").rename(link)
    assert [v.label for v in (await registry.model("fraud")).versions] == ["2"]
    await registry.aclose()


@pytest.mark.parametrize("place", ["fraud/2/model.onnx", "fraud/2", "fraud/1/../2/data"])
async def test_a_link_that_leads_out_makes_its_version_unusable(
    shelf: Shelf, tmp_path: Path, place: str
) -> None:
    """Nothing outside the directory is offered or read; the other version is."""
    shelf.write("fraud/1/model.onnx")
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "model.onnx").write_bytes(b"secret")
    link = shelf.directory / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(secret / "model.onnx" if place.endswith("onnx") else secret)
    model = await shelf.registry.model("fraud")
    assert [version.label for version in model.versions] == ["1"]
    assert "leads out" in model.unusable["2"]


async def test_a_model_that_is_a_link_out_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """So is an alias directory that is one."""
    (tmp_path / "outside" / "1").mkdir(parents=True)
    (tmp_path / "outside" / "1" / "model.onnx").write_bytes(b"secret")
    (shelf.directory / "fraud").symlink_to(tmp_path / "outside")
    with pytest.raises(RegistryError, match="leads out"):
        await shelf.registry.model("fraud")


async def test_a_file_planted_between_listing_and_reading_is_not_read(shelf: Shelf, tmp_path: Path) -> None:
    """A link that leads out is not followed, another file is noticed."""
    file = shelf.write("fraud/1/model.onnx")
    version = (await shelf.registry.model("fraud")).versions[0]
    listed = (await shelf.registry.files(version))[0]
    (tmp_path / "secret").write_bytes(b"model")
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(RegistryError, match="leads out"):
        _ = [piece async for piece in shelf.registry.read(version, listed, 0, None)]
    file.unlink()
    file.write_bytes(b"other")
    with pytest.raises(RegistryError, match="another file"):
        _ = [piece async for piece in shelf.registry.read(version, listed, 0, None)]


async def test_names_that_are_not_utf_8_are_refused(shelf: Shelf) -> None:
    """In a version they make it unusable; a label of them is none. Both are told in plain text."""
    for place in (b"fraud/1/\xff.bin", b"fraud/\xfe/model.onnx"):
        shelf.write(os.fsdecode(place))
    shelf.write("fraud/1/model.onnx")
    shelf.write("fraud/2/model.onnx")
    model = await shelf.registry.model("fraud")
    assert [version.label for version in model.versions] == ["2"]
    assert len(model.unusable) == 2
    assert all(text.isprintable() for pair in model.unusable.items() for text in pair)


async def test_a_version_that_vanishes_meanwhile_is_no_fault(shelf: Shelf) -> None:
    """The next look simply lacks it."""
    shelf.write("fraud/1/model.onnx")
    shelf.write("fraud/2/model.onnx", age_s=0)
    shelf.pauses.meanwhile = lambda: shutil.rmtree(shelf.directory / "fraud" / "2")
    assert await shelf.labels() == ["1"]


async def test_a_directory_that_is_not_there_is_no_empty_registry(shelf: Shelf) -> None:
    """A file system that is not mounted has not lost its models."""
    shelf.directory.rmdir()
    with pytest.raises(RegistryError, match="not there") as caught:
        await shelf.registry.model("fraud")
    assert type(caught.value) is RegistryError


async def test_too_many_files_are_told(shelf: Shelf) -> None:
    """With the number."""
    registry = DirectoryRegistry("disk", shelf.directory, DirectoryOptions(max_files=2))
    for name in ("model.onnx", "a", "b"):
        shelf.write(f"fraud/1/{name}")
    with pytest.raises(RegistryError, match="more than 2 files"):
        await registry.model("fraud")
    await registry.aclose()


async def test_a_file_system_that_hangs_holds_up_nothing_else(shelf: Shelf) -> None:
    """A look ends in time, and the threads that others use are free."""
    shelf.write("fraud/1/model.onnx")
    registry = DirectoryRegistry("disk", shelf.directory, DirectoryOptions(read_timeout_s=0.2))
    version = (await registry.model("fraud")).versions[0]
    listed = (await registry.files(version))[0]
    file = shelf.directory / "fraud" / "1" / "model.onnx"
    file.unlink()
    os.mkfifo(file)  # opening it waits for a writer, as a hung server would
    with pytest.raises(RegistryError, match=r"nothing for 0\.2 s") as caught:
        _ = [piece async for piece in registry.read(version, listed, 0, None)]
    assert caught.value.may_pass
    assert await asyncio.to_thread(threading.get_ident)
    os.close(os.open(file, os.O_WRONLY))  # lets the thread go
    await registry.aclose()


READ_AS_NOBODY = """
import asyncio, os, sys
from pathlib import Path
from gateway.registry.directory_registry import DirectoryRegistry
os.setuid(65534)
model = asyncio.run(DirectoryRegistry("disk", Path(sys.argv[1])).model("fraud"))
print([version.label for version in model.versions], dict(model.unusable))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_files_that_may_not_be_read_are_told() -> None:
    """The reason is the system's own, and the other version is offered."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for label in ("1", "2"):
            file = directory / "fraud" / label / "model.onnx"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"model")
        (directory / "fraud" / "1").chmod(0o700)
        command = [sys.executable, "-c", READ_AS_NOBODY, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['2'] {'1': 'its files cannot be looked at: Permission denied'}"


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("s3://bucket", StoreUrl("s3", "bucket", "")),
        ("s3://bucket/a/b/", StoreUrl("s3", "bucket", "a/b")),
        ("gs://bucket/a%20b", StoreUrl("gs", "bucket", "a b")),
        ("https://Host:8443/models", StoreUrl("https", "host:8443", "models")),
        ("file:///data/my%20models", StoreUrl("file", "", "/data/my models")),
        ("/data/models", StoreUrl("file", "", "/data/models")),
        ("models", StoreUrl("file", "", "models")),
    ],
)
def test_urls_are_taken_apart(url: str, parsed: StoreUrl) -> None:
    """Into what asks for models and what lies before them."""
    assert parse_url(url) == parsed


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "begins with none of"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/a/../b", "leads elsewhere"),
        ("s3://bucket/a%00b", "characters"),
        ("s3://key:hidden@bucket/x", "must not hold credentials"),
        ("https://host/x?sig=hidden", "must not hold '\\?'"),
        ("file://host/dir", "three slashes"),
        ("https://host:port/x", "not a URL"),
        ("http://[::1/x", "not a URL"),
    ],
)
def test_what_is_no_url_of_a_registry_is_refused(url: str, message: str) -> None:
    """In words that hold no secret."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_url(url)
    assert "hidden" not in str(caught.value)


async def test_a_path_opens_a_directory(shelf: Shelf) -> None:
    """With the settings of the store."""
    shelf.write("fraud/1/model.onnx")
    registry = open_registry("disk", ObjectStoreOptions(url=str(shelf.directory), completion_marker="DONE"))
    assert isinstance(registry, DirectoryRegistry)
    assert "DONE" in (await registry.model("fraud")).unusable["1"]
    await registry.aclose()
