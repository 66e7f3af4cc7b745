"""The file system source over real directories."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import ConfigError, ModelLoadError, NotFound
from gateway.core.options import ModelSpec
from gateway.registry.filesystem import FileSystemSource, SourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.models.desired import DesiredVersion

QUICK = SourceOptions(settle_s=0)


def put(path: Path, content: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def source(root: Path, options: SourceOptions = QUICK) -> FileSystemSource:
    return FileSystemSource("repository", root, options=options)


async def offered(root: Path) -> dict[tuple[str, int], DesiredVersion]:
    return {v.id[:2]: v for v in await source(root).snapshot()}


async def test_layout_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The latest version of each model is offered; directories that are no versions are logged once."""
    for name in ("m/1", "m/2", "m/03", "m/0", "m/old", "m/-4", "n/10", "n/warmup", ".git/1"):
        put(tmp_path / name / "model.onnx", name.encode())
    put(tmp_path / "README.md")
    found = source(tmp_path)
    versions = {v.id[:2]: v for v in await found.snapshot()}
    await found.snapshot()
    assert sorted(versions) == [("m", 2), ("n", 10)]
    chosen = versions["m", 2]
    assert chosen.problem == ""
    assert chosen.artifact.model_file == tmp_path / "m" / "2" / "model.onnx"
    assert await found.models() == ["m", "n"]
    for ignored in ("'03'", "'0'", "'old'", "'-4'"):
        assert caplog.text.count(f"directory {ignored} of model 'm' is no version") == 1
    assert "warmup" not in caplog.text


async def test_single_files_and_directories_by_name(tmp_path: Path) -> None:
    """An .onnx file is version 1 under the name given; a directory of versions may have any public name."""
    file = put(tmp_path / "net.onnx")
    put(tmp_path / "net.onnx.data")
    put(tmp_path / "other.bin")
    put(tmp_path / "dir" / "7" / "model.onnx")
    named = FileSystemSource("files", models={"net": file, "public": tmp_path / "dir"}, options=QUICK)
    before = {v.id.model: v for v in await named.snapshot()}
    assert {v.id[:2] for v in before.values()} == {("net", 1), ("public", 7)}
    assert before["net"].artifact.model_file == file
    put(tmp_path / "other.bin", b"changed")
    unrelated = {v.id.model: v for v in await named.snapshot()}
    put(tmp_path / "net.onnx.data", b"changed")
    related = {v.id.model: v for v in await named.snapshot()}
    assert unrelated["net"].id == before["net"].id
    assert related["net"].id != before["net"].id


async def test_config_and_labels_shape_the_spec(tmp_path: Path) -> None:
    """config.pbtxt, its labels, and then the operator's settings make the spec."""
    for number in (1, 2, 3):
        put(tmp_path / "m" / str(number) / "net.onnx")
    put(
        tmp_path / "m" / "config.pbtxt",
        b'default_model_filename: "net.onnx" version_policy { specific { versions: [ 1, 3 ] } } '
        b'max_batch_size: 4 input { name: "x" } output { name: "y" label_filename: "labels.txt" }',
    )
    put(tmp_path / "m" / "labels.txt", b"cat\ndog\n")

    def adjust(spec: ModelSpec) -> ModelSpec:
        assert spec.max_batch_size == 4
        return ModelSpec(name=spec.name, required=False, versions=spec.versions)

    def label_files(model: str) -> Mapping[str, str]:
        return {"z": "labels.txt"}

    options = SourceOptions(settle_s=0, adjust=adjust, label_files=label_files)
    versions = await source(tmp_path, options).snapshot()
    assert [v.id.number for v in versions] == [1, 3]
    assert versions[0].spec.labels == {"y": ("cat", "dog"), "z": ("cat", "dog")}
    assert not versions[0].spec.required


async def test_identity_is_content_and_spec(tmp_path: Path) -> None:
    """A new time alone changes no identity; content, a file's name and the config do, the policy does not."""
    file = put(tmp_path / "m" / "1" / "model.onnx")
    found = source(tmp_path)

    async def digest() -> str:
        return (await found.snapshot())[0].id.digest

    first = await digest()
    os.utime(file, ns=(1, 1))
    assert await digest() == first
    put(tmp_path / "m" / "config.pbtxt", b"")
    assert await digest() == first
    put(tmp_path / "m" / "config.pbtxt", b"version_policy { all { } }")
    assert await digest() == first
    put(tmp_path / "m" / "config.pbtxt", b"max_batch_size: 4")
    configured = await digest()
    put(file, b"other")
    os.utime(file, ns=(1, 1))
    changed = await digest()
    assert len({first, configured, changed}) == 3


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"sequence_batching { }", "field 'sequence_batching' is not supported"),
        (b"max_batch_size: x", "config.pbtxt: 1:"),
        (b'name: "other"', "directory name must equal model name"),
        (b'output { name: "y" label_filename: "missing.txt" }', "'missing.txt' cannot be read"),
        (b"\xff\xfe", "not UTF-8"),
        (b'default_model_filename: "other.onnx"', "model file 'other.onnx' is missing"),
    ],
)
async def test_what_is_wrong_is_offered_as_a_problem(tmp_path: Path, config: bytes, reason: str) -> None:
    """A faulty model stays wanted, so that the old goes on serving, with a reason free of server paths."""
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "config.pbtxt", config)
    problem = (await offered(tmp_path))["m", 1].problem
    assert reason in problem
    assert str(tmp_path) not in problem


async def test_complaints_about_a_config_sent_do_not_blame_the_file(tmp_path: Path) -> None:
    """What is wrong with the JSON that replaces config.pbtxt is said of it."""
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "config.pbtxt", b"max_batch_size: 4")
    for config in ('{"sequence_batching": {}}', '{"max_batch_size": -1}', "[]"):
        (version,) = await source(tmp_path).versions("m", config)
        assert version.problem.startswith("config: ")


@pytest.mark.parametrize("what", ["file", "version", "labels", "extra"])
async def test_link_out_of_the_repository_is_refused(tmp_path: Path, what: str) -> None:
    """A link to a file, directory or label file outside the repository is a problem, not a way out."""
    outside = tmp_path / "outside"
    put(outside / "model.onnx", b"secret")
    root = tmp_path / "root"
    version = root / "m" / "1"
    if what == "version":
        version.parent.mkdir(parents=True)
        version.symlink_to(outside)
    elif what == "file":
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(outside / "model.onnx")
    else:
        put(version / "model.onnx")
    if what == "labels":
        (root / "m" / "labels.txt").symlink_to(outside / "model.onnx")
        put(root / "m" / "config.pbtxt", b'output { name: "y" label_filename: "labels.txt" }')
    if what == "extra":
        (version / "weights").symlink_to(outside)
    assert "leads out of the repository" in (await offered(root))["m", 1].problem


async def test_links_inside_and_a_linked_root_are_fine(tmp_path: Path) -> None:
    """The repository itself may be a link, and links within it may be used, as mounted volumes have them."""
    real = tmp_path / "real"
    put(real / "..data" / "model.onnx")
    (real / "m" / "1").mkdir(parents=True)
    (real / "m" / "1" / "model.onnx").symlink_to(real / "..data" / "model.onnx")
    linked = tmp_path / "linked"
    linked.symlink_to(real)
    versions = await offered(linked)
    assert versions["m", 1].problem == ""


async def test_linked_model_directory_out_of_the_repository_offers_nothing(tmp_path: Path) -> None:
    """A model directory that is a link out of the repository is listed and not read."""
    put(tmp_path / "outside" / "1" / "model.onnx")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "m").symlink_to(tmp_path / "outside")
    assert await offered(tmp_path / "root") == {}


async def test_version_still_written_is_not_offered(tmp_path: Path) -> None:
    """Files that grow between two looks keep their version back, and the one before is offered instead."""
    put(tmp_path / "m" / "1" / "model.onnx")
    growing = put(tmp_path / "m" / "2" / "model.onnx", b"half")
    looks: list[float] = []

    async def write_on(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            growing.write_bytes(b"half and a bit more")

    found = source(tmp_path, SourceOptions(settle_s=30, pause=write_on))
    assert [v.id.number for v in await found.snapshot()] == [1]
    assert [v.id.number for v in await found.snapshot()] == [2]
    assert looks == [30, 30]


async def test_old_files_are_not_waited_for(tmp_path: Path) -> None:
    """Files older than the settling time are offered after one look, without a pause."""
    file = put(tmp_path / "m" / "1" / "model.onnx")
    os.utime(file, (1000, 1000))

    async def never(seconds: float) -> None:
        raise AssertionError("paused for old files")

    found = source(tmp_path, SourceOptions(settle_s=30, pause=never))
    assert len(await found.snapshot()) == 1


@pytest.mark.parametrize("unfinished", ["model.onnx.tmp", "weights.part", "x.crdownload"])
async def test_temporary_names_keep_a_version_back(tmp_path: Path, unfinished: str) -> None:
    """A file under the name of an unfinished copy keeps its version back until it is renamed."""
    put(tmp_path / "m" / "1" / "model.onnx")
    part = put(tmp_path / "m" / "1" / unfinished)
    assert await offered(tmp_path) == {}
    part.rename(part.with_name("weights.bin"))
    assert list(await offered(tmp_path)) == [("m", 1)]


async def test_version_under_rewrite_is_offered_as_it_was(tmp_path: Path) -> None:
    """While an offered version is rewritten or refilled its claim stays; when its directory goes, it ends."""
    file = put(tmp_path / "m" / "1" / "model.onnx")
    found = source(tmp_path)
    before = await found.snapshot()
    part = put(tmp_path / "m" / "1" / "model.onnx.tmp", b"new")
    assert await found.snapshot() == before
    file.unlink()
    part.unlink()
    assert await found.snapshot() == before
    put(file, b"new")
    after = await found.snapshot()
    assert [v.id[:2] for v in after] == [("m", 1)]
    assert after != before
    shutil.rmtree(tmp_path / "m" / "1")
    assert await found.snapshot() == []


async def test_one_model_can_be_asked_for(tmp_path: Path) -> None:
    """`versions` answers for one model, with another config if given, and says why it cannot."""
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "2" / "model.onnx")
    (tmp_path / "empty").mkdir()
    found = source(tmp_path)
    assert [v.id.number for v in await found.versions("m")] == [2]
    every = await found.versions("m", '{"version_policy": {"all": {}}, "max_batch_size": 3}')
    assert [(v.id.number, v.spec.max_batch_size) for v in every] == [(1, 3), (2, 3)]
    with pytest.raises(NotFound, match="failed to load 'x'"):
        await found.versions("x")
    with pytest.raises(ModelLoadError, match="failed to load 'empty', it has no version"):
        await found.versions("empty")


async def test_unreadable_repository_is_a_config_error(tmp_path: Path) -> None:
    """A root or a named model that does not exist is refused with its name."""
    with pytest.raises(ConfigError, match="cannot be read"):
        await source(tmp_path / "no").snapshot()
    with pytest.raises(ConfigError, match="model 'm'"):
        await FileSystemSource("s", models={"m": tmp_path / "no.onnx"}).snapshot()
    with pytest.raises(ConfigError, match="neither a directory nor"):
        await FileSystemSource("s", models={"m": put(tmp_path / "m.txt")}).snapshot()


async def test_watch_sees_new_versions_and_survives_a_vanished_root(tmp_path: Path) -> None:
    """Changes on disk lead to new snapshots; a root that cannot be read leaves the last one in force."""
    root = tmp_path / "root"
    put(root / "m" / "1" / "model.onnx")
    watching = source(root, SourceOptions(settle_s=0, poll_interval_s=0.2))
    async with asyncio.timeout(60), aclosing(watching.watch()) as snapshots:
        assert [v.id.number for v in await anext(snapshots)] == [1]
        put(root / "m" / "2" / "model.onnx")
        while [v.id.number for v in await anext(snapshots)] != [2]:
            pass
        root.rename(tmp_path / "away")
        later = asyncio.ensure_future(anext(snapshots))
        (tmp_path / "away").rename(root)
        put(root / "m" / "3" / "model.onnx")
        versions = await later
        while [v.id.number for v in versions] != [3]:
            versions = await anext(snapshots)
